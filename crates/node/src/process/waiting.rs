//! Requests that a runner has not answered yet.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anteroom_runner_protocol::OfferAnswer;
use anteroom_session::{CodeTaken, HostPort};
use tokio::sync::oneshot;

/// Those of one kind, by their numbers; an answer is a value or a sentence.
pub type Requests<T> = Mutex<HashMap<u64, oneshot::Sender<Result<T, String>>>>;

/// All of them.
#[derive(Default)]
pub struct Waiting {
    next: AtomicU64,
    pub offers: Requests<OfferAnswer>,
    pub screenshots: Requests<String>,
    pub codes: Requests<CodeTaken>,
    pub hosts: Requests<HostPort>,
}

impl Waiting {
    pub fn next_request(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// Gives an answer to who waits for it, if somebody still does.
pub fn answer<T>(requests: &Requests<T>, request: u64, result: Result<T, String>) {
    let asker = requests.lock().unwrap_or_else(PoisonError::into_inner).remove(&request);
    if let Some(asker) = asker {
        let _ = asker.send(result);
    }
}
