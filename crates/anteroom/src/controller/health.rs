//! Whether the controller can work: looked at in the background, told from memory.
//!
//! Whoever asks needs no right, so asking must cost nothing: above all no write, for which real ones
//! would wait.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anteroom_api::Health;
use tokio::time::Instant;

use super::store::Store;
use crate::clock::now;
use crate::node_protocol::Node;

/// How often is looked; each look is one small durable write.
const EVERY: Duration = Duration::from_secs(5);

/// From when on a look that does not come back is itself the news.
const LATE: Duration = Duration::from_secs(10);

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
pub struct Look<N, S> {
    pub store: S,
    pub node: Arc<N>,
}

impl<N: Node, S: Store> Look<N, S> {
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
        reasons.extend(self.node.obstacles().await);
        known.with(|state| *state = State { looking_since: None, reasons });
    }
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
