//! The rate of this processor's time stamp counter.
//!
//! An emulated guest reads this counter as it is, so its clock is right when it is given the counter's
//! own rate. `/proc/cpuinfo` does not have it: "cpu MHz" there is what the processor runs at just now.

use std::time::{Duration, Instant};

/// Reading both clocks takes a microsecond or two, so what is found is right to 1 in 10,000.
const MEASURED_FOR: Duration = Duration::from_millis(30);

/// Readings at each end, of which the one that was interrupted least counts.
const READINGS: u32 = 16;

/// Slower or faster than this is not a counter that a guest could use.
const PLAUSIBLE_KHZ: std::ops::RangeInclusive<u64> = 10_000..=20_000_000;

/// The counter's rate in kHz, measured against the monotonic clock; takes some tens of milliseconds.
/// `None` where the counter does not count.
#[must_use]
pub fn counter_khz() -> Option<u64> {
    let from = Reading::take();
    std::thread::sleep(MEASURED_FOR);
    Reading::take().rate_since(&from)
}

/// Both clocks at one moment.
struct Reading {
    counter: u64,
    clock: Instant,
}

impl Reading {
    /// The best of some: that with the fewest counts around the look at the clock.
    fn take() -> Self {
        let mut best = None;
        for _ in 0..READINGS {
            let before = counter();
            let clock = Instant::now();
            let width = counter().wrapping_sub(before);
            let reading = Self { counter: before.wrapping_add(width / 2), clock };
            if best.as_ref().is_none_or(|(least, _)| width < *least) {
                best = Some((width, reading));
            }
        }
        best.map_or_else(|| Self { counter: counter(), clock: Instant::now() }, |(_, best)| best)
    }

    fn rate_since(&self, earlier: &Self) -> Option<u64> {
        let counts = u128::from(self.counter.checked_sub(earlier.counter)?);
        let nanos = self.clock.duration_since(earlier.clock).as_nanos();
        let khz = u64::try_from(counts.checked_mul(1_000_000)?.checked_div(nanos)?).ok()?;
        PLAUSIBLE_KHZ.contains(&khz).then_some(khz)
    }
}

fn counter() -> u64 {
    // SAFETY: RDTSC reads a counter and touches nothing else; every x86-64 processor has it, and only
    // a process that asks for it (PR_SET_TSC) is forbidden to use it, which this one never does.
    #[expect(unsafe_code, reason = "the counter has no safe reader")]
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_counts_by_time() {
        let clock = Instant::now();
        let earlier = Reading { counter: 1_000, clock };
        let after = |counts: u64, millis: u64| {
            let clock = clock + Duration::from_millis(millis);
            Reading { counter: 1_000 + counts, clock }.rate_since(&earlier)
        };
        assert_eq!(after(24_450_000, 10), Some(2_445_000));
        assert_eq!(after(0, 10), None, "it stands still");
        assert_eq!(after(24_450_000, 0), None, "no time has passed");
        let gone_back = Reading { counter: 1, clock: clock + Duration::from_millis(10) };
        assert_eq!(gone_back.rate_since(&earlier), None);
    }

    #[test]
    fn two_measurements_agree() {
        let (one, other) = (counter_khz().unwrap(), counter_khz().unwrap());
        assert!(one.abs_diff(other) < one / 1000, "{one} and {other} kHz");
    }
}
