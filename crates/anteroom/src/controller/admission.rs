//! How many rooms there may be at a time, and who waits for one.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What the operator allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rooms at a time.
    pub max_sessions: usize,
    /// Sessions that may wait for a room.
    pub max_queued: usize,
}

/// The rooms that are free, and the places in the queue.
#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    sandboxes: Arc<Semaphore>,
    sessions: Arc<Semaphore>,
}

/// A session's right to be there, until dropped.
#[derive(Debug)]
pub struct Admitted {
    sandboxes: Arc<Semaphore>,
    _session: OwnedSemaphorePermit,
}

/// A room that is taken, until dropped.
#[derive(Debug)]
pub struct TakenCapacity(
    #[expect(dead_code, reason = "the permit is what counts")] OwnedSemaphorePermit,
);

impl Admission {
    /// Nothing is taken yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            sandboxes: Arc::new(Semaphore::new(limits.max_sessions)),
            sessions: Arc::new(Semaphore::new(limits.max_sessions + limits.max_queued)),
        }
    }

    /// What was allowed.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Admits a session; `None` when all rooms and all places in the queue are taken.
    pub fn admit(&self) -> Option<Admitted> {
        let session = Arc::clone(&self.sessions).try_acquire_owned().ok()?;
        Some(Admitted { sandboxes: Arc::clone(&self.sandboxes), _session: session })
    }
}

impl Admitted {
    /// A room, if one is free now.
    pub fn try_capacity(&self) -> Option<TakenCapacity> {
        Arc::clone(&self.sandboxes).try_acquire_owned().ok().map(TakenCapacity)
    }

    /// A room, once one is free; first come, first served. May be dropped and called again, at the
    /// price of the place in the queue.
    pub fn sandbox(&self) -> impl Future<Output = TakenCapacity> + Send + Sync + use<> {
        let sandboxes = Arc::clone(&self.sandboxes);
        async move {
            match sandboxes.acquire_owned().await {
                Ok(sandbox) => TakenCapacity(sandbox),
                // Nobody closes it.
                Err(_) => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sandboxes_go_round_and_the_queue_ends() {
        let admission = Admission::new(Limits { max_sessions: 1, max_queued: 1 });
        let first = admission.admit().unwrap();
        let sandbox = first.try_capacity().unwrap();
        let second = admission.admit().unwrap();
        assert!(second.try_capacity().is_none());
        assert!(admission.admit().is_none());
        let waiting = tokio::spawn(second.sandbox());
        drop((sandbox, first));
        waiting.await.unwrap();
        assert!(admission.admit().is_some());
    }
}
