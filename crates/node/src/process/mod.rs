//! A session's runner process, from the node's side.

mod channels;
mod control;
mod spawn;
mod waiting;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anteroom_guest_link::Opener;
use anteroom_guest_protocol::StreamKind;
use anteroom_node_protocol::{AskError, ViewerChannel};
use anteroom_runner_protocol::{OfferAnswer, RunnerCommand, SessionConfig};
use anteroom_session::{AccessGrant, CodeTaken, HolderGeneration, HostPort, ProcessExit};
use tokio::sync::{mpsc, oneshot, watch};

use channels::Places;
use waiting::{Requests, Waiting};

/// How long the runner may take to answer a request, and to end once it was asked to.
const ANSWER: Duration = Duration::from_secs(20);
const END: Duration = Duration::from_secs(10);

/// A runner. Cheap to clone; it ends when the last clone is dropped.
#[derive(Clone)]
pub struct Runner {
    pid: u32,
    commands: mpsc::Sender<RunnerCommand>,
    /// The oldest generation of links that is good.
    oldest: Arc<watch::Sender<HolderGeneration>>,
    waiting: Arc<Waiting>,
    exited: watch::Receiver<Option<ProcessExit>>,
    channels: Opener,
    places: Arc<Places>,
}

impl Runner {
    /// The session begins that its sandbox is for.
    pub fn begin(&self, session: SessionConfig) -> Result<(), AskError> {
        self.command_now(RunnerCommand::Begin(Box::new(session)))
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<i32> {
        self.exited.borrow().is_none().then(|| i32::try_from(self.pid).ok()).flatten()
    }

    /// Sends a command that needs no answer. A queue that is full waits.
    pub async fn command(&self, command: RunnerCommand) -> Result<(), AskError> {
        self.commands.send(command).await.map_err(|_| AskError::Gone {})
    }

    /// Sends a command that needs no answer, to a runner that takes it at once.
    pub fn command_now(&self, command: RunnerCommand) -> Result<(), AskError> {
        use tokio::sync::mpsc::error::TrySendError;
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => silent(),
            TrySendError::Closed(_) => AskError::Gone {},
        })
    }

    /// Has the links before this one revoked, before any other command.
    pub fn revoke_before(&self, oldest: HolderGeneration) {
        self.oldest.send_replace(oldest);
    }

    /// Has a viewer's offer answered.
    pub async fn offer(&self, sdp: String, viewer: AccessGrant) -> Result<OfferAnswer, AskError> {
        let command = |request| RunnerCommand::Offer { request, sdp, viewer };
        self.ask(&self.waiting.offers, command).await
    }

    /// A picture of the desktop: PNG in base64.
    pub async fn screenshot(&self) -> Result<String, AskError> {
        self.ask(&self.waiting.screenshots, |request| RunnerCommand::Screenshot { request }).await
    }

    /// Has the end user's code typed.
    pub async fn enter_code(&self, code: String) -> Result<CodeTaken, AskError> {
        self.ask(&self.waiting.codes, |request| RunnerCommand::EnterCode { request, code }).await
    }

    /// Has a refused host allowed; what is let out from now on.
    pub async fn allow_host(&self, host: String) -> Result<HostPort, AskError> {
        self.ask(&self.waiting.hosts, |request| RunnerCommand::AllowHost { request, host }).await
    }

    /// Opens a channel for a viewer.
    pub async fn channel(
        &self,
        kind: StreamKind,
        viewer: AccessGrant,
    ) -> Result<ViewerChannel, AskError> {
        let place = self.places.take(viewer);
        let opened = tokio::time::timeout(ANSWER, self.channels.open(kind)).await;
        let stream = opened.map_err(|_| silent())?.map_err(|_| AskError::Gone {})?;
        let (from_sandbox, to_sandbox) = tokio::io::split(stream);
        Ok(ViewerChannel {
            from_sandbox: Box::new(from_sandbox),
            to_sandbox: Box::new(to_sandbox),
            evicted: Box::pin(place.evicted()),
        })
    }

    async fn ask<T>(
        &self,
        requests: &Requests<T>,
        command: impl FnOnce(u64) -> RunnerCommand,
    ) -> Result<T, AskError> {
        let request = self.waiting.next_request();
        let (sender, result) = oneshot::channel();
        requests.lock().unwrap_or_else(PoisonError::into_inner).insert(request, sender);
        // One that ends answers nothing any more.
        let mut exited = self.exited.clone();
        let answer = tokio::time::timeout(ANSWER, async {
            // The answer, or the end, says whether it was sent.
            let _ = self.command(command(request)).await;
            tokio::select! {
                answer = result => answer.ok(),
                _ = exited.wait_for(Option::is_some) => None,
            }
        })
        .await;
        requests.lock().unwrap_or_else(PoisonError::into_inner).remove(&request);
        match answer {
            Ok(Some(Ok(value))) => Ok(value),
            Ok(Some(Err(cause))) => Err(AskError::Refused { cause }),
            Ok(None) => Err(AskError::Gone {}),
            Err(_) => Err(silent()),
        }
    }

    /// Asks it to end and waits; kills it when it does not. Whatever it started is looked for later.
    pub async fn end(&self) {
        // When the queue is full the runner is stuck, and is killed.
        let _ = self.commands.try_send(RunnerCommand::Shutdown {});
        let mut exited = self.exited.clone();
        let gone = tokio::time::timeout(END, exited.wait_for(Option::is_some)).await.is_ok();
        if !gone && let Ok(pid) = i32::try_from(self.pid) {
            let waited = END.as_secs();
            tracing::warn!(pid, "a session's runner did not end within {waited} s and is killed");
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
            let _ = tokio::time::timeout(END, exited.wait_for(Option::is_some)).await;
        }
    }
}

#[cfg(test)]
impl Runner {
    /// One without a process, and what it would be sent.
    pub fn of_test() -> (Self, mpsc::Receiver<RunnerCommand>) {
        let (commands, sent) = mpsc::channel(8);
        let (channels, _, _) =
            anteroom_guest_link::connect(tokio::io::duplex(64).0, anteroom_guest_link::Side::Host);
        let runner = Self {
            pid: 1,
            commands,
            oldest: Arc::new(watch::channel(HolderGeneration::FIRST).0),
            waiting: Arc::default(),
            exited: watch::channel(None).1,
            channels,
            places: Arc::default(),
        };
        (runner, sent)
    }
}

fn silent() -> AskError {
    AskError::Silent { waited_seconds: ANSWER.as_secs() }
}
