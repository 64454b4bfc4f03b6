//! Ctrl-C: the first asks for an orderly end, and everything that waits looks here.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What a shell expects of a program that ended by Ctrl-C: 128 and the signal's number.
const INTERRUPTED_CODE: u8 = 130;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From here on Ctrl-C and SIGTERM are noted instead of killing this process. Children in the
/// terminal's process group get Ctrl-C too, and end by themselves.
pub fn take_over() -> Result<()> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::SeqCst)).context("cannot handle Ctrl-C")
}

/// Whether Ctrl-C was pressed.
pub fn happened() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// How a program ends that came to this; a failure is said on standard error.
pub fn exit_code(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // What failed then failed because its other side got Ctrl-C too.
        Err(_) if happened() => {
            eprintln!("\ninterrupted");
            ExitCode::from(INTERRUPTED_CODE)
        }
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
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
