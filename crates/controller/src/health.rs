//! Whether the controller can work: checked in the background, reported from memory.
//!
//! Whoever asks needs no right, so asking must cost nothing: above all no write, for which real ones
//! would wait.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anteroom_api::Health;
use anteroom_clock::now;
use anteroom_guest_protocol::chain;
use anteroom_node_protocol::Node;
use tokio::time::Instant;

use super::store::Store;

/// How often it is checked; each check is one small durable write.
const EVERY: Duration = Duration::from_secs(5);

/// From when on a check that does not return is reported itself.
const LATE: Duration = Duration::from_secs(10);

/// What is known. Cheap to clone.
#[derive(Clone)]
pub struct Known(Arc<Mutex<State>>);

struct State {
    /// When the check that still runs began.
    checking_since: Option<Instant>,
    /// What the last one found, one sentence each.
    reasons: Vec<String>,
}

/// What is checked.
pub struct Check<N, S> {
    pub store: S,
    pub node: Arc<N>,
}

impl<N: Node, S: Store> Check<N, S> {
    /// Checks once, and from then on for as long as the process lives.
    pub async fn start(self) -> Known {
        let known =
            Known(Arc::new(Mutex::new(State { checking_since: None, reasons: Vec::new() })));
        self.check(&known).await;
        let reported = known.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(EVERY).await;
                self.check(&known).await;
            }
        });
        reported
    }

    async fn check(&self, known: &Known) {
        known.with(|state| state.checking_since = Some(Instant::now()));
        let mut reasons = Vec::new();
        if let Err(error) = self.store.check(now().0).await {
            reasons.push(chain(&error));
        }
        reasons.extend(self.node.obstacles().await);
        known.with(|state| *state = State { checking_since: None, reasons });
    }
}

impl Known {
    /// As it is now, as far as is known.
    pub fn health(&self) -> Health {
        let reasons = self.with(|state| {
            let mut reasons = state.reasons.clone();
            let waited = state.checking_since.map(|since| since.elapsed());
            if let Some(waited) = waited.filter(|waited| *waited > LATE) {
                let seconds = waited.as_secs();
                reasons.push(format!("the database has accepted no write for {seconds} s"));
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
    async fn a_check_that_does_not_return_is_reported() {
        let checking_since = Some(Instant::now());
        let known = Known(Arc::new(Mutex::new(State { checking_since, reasons: Vec::new() })));
        assert!(known.health().ready);
        tokio::time::advance(LATE + Duration::from_secs(1)).await;
        let health = known.health();
        assert_eq!(health.reasons, ["the database has accepted no write for 11 s"]);
        assert!(!health.ready);
    }
}
