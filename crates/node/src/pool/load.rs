//! How a clone comes to wait: its user, its record, its runner, until it is loaded and held.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anteroom_confine::Confinement;
use anteroom_guest_link::chain;
use anteroom_node_protocol::{Node, Pages, SandboxRecord};
use anteroom_session::{EndReason, SessionId};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Waiting;
use super::watch::Watch;
use crate::LocalNode;
use crate::pages::{self, Maps};
use crate::process::Runner;
use crate::templates::Template;
use crate::users::Lease;

/// How long a clone may take to be loaded and held.
const LOADED: Duration = Duration::from_secs(60);

/// Why none was added.
pub enum NotAdded {
    /// This machine gives it no place.
    Refused(String),
    /// It did not load.
    NotLoaded(EndReason),
}

impl LocalNode {
    /// Loads one. Nothing is left of one that fails, but its logs.
    pub(super) async fn load(&self, template: &Arc<Template>) -> Result<Waiting, NotAdded> {
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
        let vmm = watch.vmm();
        let Some(pages) = pages_of(&runner, vmm).await else {
            runner.end().await;
            self.remove_waiting(record).await;
            let cause =
                "what it takes of the machine's memory cannot be read of its processes in /proc";
            return Err(NotAdded::Refused(cause.to_owned()));
        };
        let (handover, taken) = oneshot::channel();
        let node = self.clone();
        let ended = move |reason: &EndReason| node.ended_waiting(session, reason);
        tokio::spawn(watch.run(taken, ended));
        let (template, since) = (Arc::clone(template), Instant::now());
        Ok(Waiting { record, template, runner, pages, since, vmm, handover })
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
}

fn refused(error: impl std::error::Error + 'static) -> NotAdded {
    NotAdded::Refused(chain(&error))
}

/// What these processes of a clone take together.
async fn pages_of(runner: &Runner, vmm: Option<i32>) -> Option<Pages> {
    let pids: Vec<i32> = runner.pid().into_iter().chain(vmm).collect();
    let read = move || pages::of_processes(&pids, Maps::Template);
    // The kernel walks their page tables.
    tokio::task::spawn_blocking(read).await.ok().flatten()
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
}
