//! What is made of many figures, and of a session's timeline.

use serde_json::Value;

pub use crate::cycles::median;

/// The 99th percentile; of fewer than a hundred the worst.
pub fn p99(values: &[u64]) -> Option<u64> {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get((values.len() * 99 / 100).min(values.len().saturating_sub(1))).copied()
}

/// When the session's timeline has this first.
pub fn when(status: &Value, kind: &str) -> Option<u64> {
    entry(status, kind)?["at"].as_u64()
}

/// What it says then.
pub fn message<'a>(status: &'a Value, kind: &str) -> Option<&'a str> {
    entry(status, kind)?["message"].as_str()
}

fn entry<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status["timeline"].as_array()?.iter().find(|entry| entry["kind"] == kind)
}
