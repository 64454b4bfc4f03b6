//! How many sandboxes may run at once, and who waits for a slot.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What the operator allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sandboxes at a time.
    pub max_sessions: usize,
    /// Sessions that may wait for a slot.
    pub max_queued: usize,
}

/// The slots that are free, and the places in the queue.
#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    slots: Arc<Semaphore>,
    sessions: Arc<Semaphore>,
}

/// A session's right to be there, until dropped.
#[derive(Debug)]
pub struct Admitted {
    slots: Arc<Semaphore>,
    _session: OwnedSemaphorePermit,
}

/// A slot that is taken, until dropped.
#[derive(Debug)]
pub struct TakenCapacity(
    #[expect(dead_code, reason = "the permit is what counts")] OwnedSemaphorePermit,
);

impl Admission {
    /// Nothing is taken yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            slots: Arc::new(Semaphore::new(limits.max_sessions)),
            sessions: Arc::new(Semaphore::new(limits.max_sessions + limits.max_queued)),
        }
    }

    /// What was allowed.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Admits a session; `None` when all slots and all places in the queue are taken.
    pub fn admit(&self) -> Option<Admitted> {
        let session = Arc::clone(&self.sessions).try_acquire_owned().ok()?;
        Some(Admitted { slots: Arc::clone(&self.slots), _session: session })
    }
}

impl Admitted {
    /// A slot, if one is free now.
    pub fn try_capacity(&self) -> Option<TakenCapacity> {
        Arc::clone(&self.slots).try_acquire_owned().ok().map(TakenCapacity)
    }

    /// A slot, once one is free; first come, first served. May be dropped and called again, at the
    /// price of the place in the queue.
    pub fn capacity(&self) -> impl Future<Output = TakenCapacity> + Send + Sync + use<> {
        let slots = Arc::clone(&self.slots);
        async move {
            match slots.acquire_owned().await {
                Ok(slot) => TakenCapacity(slot),
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
    async fn slots_are_used_again_and_the_queue_ends() {
        let admission = Admission::new(Limits { max_sessions: 1, max_queued: 1 });
        let first = admission.admit().unwrap();
        let slot = first.try_capacity().unwrap();
        let second = admission.admit().unwrap();
        assert!(second.try_capacity().is_none());
        assert!(admission.admit().is_none());
        let waiting = tokio::spawn(second.capacity());
        drop((slot, first));
        waiting.await.unwrap();
        assert!(admission.admit().is_some());
    }
}
