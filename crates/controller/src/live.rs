//! The sessions that have a task, and how the rest of the controller reaches them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use anteroom_api::{SessionView, TeardownState};
use anteroom_session::{AccessGrant, Event, HolderGeneration, SessionId};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

/// The sessions that have a task.
#[derive(Default)]
pub struct Live(Mutex<HashMap<SessionId, SessionHandle>>);

impl Live {
    /// The session, while it has a task.
    pub fn get(&self, id: SessionId) -> Option<SessionHandle> {
        self.with(|sessions| sessions.get(&id).cloned())
    }

    /// Each of them.
    pub fn all(&self) -> Vec<SessionHandle> {
        self.with(|sessions| sessions.values().cloned().collect())
    }

    pub fn ids(&self) -> Vec<SessionId> {
        self.with(|sessions| sessions.keys().copied().collect())
    }

    /// Adds a session; the one that is there already stays, and is given back.
    pub fn insert(&self, id: SessionId, handle: SessionHandle) -> Option<SessionHandle> {
        self.with(|sessions| match sessions.entry(id) {
            Entry::Occupied(other) => Some(other.get().clone()),
            Entry::Vacant(place) => {
                place.insert(handle);
                None
            }
        })
    }

    pub fn remove(&self, id: SessionId) {
        self.with(|sessions| sessions.remove(&id));
    }

    fn with<T>(&self, with: impl FnOnce(&mut HashMap<SessionId, SessionHandle>) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How the rest of the controller reaches a session. Cheap to clone.
#[derive(Clone)]
pub struct SessionHandle {
    pub events: mpsc::Sender<Event>,
    /// The session as callers see it.
    pub view: watch::Receiver<SessionView>,
    /// Whether its node runs it.
    pub runs: watch::Receiver<bool>,
    /// The oldest generation of links that is good.
    pub oldest: Arc<watch::Sender<HolderGeneration>>,
    /// One offer is answered at a time: however many one viewer makes, the next waits for one. What
    /// watches over the right of the newest viewer.
    pub showing: Arc<tokio::sync::Mutex<Option<AbortOnDropHandle<()>>>>,
}

impl SessionHandle {
    /// Has an event handled; `false` when its task is gone.
    pub async fn report(&self, event: Event) -> bool {
        self.events.send(event).await.is_ok()
    }

    /// Closes what the links before this one opened.
    pub fn revoke_before(&self, oldest: HolderGeneration) {
        self.oldest.send_if_modified(|now| {
            let later = oldest > *now;
            *now = oldest.max(*now);
            later
        });
    }

    /// Comes when this viewer's link is revoked, or was.
    pub fn revoked(&self, viewer: &AccessGrant) -> impl Future<Output = ()> + Send + use<> {
        let (mut oldest, viewer) = (self.oldest.subscribe(), viewer.clone());
        async move {
            let is_revoked = oldest.wait_for(|oldest| viewer.is_before(*oldest)).await.is_ok();
            if !is_revoked {
                // The session has ended and its links with it, but its end is still to be shown.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether this viewer's link was revoked.
    pub fn is_revoked(&self, viewer: &AccessGrant) -> bool {
        viewer.is_before(*self.oldest.borrow())
    }

    /// Whether its node runs it, as far as is known.
    pub fn runs(&self) -> bool {
        *self.runs.borrow()
    }

    /// Waits until its task is over.
    #[cfg(test)]
    pub async fn over(&self) {
        self.events.closed().await;
    }

    /// Waits until its sandbox was torn down.
    pub async fn torn_down(&self) {
        let mut view = self.view.clone();
        let _ = view.wait_for(|view| view.teardown == Some(TeardownState::TornDown)).await;
    }
}
