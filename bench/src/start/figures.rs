//! What is made of many figures, and of a session's timeline.

use std::time::Duration;

use anteroom_session::Waited;
use serde_json::Value;

pub use crate::cycles::median;

/// The 99th percentile; of fewer than a hundred the worst.
pub fn p99(values: &[u64]) -> Option<u64> {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get((values.len() * 99 / 100).min(values.len().saturating_sub(1))).copied()
}

/// The median of microseconds, in milliseconds with one decimal place.
pub fn median_ms(micros: &[u64]) -> Option<f64> {
    let seconds = Duration::from_micros(median(micros)?).as_secs_f64();
    Some((seconds * 10_000.0).round() / 10.0)
}

/// What of a start is our own, in microseconds: of these milliseconds from the start call to the agent's hello
/// those in which nobody else was waited for.
pub fn own_share(link_ms: u64, waited: &Waited) -> u64 {
    link_ms.saturating_mul(1000).saturating_sub(waited.micros())
}

/// How long the start of the session's clone waited for others.
pub fn waited(status: &Value) -> Option<Waited> {
    serde_json::from_value(entry(status, "agent_connected")?["waited"].clone()).ok()
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_were_waited_for_is_not_our_own_share() {
        let made =
            Waited { vmm_start_micros: Some(70_300), resume_micros: 400, guest_micros: 9_100 };
        assert_eq!(own_share(92, &made), 12_200);
        let had_waited = Waited { vmm_start_micros: None, ..made };
        assert_eq!(own_share(92, &had_waited), 82_500);
        // Its clock is one of whole milliseconds.
        assert_eq!(own_share(79, &made), 0);
        let endless = Waited { guest_micros: u64::MAX, ..made };
        assert_eq!((own_share(92, &endless), own_share(u64::MAX, &made)), (0, u64::MAX - 79_800));
    }

    #[test]
    fn a_median_has_as_many_values_on_each_side() {
        assert_eq!(median_ms(&[]), None);
        assert_eq!(median_ms(&[9_960]), Some(10.0));
        assert_eq!(median_ms(&[90_000, 12_340, 1]), Some(12.3));
        for count in 1..50_usize {
            let values: Vec<u64> = (0..count).map(|at| (at * 7919 % 50) as u64).collect();
            let p50 = median(&values).unwrap();
            let below = values.iter().filter(|value| **value < p50).count();
            let above = values.iter().filter(|value| **value > p50).count();
            assert!(below <= count / 2 && above <= count / 2, "{p50} of {values:?}");
        }
    }

    #[test]
    fn what_was_waited_is_read_from_the_timeline() {
        let waited_of = |parts: Value| {
            let connected = json!({ "kind": "agent_connected", "at": 1, "waited": parts });
            waited(&json!({ "timeline": [{ "kind": "sandbox_started" }, connected] }))
        };
        let parts = json!({ "vmmStartMicros": 3, "resumeMicros": 2, "guestMicros": 1 });
        assert_eq!(waited_of(parts).map(|waited| waited.micros()), Some(6));
        assert_eq!(waited_of(Value::Null), None);
    }
}
