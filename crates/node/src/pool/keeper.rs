//! Keeps so many clones waiting as may: adds, replaces and ends them, behind the scenes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anteroom_confine::Confinement;
use anteroom_guest_link::chain;
use anteroom_node_protocol::{Node, SandboxRecord};
use anteroom_runner_protocol::sandbox_name;
use anteroom_session::{EndReason, SessionId};
use tokio::sync::oneshot;
use tokio::time::{sleep_until, timeout};

use super::Waiting;
use super::watch::Watch;
use crate::LocalNode;
use crate::process::Runner;
use crate::templates::Template;
use crate::users::Lease;

/// How long a clone may take to be loaded and held.
const LOADED: Duration = Duration::from_secs(60);

/// Why none was added.
enum NotAdded {
    /// This machine gives it no place.
    Refused(String),
    /// It did not load.
    NotLoaded(EndReason),
}

impl LocalNode {
    /// Keeps clones waiting until [`Self::end_waiting`]. What an earlier controller left is removed first.
    pub(crate) async fn keep_waiting(self) {
        for record in self.pool.records.all() {
            self.remove_waiting(record).await;
        }
        loop {
            self.images.close_others();
            let templates = self.templates.loaded();
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

    /// Whether the machine's free memory holds what a clone of this template takes once it wakes, and another
    /// sign-in beside it.
    fn holds_another(&self, template: &Template) -> bool {
        let takes = self.measuring.demand(Some(&template.id)).memory_bytes;
        holds_two(crate::free::look(&self.settings.state_dir).memory_bytes, takes)
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

    /// Loads one. Nothing is left of one that fails, but its logs.
    async fn load(&self, template: &Arc<Template>) -> Result<Waiting, NotAdded> {
        let session = SessionId::generate();
        let lease = self.lease_user(session).await.map_err(refused)?;
        let user = lease.as_ref().map(Lease::user);
        let record = SandboxRecord { session, user, driver: Some(self.description().driver) };
        self.pool.records.write(&record).map_err(refused)?;
        // From here on the record has the user, and what removes the one removes the other.
        if let Some(lease) = lease {
            lease.keep();
        }
        let loaded = match self.begin_clone(&record, template) {
            Ok((runner, watch)) => until_held(runner, watch, LOADED).await,
            Err(error) => Err(error),
        };
        let (runner, watch) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                self.remove_waiting(record).await;
                return Err(error);
            }
        };
        let ((handover, taken), vmm) = (oneshot::channel(), watch.vmm());
        let node = self.clone();
        let ended = move |reason: &EndReason| node.ended_waiting(session, reason);
        tokio::spawn(watch.run(taken, ended));
        let (template, since) = (Arc::clone(template), Instant::now());
        Ok(Waiting { record, template, runner, since, vmm, handover })
    }

    fn begin_clone(
        &self,
        &SandboxRecord { session, user, .. }: &SandboxRecord,
        template: &Arc<Template>,
    ) -> Result<(Runner, Watch), NotAdded> {
        let log_dir = self.logs.create(session).map_err(refused)?;
        let confinement = Confinement { user, host: self.settings.host.clone() };
        let sandbox = self.sandbox_of(template, session, confinement, log_dir);
        let sandbox = sandbox.ok_or_else(|| NotAdded::Refused("no VM is booted".to_owned()))?;
        let media = self.demux.add_session(session).map_err(refused)?;
        let files = Some(template.vm_files());
        let (runner, reports) =
            Runner::start(sandbox, files, media, &self.settings.runner_environment)
                .map_err(refused)?;
        Ok((runner, Watch { reports, heard: Vec::new() }))
    }

    /// A clone has ended; whether it had no session.
    fn ended_waiting(&self, session: SessionId, reason: &EndReason) -> bool {
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

    /// Ends one whose session was not recorded, behind the scenes.
    pub(crate) fn give_up(&self, waiting: Waiting) {
        let (session, node) = (waiting.record.session, self.clone());
        self.pool.ends(session);
        tokio::spawn(async move {
            node.discard(waiting).await;
            node.pool.ended(session);
        });
    }

    /// Ends one that has no session, and removes what there is of it.
    async fn discard(&self, waiting: Waiting) {
        let session = waiting.record.session;
        self.end_one(waiting).await;
        self.logs.remove(session);
    }

    async fn end_one(&self, waiting: Waiting) {
        waiting.runner.end().await;
        self.remove_waiting(waiting.record).await;
    }

    /// Removes what there is of a sandbox that has no session; its record stays while something is left.
    async fn remove_waiting(&self, record: SandboxRecord) {
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

fn refused(error: impl std::error::Error + 'static) -> NotAdded {
    NotAdded::Refused(chain(&error))
}

/// Whether so much free memory holds two that take so much; what is not known is not held against it.
fn holds_two(free_bytes: Option<u64>, takes_bytes: u64) -> bool {
    free_bytes.is_none_or(|free| free / 2 >= takes_bytes)
}

/// Waits until it has loaded; one that does not is ended.
async fn until_held(
    runner: Runner,
    mut watch: Watch,
    limit: Duration,
) -> Result<(Runner, Watch), NotAdded> {
    let error = match timeout(limit, watch.until_held()).await {
        Ok(Ok(())) => return Ok((runner, watch)),
        Ok(Err(reason)) => NotAdded::NotLoaded(reason),
        Err(_) => {
            let waited = limit.as_secs();
            NotAdded::Refused(format!("it did not load within {waited} s, and was ended"))
        }
    };
    runner.end().await;
    Err(error)
}

#[cfg(test)]
mod tests {
    use anteroom_node_protocol::Report;
    use anteroom_runner_protocol::RunnerCommand;
    use anteroom_session::ProcessExit;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_clone_whose_load_stalls_or_whose_runner_ends_is_ended_and_it_is_said_why() {
        for (report, said) in [
            (None, "it did not load within 0 s, and was ended"),
            (Some(Report::RunnerExited { exit: ProcessExit::Exited { code: 7 } }), "runner_died"),
        ] {
            let (sender, reports) = mpsc::channel(1);
            if let Some(report) = report {
                sender.send(report).await.unwrap();
            }
            let (runner, mut sent) = Runner::of_test();
            let watch = Watch { reports, heard: Vec::new() };
            let not_held = until_held(runner, watch, Duration::ZERO).await.err().unwrap();
            let why = match not_held {
                NotAdded::Refused(cause) => cause,
                NotAdded::NotLoaded(reason) => reason.code().to_owned(),
            };
            assert_eq!(why, said);
            assert!(matches!(sent.recv().await, Some(RunnerCommand::Shutdown {})));
        }
    }

    #[test]
    fn none_is_added_to_a_pool_that_the_memory_does_not_hold() {
        assert!(holds_two(Some(200), 100) && holds_two(None, u64::MAX));
        assert!(!holds_two(Some(199), 100) && !holds_two(Some(0), 1));
    }
}
