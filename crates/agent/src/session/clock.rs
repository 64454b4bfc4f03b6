//! The guest's clock, held to the host's: it is wrong after the host slept, and where the counter that
//! it is made of is not as steady as was thought.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};

use crate::guest::{Guest, GuestKind};
use crate::report::Reporter;

/// A clock that is wrong by more than this is set: less does no harm to a certificate or a token, and
/// each set is a jump for the programs.
const TOLERATED: Duration = Duration::from_secs(2);

/// An answer that took longer says too little of what time it is.
const SLOWEST_ANSWER: Duration = Duration::from_secs(2);

/// The guest's clock that nobody sets, in milliseconds.
pub fn monotonic_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Sets the clock to so many milliseconds since the Unix epoch.
pub fn set(unix_ms: u64) -> Result<()> {
    let since_epoch = Duration::from_millis(unix_ms);
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from(since_epoch))
        .context("setting the clock failed")
}

/// Sets a guest's clock when the host's answer shows that it is wrong. A machine's own clock is its
/// own affair.
pub fn hold(guest: &Guest, asked_ms: u64, host_unix_ms: u64, reporter: &Reporter) {
    if guest.kind == GuestKind::Host {
        return;
    }
    let took = monotonic_ms().saturating_sub(asked_ms);
    let here = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let here_ms = u64::try_from(here.as_millis()).unwrap_or(u64::MAX);
    let Some(right_ms) = correction(here_ms, host_unix_ms, took) else { return };
    let wrong_by = Duration::from_millis(here_ms.abs_diff(right_ms)).as_secs_f64();
    let way = if here_ms < right_ms { "behind" } else { "ahead of" };
    match set(right_ms) {
        Ok(()) => {
            reporter.note(&format!("the clock was {wrong_by:.1} s {way} the host's and was set"));
        }
        Err(error) => {
            reporter.note(&format!("the clock is {wrong_by:.1} s {way} the host's: {error:#}"));
        }
    }
}

/// What the clock is set to, if the host's answer, which is up to `took_ms` old, leaves no doubt that it
/// is wrong by more than is tolerated.
fn correction(here_ms: u64, host_ms: u64, took_ms: u64) -> Option<u64> {
    if u128::from(took_ms) > SLOWEST_ANSWER.as_millis() {
        return None;
    }
    // Asked and answered: the host's clock was read somewhere between.
    let doubt = took_ms / 2;
    let right = host_ms.saturating_add(doubt);
    let wrong_by = here_ms.abs_diff(right).saturating_sub(doubt);
    (u128::from(wrong_by) > TOLERATED.as_millis()).then_some(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_set_when_it_is_wrong_beyond_doubt() {
        let host = 1_700_000_000_000;
        assert_eq!(correction(host, host, 0), None);
        assert_eq!(correction(host + 2_000, host, 0), None);
        assert_eq!(correction(host + 2_001, host, 0), Some(host));
        assert_eq!(correction(host - 3_600_000, host, 10), Some(host + 5), "the host slept");
        assert_eq!(correction(host - 2_600, host, 1_000), Some(host + 500));
        assert_eq!(correction(host + 2_700, host, 1_000), None, "the answer may be old");
        assert_eq!(correction(host - 3_600_000, host, 2_001), None, "it is too old");
        assert_eq!(correction(0, u64::MAX, 2_000), Some(u64::MAX));
    }

    #[test]
    fn a_clock_that_was_right_is_left_however_the_answer_was_delayed() {
        let asked_at = 1_700_000_000_000;
        for there in (0..=2_000).step_by(50) {
            for back in (0..=2_000).step_by(50) {
                let here = asked_at + there + back;
                assert_eq!(correction(here, asked_at + there, there + back), None);
            }
        }
    }
}
