//! When the next frame may be made.

use std::time::{Duration, Instant};

/// The least time between two frames: about 60 a second.
const FRAME_PERIOD: Duration = Duration::from_micros(16_000);
/// What may still be on its way out when the next frame is made.
const BACKLOG: Duration = Duration::from_millis(20);
/// The least time between two key frames: a viewer cannot make us send nothing else.
const KEY_PERIOD: Duration = Duration::from_millis(300);

/// Keeps frames from being made faster than they can leave, so that nothing queues.
#[derive(Debug, Default)]
pub(crate) struct Pacing {
    next_frame: Option<Instant>,
    next_key: Option<Instant>,
    // When all that was sent has left, at the estimated rate.
    drained: Option<Instant>,
}

impl Pacing {
    /// The earliest moment for the next frame.
    pub(crate) fn next_frame(&self) -> Option<Instant> {
        let drained = self.drained.and_then(|drained| drained.checked_sub(BACKLOG));
        self.next_frame.max(drained)
    }

    /// The earliest moment for the next key frame.
    pub(crate) fn next_key(&self) -> Option<Instant> {
        self.next_key.max(self.next_frame())
    }

    /// A frame is begun.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.next_frame = Some(now + FRAME_PERIOD);
    }

    /// A frame was handed to the network.
    pub(crate) fn sent(&mut self, now: Instant, bytes: usize, key: bool, bitrate_bps: u64) {
        let micros = (bytes as u64).saturating_mul(8_000_000) / bitrate_bps.max(1);
        let from = self.drained.map_or(now, |drained| drained.max(now));
        self.drained = Some(from + Duration::from_micros(micros));
        if key {
            self.next_key = Some(now + KEY_PERIOD);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_frames_come_sixty_times_a_second() {
        let mut pacing = Pacing::default();
        let now = Instant::now();
        assert_eq!(pacing.next_frame(), None);
        pacing.begin(now);
        pacing.sent(now, 500, false, 8_000_000);
        assert_eq!(pacing.next_frame(), Some(now + FRAME_PERIOD));
    }

    #[test]
    fn a_large_frame_has_to_leave_first() {
        let mut pacing = Pacing::default();
        let now = Instant::now();
        pacing.begin(now);
        pacing.sent(now, 100_000, true, 8_000_000);
        assert_eq!(pacing.next_frame(), Some(now + Duration::from_millis(80)));
        assert_eq!(pacing.next_key(), Some(now + KEY_PERIOD));
    }
}
