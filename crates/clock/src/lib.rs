//! The time of day that sessions are stamped and ended by.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anteroom_session::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Milliseconds since the Unix epoch: the wall clock as it was when this process first asked, and
/// what has passed since, a suspended machine's sleep included. A wall clock that is stepped later
/// ends no session early and keeps none alive.
pub fn now() -> Timestamp {
    static START: OnceLock<(Duration, Duration)> = OnceLock::new();
    let since_boot = since_boot();
    let (wall, at_start) = START.get_or_init(|| {
        (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), since_boot)
    });
    let now = *wall + since_boot.saturating_sub(*at_start);
    Timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_at_the_wall_clock_and_never_goes_back() {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let first = now();
        assert!(first.0.abs_diff(u64::try_from(wall.as_millis()).unwrap()) < 60_000);
        assert!(now() >= first);
    }
}
