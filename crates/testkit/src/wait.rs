//! Waiting for a thing, never for a time.

use std::time::{Duration, Instant};

/// How long anything may take in a test; a machine that compiles beside it is slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until there is something.
///
/// # Panics
/// With `what`, when there is nothing for [`PATIENCE`].
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, ask)
}

/// The same with another patience.
///
/// # Panics
/// With `what`, when there is nothing for that long.
pub fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut ask: impl FnMut() -> Option<T>,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(started.elapsed() < patience, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
