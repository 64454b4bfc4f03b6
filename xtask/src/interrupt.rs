//! Ctrl-C: the first asks for an orderly end, and everything that waits looks here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What a shell expects of a program that ended by Ctrl-C: 128 and the signal's number.
pub const EXIT_CODE: u8 = 130;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From here on Ctrl-C and SIGTERM are noted instead of killing this process. Children in the
/// terminal's process group get Ctrl-C too, and end by themselves.
pub fn take_over() -> Result<()> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::SeqCst))
        .context("taking over Ctrl-C failed")
}

/// Whether Ctrl-C was pressed.
pub fn happened() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Fails once Ctrl-C was pressed.
pub fn check() -> Result<()> {
    if happened() {
        bail!("interrupted");
    }
    Ok(())
}

/// Waits; fails once Ctrl-C was pressed.
pub fn sleep(time: Duration) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < time {
        check()?;
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
