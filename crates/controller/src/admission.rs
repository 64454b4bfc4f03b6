//! Who is admitted, what is reserved for them, and who waits until there is capacity.

use std::sync::{Arc, Mutex, PoisonError};

use anteroom_node_protocol::{Capacity, NodeMemory};
use anteroom_session::SessionId;
use tokio::sync::watch;

pub use super::ledger::Limits;
use super::ledger::{Ledger, Standing, Ticket};
use super::shortage::{Reserved, Shortage};

/// What sessions have reserved, and the queue. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ledger: Mutex<Ledger>,
    /// Whoever waits may have got it, and clones that wait may have lost it.
    changed: watch::Sender<()>,
}

/// A session's right to be there, and what is reserved for it; both are given back when this is dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: Admission,
    ticket: Ticket,
}

/// A session is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub shortage: Shortage,
    /// How many wait already.
    pub queued: usize,
}

impl Admission {
    /// Nothing is reserved yet.
    pub fn new(limits: Limits, budget_bytes: u64) -> Self {
        let ledger = Mutex::new(Ledger::new(limits, budget_bytes));
        Self(Arc::new(Inner { ledger, changed: watch::Sender::new(()) }))
    }

    /// Reserves what a session takes, or gives it a place in the queue.
    pub fn admit(&self, Capacity { demand, free }: Capacity) -> Result<Admitted, Refused> {
        let admitted = self.with(|ledger| {
            let admitted = ledger.admit(demand, free);
            admitted.map_err(|shortage| Refused { shortage, queued: ledger.queued() })
        });
        // What is free now is news for whoever waits.
        self.0.changed.send_replace(());
        Ok(Admitted { admission: self.clone(), ticket: admitted? })
    }

    /// Has what was measured reserved.
    pub fn measured(&self, memory: &NodeMemory) {
        self.with(|ledger| ledger.measured(memory));
        self.0.changed.send_replace(());
    }

    /// What is reserved together.
    pub fn reserved(&self) -> Reserved {
        self.with(|ledger| ledger.reserved())
    }

    /// How many bytes of memory clones that wait may take now.
    pub fn left_to_waiting(&self) -> u64 {
        self.with(|ledger| ledger.left_to_waiting())
    }

    /// Changes with all that is reserved, given back or measured.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    /// The sessions that have capacity, and the memory that is reserved for each.
    pub fn sessions(&self) -> Vec<(SessionId, u64)> {
        self.with(|ledger| ledger.sessions())
    }

    fn with<T>(&self, with: impl FnOnce(&mut Ledger) -> T) -> T {
        with(&mut self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Admitted {
    /// Which session it is for.
    pub fn serves(&self, session: SessionId) {
        self.admission.with(|ledger| ledger.serves(self.ticket, session));
        self.admission.0.changed.send_replace(());
    }

    /// Whether it has its capacity.
    pub fn has_capacity(&self) -> bool {
        self.admission.with(|ledger| ledger.holds(self.ticket))
    }

    /// Admits the session anew, by what it would take now; its place in the queue is at the end.
    pub fn again(&self, capacity: Capacity) -> Result<Self, Shortage> {
        self.admission.admit(capacity).map_err(|refused| refused.shortage)
    }

    /// Why it has no capacity, while it has none.
    pub fn lacks(&self) -> Option<Shortage> {
        match self.admission.with(|ledger| ledger.standing(self.ticket)) {
            Standing::Waits(shortage) | Standing::TurnedAway(shortage) => Some(shortage),
            Standing::Holds {} | Standing::Gone {} => None,
        }
    }

    /// Comes when it has its capacity, first come, first served, or when it can never have it.
    pub fn capacity(&self) -> impl Future<Output = Result<(), Shortage>> + Send + Sync + use<> {
        let (admission, ticket) = (self.admission.clone(), self.ticket);
        async move {
            let mut changed = admission.0.changed.subscribe();
            loop {
                match admission.with(|ledger| ledger.standing(ticket)) {
                    Standing::Holds {} => return Ok(()),
                    Standing::TurnedAway(shortage) => return Err(shortage),
                    Standing::Waits(_) => {}
                    // Nobody serves one that has left.
                    Standing::Gone {} => return std::future::pending().await,
                }
                // It is there for as long as somebody can wait.
                let _ = changed.changed().await;
            }
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.with(|ledger| ledger.leave(self.ticket));
        self.admission.0.changed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use anteroom_node_protocol::{Demand, Free};

    use super::*;

    #[tokio::test]
    async fn capacity_is_used_again_and_the_queue_ends() {
        let admission = Admission::new(Limits { max_sessions: 1, max_queued: 1 }, 1);
        let demand = Demand { memory_bytes: 1, disk_bytes: 0, pids: 0 };
        let admit = || admission.admit(Capacity { demand, free: Free::default() });
        let first = admit().unwrap();
        assert!(first.has_capacity());
        let second = admit().unwrap();
        assert!(!second.has_capacity());
        let refused = admit().unwrap_err();
        assert_eq!(refused, Refused { shortage: Shortage::Sessions { most: 1 }, queued: 1 });
        let waiting = tokio::spawn(second.capacity());
        drop(first);
        waiting.await.unwrap().unwrap();
        assert!(second.has_capacity() && admit().is_ok());
        drop(second);
        assert_eq!(admission.reserved().sessions, 0);
    }
}
