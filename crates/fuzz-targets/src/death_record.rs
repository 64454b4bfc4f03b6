//! What a guest says of a death: whatever it is, it is explained in one bounded sentence.

use anteroom_crash::{Death, explain};
use anteroom_guest_protocol::{GuestMessage, ServiceEvent};

/// Panics where the reader does not hold what is written above.
pub fn run(message: &[u8]) {
    let Ok(GuestMessage::Service { event, .. }) = serde_json::from_slice(message) else { return };
    let (exit, lived_ms, last_lines, evidence) = match event {
        ServiceEvent::Exited { exit, lived_ms, last_lines, evidence, .. } => {
            (Some(exit), lived_ms, last_lines, evidence)
        }
        ServiceEvent::Failed { exit, lived_ms, last_lines, evidence, .. } => {
            (exit, lived_ms, last_lines, evidence)
        }
        _ => return,
    };
    let why = explain(&Death {
        service: "injected",
        exit,
        lived_ms: Some(lived_ms),
        last_lines: Some(&last_lines),
        evidence: &evidence,
        cpu: None,
    });
    assert!(why.sentence.starts_with("injected "));
}
