//! The one supervisor: starts each service, waits until it is ready, and decides what follows its death.

use std::process::Command;
use std::time::Duration;

use anteroom_guest_protocol::{Evidence, ProcessExit, ServiceEvent, Then};
use anyhow::{Error, Result};
use nix::sys::signal::Signal;
use tokio::sync::{mpsc, oneshot, watch};

use super::death::{Death, describe};
use super::failure::{Failure, check};
use super::process::{Output, Process};
use super::reaper::Reaper;
use super::restart::Deaths;
use super::service::{Launch, Priority, ServiceSpec};
use super::stall;
use super::watchdog::Watchdog;
use crate::report::Reporter;

/// How long the death of a service waits for that of the one that it dies with.
const OTHER_FIRST: Duration = Duration::from_millis(500);

/// Starts and keeps services. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor {
    /// Where the ends of processes arrive.
    pub reaper: Reaper,
    /// Where services are reported.
    pub reporter: Reporter,
    /// Names of the services that have ended for good.
    gone: watch::Sender<Vec<String>>,
    failures: mpsc::Sender<Error>,
}

/// Why a service is not started again.
#[derive(Debug, thiserror::Error)]
pub enum GivenUp {
    /// It never was ready.
    #[error("{title} did not start: {cause}")]
    DidNotStart {
        /// As in [`ServiceSpec::title`].
        title: String,
        /// Why.
        cause: String,
    },
    /// It died, and no further start would help or was allowed.
    #[error("{title} {}", describe(*.exit))]
    Died {
        /// As in [`ServiceSpec::title`].
        title: String,
        /// Its wait status.
        exit: ProcessExit,
    },
    /// It died once too often.
    #[error("{title} ended too often (deaths: {times}); the last time it {}", describe(*.exit))]
    EndedTooOften {
        /// As in [`ServiceSpec::title`].
        title: String,
        /// How often.
        times: u32,
        /// How, the last time.
        exit: ProcessExit,
    },
}

impl Supervisor {
    /// A supervisor, and what fails for good that the session needs.
    pub fn new(reaper: Reaper, reporter: Reporter) -> (Self, mpsc::Receiver<Error>) {
        let (failures, receiver) = mpsc::channel(8);
        (Self { reaper, reporter, gone: watch::channel(Vec::new()).0, failures }, receiver)
    }

    /// Keeps a service in a task of its own. Resolves when it is ready for the first time; an error means
    /// that it was given up before.
    pub fn spawn(&self, spec: ServiceSpec) -> oneshot::Receiver<()> {
        let (ready, is_ready) = oneshot::channel();
        let supervisor = self.clone();
        tokio::task::spawn_local(async move {
            let given_up = supervisor.keep(&spec, ready).await;
            if spec.needed {
                supervisor.fail(given_up.into()).await;
            } else {
                supervisor.reporter.note(&format!("{} is not restarted: {given_up}", spec.name));
            }
        });
        is_ready
    }

    /// Reports what the session cannot do without and does not have.
    pub async fn fail(&self, error: Error) {
        // Whoever listens may be gone; then the session has ended.
        let _ = self.failures.send(error).await;
    }

    /// Starts a service by its command, looked at first; reports the start or its failure.
    pub async fn start(&self, spec: &ServiceSpec, command: Command) -> Result<Process, GivenUp> {
        let start = |command| {
            let output = Output { filter: spec.filter, ..Output::default() };
            let process =
                Process::start(&spec.name, command, output, &self.reaper, &self.reporter)?;
            Ok((process, ()))
        };
        Ok(self.start_by(spec, command, start).await?.0)
    }

    /// The same, of a process that is started in its own way.
    pub async fn start_by<T>(
        &self,
        spec: &ServiceSpec,
        mut command: Command,
        start: impl FnOnce(Command) -> Result<(Process, T)>,
    ) -> Result<(Process, T), GivenUp> {
        self.check(spec, &command).await?;
        // Where the kernel has no control groups for us the service runs all the same, and it is noted.
        if let Err(error) = spec.limits.apply(&spec.name, &mut command) {
            self.reporter.note(&format!("{} runs without its limits: {error:#}", spec.name));
        }
        let (process, more) = match start(command) {
            Ok(started) => started,
            Err(error) => return Err(self.give_up(spec, error.into(), Vec::new()).await),
        };
        if spec.priority == Priority::Low {
            process.lower_priority();
        }
        let pid = process.pid.as_raw().unsigned_abs();
        self.reporter.service(&spec.name, ServiceEvent::Started { pid }).await;
        Ok((process, more))
    }

