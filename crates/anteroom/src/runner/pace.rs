//! What a guest may do how often: more is not refused but waits, and so waits the guest.

use std::time::Duration;

use tokio::time::Instant;

/// A token bucket that is waited for.
#[derive(Debug)]
pub struct Pace {
    each: Duration,
    burst: u32,
    /// When the bucket would be full again.
    full_at: Instant,
}

impl Pace {
    /// `per_second` for long, `burst` at once.
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self { each: Duration::from_secs(1) / per_second, burst, full_at: Instant::now() }
    }

    /// Waits for its turn.
    pub async fn turn(&mut self) {
        let now = Instant::now();
        self.full_at = self.full_at.max(now) + self.each;
        let ahead = self.each * self.burst;
        if self.full_at > now + ahead {
            tokio::time::sleep_until(self.full_at - ahead).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_a_flood_waits() {
        let started = Instant::now();
        let mut pace = Pace::new(10, 5);
        for _ in 0..5 {
            pace.turn().await;
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
        for _ in 0..20 {
            pace.turn().await;
        }
        assert!(started.elapsed() >= Duration::from_millis(1900), "{:?}", started.elapsed());
    }
}
