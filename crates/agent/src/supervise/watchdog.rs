//! Services that must go on answering.

use std::time::Duration;

use anyhow::Result;
use futures::future::LocalBoxFuture;
use tokio::time::Instant;

/// A service is asked this many times in the time that it may be silent, so that its silence is known to
/// within a part of it at little cost; no less often than every ten seconds.
const LOOKS_IN_SILENCE: u32 = 6;
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(10);

/// How a running service is watched.
pub struct Watchdog {
    /// What is asked, for the evidence.
    pub asked: String,
    /// How long it may be silent.
    pub longest_silence: Duration,
    /// How long one look may take.
    pub longest_look: Duration,
    /// Resolves when the service answers.
    pub answers: Box<dyn Fn() -> LocalBoxFuture<'static, Result<()>>>,
}

impl Watchdog {
    /// Returns when the service has not answered for as long as it may be silent, counted from its last
    /// answer. One that answers once it can be asked again was never silent, however long it could not be
    /// asked: a suspended machine is no fault of its services.
    pub async fn silence(&self) -> Duration {
        let most = self.longest_silence;
        let between = (most / LOOKS_IN_SILENCE).min(LOOK_AT_LEAST_EVERY);
        let mut answered = Instant::now();
        loop {
            tokio::time::sleep(between).await;
            let look = (most - between).min(self.longest_look);
            let until = (answered + most).max(Instant::now() + look);
            if tokio::time::timeout_at(until, (self.answers)()).await.is_err() {
                return answered.elapsed();
            }
            answered = Instant::now();
        }
    }
}
