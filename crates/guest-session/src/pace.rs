//! What a guest may do how often: more is not refused but waits, and so waits the guest.

use std::time::Duration;

use leaky_bucket::RateLimiter;

/// How often what was used up is given back.
const REFILL: Duration = Duration::from_millis(100);

/// `per_second` for long, `burst` at once.
pub fn pace(per_second: usize, burst: usize) -> RateLimiter {
    RateLimiter::builder()
        .interval(REFILL)
        .refill(per_second / 10)
        .max(burst)
        .initial(burst)
        .build()
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_a_flood_waits() {
        let started = Instant::now();
        let pace = pace(10, 5);
        for _ in 0..5 {
            pace.acquire_one().await;
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
        for _ in 0..20 {
            pace.acquire_one().await;
        }
        assert!(started.elapsed() >= Duration::from_millis(1900), "{:?}", started.elapsed());
    }
}
