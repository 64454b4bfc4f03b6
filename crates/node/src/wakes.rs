//! Clones that wake for their sessions, and what the keeper of those that wait is called by.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// How many wake, and whether something changed. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Wakes {
    waking: Arc<AtomicUsize>,
    changed: Arc<Notify>,
}

/// A clone that wakes for its session, until this is dropped.
#[derive(Debug)]
pub struct Waking(Wakes);

impl Wakes {
    /// A clone wakes.
    pub fn begin(&self) -> Waking {
        self.waking.fetch_add(1, Ordering::SeqCst);
        Waking(self.clone())
    }

    /// Whether any wakes: the processor is its.
    pub fn any(&self) -> bool {
        self.waking.load(Ordering::SeqCst) > 0
    }

    /// Something changed that the keeper looks at.
    pub fn change(&self) {
        self.changed.notify_one();
    }

    /// Comes with the next change, or at once where there was one since.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for Waking {
    fn drop(&mut self) {
        self.0.waking.fetch_sub(1, Ordering::SeqCst);
        self.0.change();
    }
}
