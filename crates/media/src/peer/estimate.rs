//! Which falls of the bandwidth estimate to believe.

use std::time::{Duration, Instant};

/// How long traffic is counted before it is compared with the estimate.
const WINDOW: Duration = Duration::from_secs(1);
/// The least time between two restarts of the estimator.
const RESTART_PERIOD: Duration = Duration::from_secs(10);

/// Distinguishes congestion from silence.
///
/// After a moment of jitter the estimator falls to what was received of late. On a desktop where
/// little moves that is next to nothing, and the next page would crawl. A fall that came while we
/// sent much less than the estimate says nothing about the network, so the estimator is started
/// again, half as high as was last sustained.
#[derive(Debug)]
pub(super) struct EstimateGuard {
    sustained_bps: u64,
    window_start: Instant,
    window_bytes: u64,
    sent_bps: u64,
    last_restart: Option<Instant>,
}

impl EstimateGuard {
    pub(super) fn new(now: Instant, start_bps: u64) -> Self {
        Self {
            sustained_bps: start_bps,
            window_start: now,
            window_bytes: 0,
            sent_bps: 0,
            last_restart: None,
        }
    }

    /// Counts a datagram.
    pub(super) fn sent(&mut self, now: Instant, bytes: usize) {
        let elapsed = now.saturating_duration_since(self.window_start);
        if elapsed >= WINDOW {
            let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
            self.sent_bps = self.window_bytes.saturating_mul(8_000_000) / micros;
            (self.window_start, self.window_bytes) = (now, 0);
        }
        self.window_bytes += bytes as u64;
    }

    /// Takes a new estimate. Gives the rate to start the estimator again with, if it should be.
    pub(super) fn estimated(&mut self, now: Instant, estimate_bps: u64) -> Option<u64> {
        let is_tested = self.sent_bps >= estimate_bps / 2;
        if is_tested || estimate_bps >= self.sustained_bps {
            self.sustained_bps = estimate_bps;
            return None;
        }
        let rested = self.last_restart.is_none_or(|at| at + RESTART_PERIOD <= now);
        if estimate_bps < self.sustained_bps / 4 && rested {
            self.last_restart = Some(now);
            return Some(self.sustained_bps / 2);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard_after(bytes_a_second: usize) -> (EstimateGuard, Instant) {
        let start = Instant::now();
        let mut guard = EstimateGuard::new(start, 8_000_000);
        for second in 0..5 {
            guard.sent(start + Duration::from_secs(second), bytes_a_second);
        }
        (guard, start + Duration::from_secs(5))
    }

    #[test]
    fn a_fall_in_silence_is_not_believed_but_not_fought_either() {
        let (mut guard, now) = guard_after(10_000);
        assert_eq!(guard.estimated(now, 3_000_000), None);
        assert_eq!(guard.estimated(now, 300_000), Some(4_000_000));
        assert_eq!(guard.estimated(now, 200_000), None);
        assert_eq!(guard.estimated(now + RESTART_PERIOD, 200_000), Some(4_000_000));
    }

    #[test]
    fn a_fall_under_load_is_believed() {
        let (mut guard, now) = guard_after(100_000);
        assert_eq!(guard.estimated(now, 700_000), None);
        assert_eq!(guard.estimated(now, 400_000), None);
    }
}
