//! What share of a core some processes take, read from /proc.

use std::time::Instant;

use anteroom_testkit::processes;
use anyhow::Result;

/// The clock tick of `/proc/PID/stat`; it is 100 on every Linux that Rust's std runs on.
const TICKS_A_SECOND: f64 = 100.0;

/// The processor time of some processes at one moment.
pub struct Reading {
    at: Instant,
    ticks: f64,
}

impl Reading {
    /// All that these have taken so far.
    pub fn of(pids: impl IntoIterator<Item = u32>) -> Result<Self> {
        let mut ticks = 0.0;
        for pid in pids {
            let after_name = processes::stat_after_name(pid)?;
            // utime and stime are fields 14 and 15 of all (proc(5)), 12 and 13 after the name.
            let fields = after_name.iter().skip(11).take(2);
            ticks += fields.flat_map(|field| field.parse::<f64>()).sum::<f64>();
        }
        Ok(Self { at: Instant::now(), ticks })
    }

    /// The share of a core between two readings.
    pub fn share_until(&self, later: &Self) -> f64 {
        let seconds = later.at.duration_since(self.at).as_secs_f64();
        (later.ticks - self.ticks) / TICKS_A_SECOND / seconds
    }
}