    /// Looks whether a service can be started by this command; reports why not.
    pub async fn check(&self, spec: &ServiceSpec, command: &Command) -> Result<(), GivenUp> {
        match check(command) {
            Ok(()) => Ok(()),
            Err(failure) => Err(self.give_up(spec, failure, Vec::new()).await),
        }
    }

    /// Reports that a service is not available.
    pub async fn give_up(
        &self,
        spec: &ServiceSpec,
        failure: Failure,
        last_lines: Vec<String>,
    ) -> GivenUp {
        let cause = failure.to_string();
        self.reporter.service(&spec.name, failure.into_event(last_lines)).await;
        self.is_gone(spec);
        GivenUp::DidNotStart { title: spec.title.clone(), cause }
    }

    /// Start after start; why there is no further one.
    async fn keep(&self, spec: &ServiceSpec, ready: oneshot::Sender<()>) -> GivenUp {
        let mut kept = Kept { ready: Some(ready), deaths: Deaths::default() };
        loop {
            let launch = match (spec.launch)() {
                Ok(launch) => launch,
                Err(failure) => return self.give_up(spec, failure, Vec::new()).await,
            };
            match self.run_once(spec, launch, &mut kept).await {
                Ok(pause) => tokio::time::sleep(pause).await,
                Err(given_up) => return given_up,
            }
        }
    }

    /// From a start to a death, reported; how long the next start waits.
    async fn run_once(
        &self,
        spec: &ServiceSpec,
        launch: Launch,
        kept: &mut Kept,
    ) -> Result<Duration, GivenUp> {
        let Launch { command, readiness, watchdog } = launch;
        let mut process = self.start(spec, command).await?;
        let ready = match readiness {
            Some(readiness) => process.until_ready(readiness).await,
            None => Ok(()),
        };
        let death = match ready {
            Ok(()) => {
                self.reporter.service(&spec.name, ServiceEvent::Ready {}).await;
                // Whoever waited may have given up.
                kept.ready.take().map(|ready| ready.send(()));
                until_death(&mut process, watchdog.as_ref()).await
            }
            Err(Failure::DiedEarly(death)) if spec.restart.counts_early_deaths() => *death,
            Err(failure) => {
                process.signal(Signal::SIGKILL);
                self.other_first(spec).await;
                return Err(self.give_up(spec, failure, process.last_lines()).await);
            }
        };
        self.other_first(spec).await;
        let (exit, last_lines) = (death.exit, process.last_lines());
        let then = kept.deaths.count(spec.restart, &spec.name, &death, &last_lines);
        let event = death.into_event(last_lines, kept.deaths.all, then);
        self.reporter.service(&spec.name, event).await;
        let title = spec.title.clone();
        let given_up = match then {
            Then::Restart { after_ms } => return Ok(Duration::from_millis(after_ms)),
            Then::TooOften {} => GivenUp::EndedTooOften { title, times: kept.deaths.all, exit },
            Then::Useless {} | Then::Nothing {} => GivenUp::Died { title, exit },
        };
        self.is_gone(spec);
        Err(given_up)
    }

    /// All clients of an X server fall with it, and it is the one to report: waits a moment for that.
    async fn other_first(&self, spec: &ServiceSpec) {
        let Some(other) = spec.client_of else { return };
        let mut gone = self.gone.subscribe();
        let is_gone = gone.wait_for(|gone| gone.iter().any(|name| name == other));
        let _ = tokio::time::timeout(OTHER_FIRST, is_gone).await;
    }

    fn is_gone(&self, spec: &ServiceSpec) {
        self.gone.send_modify(|gone| gone.push(spec.name.clone()));
    }
}

/// What is known of a service from one start to the next.
struct Kept {
    /// Who waits until it is ready.
    ready: Option<oneshot::Sender<()>>,
    deaths: Deaths,
}

/// To its death, by itself or by the watchdog.
async fn until_death(process: &mut Process, watchdog: Option<&Watchdog>) -> Death {
    let Some(watchdog) = watchdog else { return process.died().await };
    let silent = tokio::select! {
        death = process.died() => return death,
        silent = watchdog.silence() => silent,
    };
    let stall = stall::look(process.pid, watchdog.asked.clone(), silent, true);
    process.signal(Signal::SIGKILL);
    let death = process.died().await;
    Death { evidence: Evidence { stall: Some(stall), ..death.evidence }, ..death }
}
