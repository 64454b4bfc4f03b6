//! What the viewer sends, checked and rate limited.

use std::time::{Duration, Instant};

use anteroom_guest_protocol::MAX_INPUT_MESSAGE;
use anteroom_guest_protocol::input::{InputError, InputEvent};

/// Input events a second that a viewer may send for long.
pub const EVENTS_PER_SECOND: u32 = 1000;
/// Input events that it may send at once.
pub const BURST: u32 = 500;

/// An input message that was dropped.
#[derive(Debug, thiserror::Error)]
pub enum InputRefused {
    /// Longer than [`MAX_INPUT_MESSAGE`].
    #[error("an input message of {bytes} bytes was sent; at most {MAX_INPUT_MESSAGE} are allowed")]
    TooLong {
        /// Bytes that came.
        bytes: usize,
    },
    /// More often than [`EVENTS_PER_SECOND`].
    #[error("more than {EVENTS_PER_SECOND} input messages were sent in a second")]
    TooMany,
    /// Not of the protocol.
    #[error("reading an input message of {bytes} bytes failed")]
    Unreadable {
        /// Bytes that came.
        bytes: usize,
        /// Where and what.
        source: serde_json::Error,
    },
    /// Of the protocol, but too much.
    #[error("an input event exceeds its limits")]
    OverLimit {
        /// Which limit.
        source: InputError,
    },
}

/// Reads one message of the data channel, as the viewer sent it.
///
/// # Errors
/// When it is too long, not of the protocol or over the limits of its event.
pub fn read_input(message: &[u8]) -> Result<InputEvent, InputRefused> {
    let bytes = message.len();
    if bytes > MAX_INPUT_MESSAGE {
        return Err(InputRefused::TooLong { bytes });
    }
    let event: InputEvent = serde_json::from_slice(message)
        .map_err(|source| InputRefused::Unreadable { bytes, source })?;
    event.checked().map_err(|source| InputRefused::OverLimit { source })
}

/// Lets through at most [`EVENTS_PER_SECOND`] events.
#[derive(Debug)]
pub(crate) struct InputGate {
    // The moment at which the bucket would be full again.
    full_at: Option<Instant>,
}

impl InputGate {
    pub(crate) fn new() -> Self {
        Self { full_at: None }
    }

    /// Checks one message from the viewer.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        message: &[u8],
    ) -> Result<InputEvent, InputRefused> {
        if self.has_token(now) { read_input(message) } else { Err(InputRefused::TooMany) }
    }

    fn has_token(&mut self, now: Instant) -> bool {
        let each = Duration::from_secs(1) / EVENTS_PER_SECOND;
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now)) + each;
        if full_at > now + each * BURST {
            return false;
        }
        self.full_at = Some(full_at);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOVE: &[u8] = br#"{"type":"pointer_move","x":3,"y":4}"#;

    #[test]
    fn a_flood_is_cut_and_a_steady_hand_is_not() {
        let start = Instant::now();
        let mut gate = InputGate::new();
        let taken = (0..10_000).filter(|_| gate.take(start, MOVE).is_ok()).count();
        assert_eq!(taken, 500);
        let mut gate = InputGate::new();
        let hand = (0..5000u64).map(|i| start + Duration::from_millis(i));
        assert!(hand.into_iter().all(|now| gate.take(now, MOVE).is_ok()));
    }

    #[test]
    fn what_is_no_input_is_refused() {
        let mut gate = InputGate::new();
        let now = Instant::now();
        let mut refused = |message: &[u8]| gate.take(now, message).unwrap_err();
        assert!(matches!(refused(&[b' '; 40_000]), InputRefused::TooLong { bytes: 40_000 }));
        assert!(matches!(refused(b"{}"), InputRefused::Unreadable { .. }));
        let control = br#"{"type":"text","text":"\u001b"}"#;
        assert!(matches!(refused(control), InputRefused::OverLimit { .. }));
    }
}
