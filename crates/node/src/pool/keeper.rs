//! Keeps so many clones waiting as may: adds, replaces and ends them, behind the scenes.

use std::sync::Arc;
use std::time::Instant;

use anteroom_node_protocol::{Node, SandboxRecord};
use anteroom_runner_protocol::sandbox_name;
use anteroom_session::counted::counted;
use anteroom_session::{EndReason, SessionId};
use tokio::time::sleep_until;

use super::Waiting;
use super::load::NotAdded;
use crate::LocalNode;
use crate::template_growth;
use crate::templates::Template;

impl LocalNode {
    /// Keeps clones waiting until [`Self::end_waiting`]. What an earlier controller left is removed first.
    pub(crate) async fn keep_waiting(self) {
        for record in self.pool.records.all() {
            self.remove_waiting(record).await;
        }
        loop {
            self.images.close_others();
            let templates = self.templates.loaded();
            if self.shrink_grown(&templates).await {
                continue;
            }
            for other in self.pool.take_others(&templates) {
                self.discard(other).await;
            }
            match self.pool.lacking(templates, Instant::now()) {
                Some(template) if self.holds_another(&template) => self.add_one(template).await,
                // Looked at again with the next change.
                _ => match self.pool.not_before().filter(|at| *at > Instant::now()) {
                    Some(at) => tokio::select! {
                        () = self.pool.wakes.changed() => {}
                        () = sleep_until(at.into()) => {}
                    },
                    None => self.pool.wakes.changed().await,
                },
            }
        }
    }

    /// Frees what clones that have ended left of a template's memory, where the machine has memory for the copy. The
    /// clones that wait are replaced, as with each other template. Whether it was done for one of these.
    async fn shrink_grown(&self, loaded: &[Arc<Template>]) -> bool {
        let grown = template_growth::grown(loaded, |one| self.pool.waiting_of(one)).cloned();
        let Some(grown) = grown else { return false };
        let free = crate::free::look(&self.settings.state_dir).memory_bytes;
        if free.is_some_and(|free| free < grown.loaded_bytes) {
            return false;
        }
        let templates = self.templates.clone();
        let replaced =
            tokio::task::spawn_blocking(move || template_growth::replace(&templates, &grown)).await;
        if let Ok(Err(error)) = &replaced {
            tracing::warn!("freeing what clones left of a template's memory failed: {error}");
        }
        matches!(replaced, Ok(Ok(())))
    }

    /// Whether what sessions leave of the budget has a sign-in's memory for another clone of this template, and the
    /// machine's free memory what it takes once it wakes, and another sign-in beside it.
    fn holds_another(&self, template: &Template) -> bool {
        let takes = |of: &Template| self.measuring.demand(Some(&of.id)).memory_bytes;
        self.pool.has_use_of(template, takes)
            && holds_two(crate::free::look(&self.settings.state_dir).memory_bytes, takes(template))
    }

    /// Has those that wait take no more than this of the machine's memory. The keeper looks whether another may
    /// wait.
    pub(crate) fn give_up_over(&self, allowed_bytes: u64) {
        let over = self.pool.allow(allowed_bytes);
        if !over.is_empty() {
            let clones = counted(over.len() as u64, "clone that waits is", "clones that wait are");
            tracing::info!("{clones} ended: sign-ins are to have the memory");
        }
        for clone in over {
            self.give_up(clone);
        }
        self.pool.change();
    }

    /// Ends all that wait; none is added any more.
    pub(crate) async fn end_waiting(&self) {
        for waiting in self.pool.take_all() {
            self.discard(waiting).await;
        }
    }

    async fn add_one(&self, template: Arc<Template>) {
        match self.load(&template).await {
            Ok(waiting) => {
                if let Some(late) = self.pool.add(waiting) {
                    // Not again at once: a session has its memory, or it takes more than clones were seen to take.
                    self.pool.failed();
                    self.discard(late).await;
                }
            }
            Err(NotAdded::Refused(cause)) => {
                self.pool.failed();
                tracing::warn!("no clone of template {} waits: {cause}", template.id);
            }
            Err(NotAdded::NotLoaded(reason)) => {
                self.pool.failed();
                let sentence = reason.sentence(self.description().driver);
                tracing::warn!("a clone of template {} did not load: {sentence}", template.id);
                self.templates.failed(&template, &reason);
            }
        }
    }

    /// A clone has ended; whether it had no session.
    pub(super) fn ended_waiting(&self, session: SessionId, reason: &EndReason) -> bool {
        let Some(dead) = self.pool.take_dead(session) else { return false };
        let sentence = reason.sentence(self.description().driver);
        tracing::warn!(
            "a clone of template {} ended while it waited for a sign-in, and is replaced: {sentence} (its logs are in {})",
            dead.template.id,
            self.logs.of(session).display()
        );
        let node = self.clone();
        tokio::spawn(async move {
            // Its logs say why.
            node.end_one(dead).await;
            node.pool.change();
        });
        true
    }

    /// Ends one that would not go on, behind the scenes.
    pub(crate) fn end_stopped(&self, stopped: Waiting, process: &str) {
        tracing::warn!(
            "a clone of template {} that waited for a sign-in is replaced: a signal stopped its {process}",
            stopped.template.id,
        );
        self.give_up(stopped);
    }

    /// Ends one that is to have no session, behind the scenes.
    pub(crate) fn give_up(&self, waiting: Waiting) {
        let node = self.clone();
        // From now on, not from when that is begun.
        self.pool.ends(&waiting);
        tokio::spawn(async move { node.discard(waiting).await });
    }

    /// Ends one that has no session, and removes what there is of it.
    async fn discard(&self, waiting: Waiting) {
        let session = waiting.record.session;
        self.pool.ends(&waiting);
        self.end_one(waiting).await;
        self.logs.remove(session);
        self.pool.ended(session);
    }

    async fn end_one(&self, waiting: Waiting) {
        waiting.runner.end().await;
        self.remove_waiting(waiting.record).await;
    }

    /// Removes what there is of a sandbox that has no session; its record stays while something is left.
    pub(super) async fn remove_waiting(&self, record: SandboxRecord) {
        let session = record.session;
        self.demux.remove_session(session);
        match self.tear_down(record).await {
            Ok(leftovers) if leftovers.is_empty() => {
                self.users.free(&sandbox_name(session));
                self.pool.records.remove(session);
            }
            Ok(leftovers) => {
                let what: Vec<_> = leftovers.iter().map(|one| one.what.as_str()).collect();
                tracing::error!("of a clone that waited is left: {}", what.join("; "));
            }
            Err(error) => tracing::error!("a clone that waited was not removed: {error}"),
        }
    }
}

/// Whether so much free memory holds two that take so much; what is not known is not held against it.
fn holds_two(free_bytes: Option<u64>, takes_bytes: u64) -> bool {
    free_bytes.is_none_or(|free| free / 2 >= takes_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_is_added_to_a_pool_that_the_memory_does_not_hold() {
        assert!(holds_two(Some(200), 100) && holds_two(None, u64::MAX));
        assert!(!holds_two(Some(199), 100) && !holds_two(Some(0), 1));
    }
}
