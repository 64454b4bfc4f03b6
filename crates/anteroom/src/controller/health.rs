//! Whether the controller can work: looked at in the background, told from memory.
//!
//! Whoever asks needs no right, so asking must cost nothing: above all no write, for which real ones
//! would wait.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anteroom_api::Health;
use anteroom_vm::Qemu;
use tokio::time::Instant;

use super::DriverChoice;
use super::settings::Settings;
use super::store::Store;
use crate::clock::now;

/// How often is looked; each look is one small durable write.
const EVERY: Duration = Duration::from_secs(5);

/// From when on a look that does not come back is itself the news.
const LATE: Duration = Duration::from_secs(10);

/// Files that starting a session opens: sockets, their duplicates, its log; and some to spare.
const FILES_TO_START: usize = 16;

/// What is known. Cheap to clone.
#[derive(Clone)]
pub struct Known(Arc<Mutex<State>>);

struct State {
    /// When the look that goes on began.
    looking_since: Option<Instant>,
    /// What the last one found, one sentence each.
    reasons: Vec<String>,
}

/// What is looked at.
pub struct Look {
    store: Store,
    /// Of QEMU's.
    images_dir: Option<PathBuf>,
}

impl Look {
    /// At this store, and what the settings need.
    pub fn new(store: Store, settings: &Settings) -> Self {
        let images_dir = match settings.driver {
            DriverChoice::Qemu(_) => Some(settings.images_dir.clone()),
            DriverChoice::Host { .. } => None,
        };
        Self { store, images_dir }
    }

    /// Looks once, and from then on for as long as the process lives.
    pub async fn start(self) -> Known {
        let known = Known(Arc::new(Mutex::new(State { looking_since: None, reasons: Vec::new() })));
        self.look(&known).await;
        let reported = known.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                self.look(&known).await;
            }
        });
        reported
    }

    async fn look(&self, known: &Known) {
        known.with(|state| state.looking_since = Some(Instant::now()));
        let mut reasons = Vec::new();
        if let Err(error) = self.store.check(now().0).await {
            reasons.push(format!("{error:#}"));
        }
        let images_dir = self.images_dir.clone();
        let machine = tokio::task::spawn_blocking(move || machine(images_dir));
        reasons.extend(machine.await.unwrap_or_default());
        known.with(|state| *state = State { looking_since: None, reasons });
    }
}

/// What of the machine stands against a start.
fn machine(images_dir: Option<PathBuf>) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Err(error) = can_open_files() {
        reasons.push(format!("no more files can be opened: {error}; raise `ulimit -n`"));
    }
    if let Some(dir) = images_dir {
        if let Err(error) = Qemu::installed() {
            reasons.push(error.to_string());
        }
        if anteroom_image::list(&dir).is_empty() {
            reasons.push(format!(
                "there is no golden image in {}; build one with `anteroom image build`",
                dir.display()
            ));
        }
    }
    reasons
}

/// Whether this process may open as many files as starting a session takes.
fn can_open_files() -> std::io::Result<()> {
    let files: std::io::Result<Vec<_>> =
        (0..FILES_TO_START).map(|_| std::fs::File::open("/dev/null")).collect();
    files.map(drop)
}

impl Known {
    /// As it is now, as far as is known.
    pub fn health(&self) -> Health {
        let reasons = self.with(|state| {
            let mut reasons = state.reasons.clone();
            let waited = state.looking_since.map(|since| since.elapsed());
            if let Some(waited) = waited.filter(|waited| *waited > LATE) {
                let seconds = waited.as_secs();
                reasons.push(format!("the database has not taken a write for {seconds} s"));
            }
            reasons
        });
        Health { live: true, ready: reasons.is_empty(), reasons }
    }

    fn with<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_look_that_does_not_come_back_is_reported() {
        let looking_since = Some(Instant::now());
        let known = Known(Arc::new(Mutex::new(State { looking_since, reasons: Vec::new() })));
        assert!(known.health().ready);
        tokio::time::advance(LATE + Duration::from_secs(1)).await;
        let health = known.health();
        assert_eq!(health.reasons, ["the database has not taken a write for 11 s"]);
        assert!(!health.ready);
    }
}
