//! A session's runner process, from the controller's side.

mod channels;

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anteroom_api::{CodeTaken, Problem, ProblemCode};
use anteroom_fail_point::fail_point;
use anteroom_guest_link::{Opener, Side, connect};
use anteroom_guest_protocol::StreamKind;
use anteroom_session::{
    EndReason, Event, HolderGeneration, Observation, ProcessExit, StateName, Viewer,
};
use anyhow::{Context, Result, anyhow};
use command_fds::{CommandFdExt, FdMapping};
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::controller::metrics::Metrics;
use crate::controller::session_actor::ControllerContext;
use crate::runner_protocol::lines;
use crate::runner_protocol::{
    CHANNELS_FD_ENV, CONTROL_FD_ENV, MAX_RUNNER_LINE, MEDIA_FD_ENV, MediaTotals, OfferAnswer,
    RunnerCommand, RunnerConfig, RunnerMessage, SESSION_ENV,
};
use channels::{Channel, Places};

/// Descriptors as the runner sees them.
const CONTROL: RawFd = 10;
const MEDIA: RawFd = 11;
const CHANNELS: RawFd = 12;

/// From how many bytes on the runner's memory is mapped by itself (mallopt(3); glibc's first value).
const LARGE_BUFFER: &str = "131072";

/// How long the runner may take to answer a request, and to end once told.
const ANSWER: Duration = Duration::from_secs(20);
const END: Duration = Duration::from_secs(10);

/// How long a runner may say nothing; it says that it is alive more often ([`ALIVE_EVERY`]).
const SILENCE: Duration = Duration::from_secs(30);
const READ_AGAIN: Duration = Duration::from_secs(2);

/// A runner. Cheap to clone.
#[derive(Clone)]
pub struct Runner {
    /// Its process id.
    pub pid: u32,
    commands: mpsc::Sender<RunnerCommand>,
    waiting: Arc<Waiting>,
    exited: watch::Receiver<Option<ProcessExit>>,
    channels: Opener,
    places: Arc<Places>,
    /// One offer is answered at a time: however many one viewer makes, the next waits for one. What
    /// watches over the right of the newest viewer.
    offering: Arc<tokio::sync::Mutex<Option<AbortOnDropHandle<()>>>>,
}

#[derive(Default)]
struct Waiting {
    next: AtomicU64,
    offers: Mutex<HashMap<u64, oneshot::Sender<Result<OfferAnswer, String>>>>,
    screenshots: Mutex<HashMap<u64, oneshot::Sender<Result<String, String>>>>,
    codes: Mutex<HashMap<u64, oneshot::Sender<Result<CodeTaken, String>>>>,
    hosts: Mutex<HashMap<u64, oneshot::Sender<Result<(), String>>>>,
}

/// Starts a runner; what it reports arrives on `events`, its end last.
pub fn start(
    config: RunnerConfig,
    context: &ControllerContext,
    events: mpsc::Sender<Event>,
    oldest: watch::Receiver<HolderGeneration>,
) -> Result<Runner> {
    let ControllerContext { door, metrics, log_format, .. } = context;
    let (control, runner_control) =
        StdUnixStream::pair().context("making the control socket failed")?;
    let (channels, runner_channels) =
        StdUnixStream::pair().context("making the channels' socket failed")?;
    channels.set_nonblocking(true)?;
    control.set_nonblocking(true)?;
    let log_path = config.sandbox.log_dir.join("runner.log");
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&log_path)
        .with_context(|| format!("creating {} failed", log_path.display()))?;
    // This very program, also when its file was replaced since: both ends speak one version.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("anteroom")
        .arg("session")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env(SESSION_ENV, config.sign_in.session.to_string())
        .env(CONTROL_FD_ENV, CONTROL.to_string())
        .env(MEDIA_FD_ENV, MEDIA.to_string())
        .env(CHANNELS_FD_ENV, CHANNELS.to_string())
        // An encoder's buffers go back to the system with it: left to itself glibc raises this after
        // the first, keeps those of every later one, and a runner grows with each viewer that comes.
        .env("MALLOC_MMAP_THRESHOLD_", LARGE_BUFFER)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .envs(crate::logging::for_runner(*log_format))
        .envs(anteroom_fail_point::inherited());
    let mappings = [
        (OwnedFd::from(runner_control), CONTROL),
        (OwnedFd::from(door.add_session(config.sign_in.session)?), MEDIA),
        (OwnedFd::from(runner_channels), CHANNELS),
    ];
    command
        .fd_mappings(
            mappings
                .into_iter()
                .map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd })
                .collect(),
        )
        .map_err(|error| anyhow!("passing sockets to the runner failed: {error}"))?;
    let mut command = tokio::process::Command::from(command);
    fail_point("runner.spawn").context("starting the session's runner failed")?;
    let child = command.spawn().context("starting the session's runner failed")?;
    drop(command);
    let pid = child.id().context("the runner ended at once")?;
    fail_point("runner.spawned").context("reaching the runner failed")?;
    let (reader, writer) = UnixStream::from_std(control)?.into_split();
    let (commands, queue) = mpsc::channel(32);
    let waiting = Arc::<Waiting>::default();
    tokio::spawn(write(config, queue, oldest, writer));
    let reading = tokio::spawn(read(
        BufReader::new(reader),
        events.clone(),
        waiting.clone(),
        metrics.clone(),
    ));
    let (channels, _, drive) = connect(UnixStream::from_std(channels)?, Side::Host);
    // It ends with the runner, whose end is told elsewhere.
    tokio::spawn(drive);
    let (exited, watch_exit) = watch::channel(None);
    tokio::spawn(wait(child, reading, events, exited));
    Ok(Runner {
        pid,
        commands,
        waiting,
        exited: watch_exit,
        channels,
        places: Arc::default(),
        offering: Arc::default(),
    })
}

async fn write(
    config: RunnerConfig,
    mut commands: mpsc::Receiver<RunnerCommand>,
    mut oldest: watch::Receiver<HolderGeneration>,
    mut writer: tokio::net::unix::OwnedWriteHalf,
) {
    // A runner that is gone is noticed, with its status, by who waits for it.
    if lines::write(&mut writer, &config).await.is_err() {
        return;
    }
    // A session that waited for its room may have had other links meanwhile.
    oldest.mark_changed();
    loop {
        let command = tokio::select! {
            // A revocation waits for nothing that its viewer asked for.
            biased;
            Ok(()) = oldest.changed() => {
                Some(RunnerCommand::RevokeBefore { oldest: *oldest.borrow_and_update() })
            }
            command = commands.recv() => command,
        };
        let Some(command) = command else { return };
        if lines::write(&mut writer, &command).await.is_err() {
            return;
        }
    }
}

async fn read(
    mut reader: BufReader<OwnedReadHalf>,
    events: mpsc::Sender<Event>,
    waiting: Arc<Waiting>,
    metrics: Arc<Metrics>,
) {
    let mut counted = MediaTotals::default();
    loop {
        let mut line =
            std::pin::pin!(lines::read::<RunnerMessage, _>(&mut reader, MAX_RUNNER_LINE));
        let heard = match tokio::time::timeout(SILENCE, &mut line).await {
            // If this process was stopped meanwhile, what the runner said is there and unread.
            Err(_) => tokio::time::timeout(READ_AGAIN, &mut line).await,
            heard => heard,
        };
        let Ok(message) = heard else {
            let silent_ms = u64::try_from(SILENCE.as_millis()).unwrap_or(u64::MAX);
            let _ = events.send(Event::RunnerSilent { silent_ms }).await;
            return;
        };
        match message {
            Ok(Some(RunnerMessage::Alive { media })) => {
                metrics.media(&counted, &media);
                counted = media;
            }
            Ok(Some(RunnerMessage::Observed { at: _, observation })) => {
                if events.send(Event::Observed(observation)).await.is_err() {
                    return;
                }
            }
            Ok(Some(RunnerMessage::OfferAnswered { request, result })) => {
                answer(&waiting.offers, request, result);
            }
            Ok(Some(RunnerMessage::CodeTaken { request, result })) => {
                answer(&waiting.codes, request, result);
            }
            Ok(Some(RunnerMessage::HostAllowed { request, result })) => {
                answer(&waiting.hosts, request, result);
            }
            Ok(Some(RunnerMessage::Screenshot { request, result })) => {
                answer(&waiting.screenshots, request, result);
            }
            Ok(None) => return,
            // A runner that dies with something unread resets its socket: how it ended is told by who
            // waits for it.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => {
                let cause = format!("the runner's report cannot be read: {error}");
                let failed = Observation::Failed(EndReason::GuestLinkFailed { cause });
                let _ = events.send(Event::Observed(failed)).await;
                return;
            }
        }
    }
}

fn answer<T>(waiting: &Mutex<HashMap<u64, oneshot::Sender<T>>>, request: u64, result: T) {
    let asker = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&request);
    if let Some(asker) = asker {
        let _ = asker.send(result);
    }
}

/// Tells of the end after everything the runner said before it.
async fn wait(
    mut child: Child,
    reading: tokio::task::JoinHandle<()>,
    events: mpsc::Sender<Event>,
    exited: watch::Sender<Option<ProcessExit>>,
) {
    let exit = match child.wait().await {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => ProcessExit::Exited { code },
            (None, Some(signal)) => ProcessExit::Signalled { signal },
            (None, None) => ProcessExit::Unknown,
        },
        Err(_) => ProcessExit::Unknown,
    };
    let _ = tokio::time::timeout(Duration::from_secs(2), reading).await;
    exited.send_replace(Some(exit));
    let _ = events.send(Event::RunnerExited(exit)).await;
}

/// Why a runner gave no answer.
pub enum AskError {
    /// It said why.
    Refused(String),
    /// It ended.
    Gone,
    /// It is there.
    Silent,
}

impl AskError {
    /// As the caller is told; `refused` is the code for a runner that said no.
    pub fn problem(self, refused: ProblemCode, state: StateName) -> Problem {
        let (code, detail) = match self {
            Self::Refused(cause) => (refused, cause),
            Self::Gone => {
                (ProblemCode::WrongState, "the session is ending; its runner is gone".to_owned())
            }
            Self::Silent => (
                ProblemCode::TooSlow,
                format!("the session's runner did not answer within {} s", ANSWER.as_secs()),
            ),
        };
        Problem::new(code, format!("{detail} (the session is {state})"))
    }
}

impl Runner {
    /// Sends a command that needs no answer.
    pub async fn report(&self, command: RunnerCommand) {
        let _ = self.commands.send(command).await;
    }

    /// Sends a command that needs no answer, to a runner that takes it at once.
    pub fn report_now(&self, command: RunnerCommand) -> Result<(), AskError> {
        use tokio::sync::mpsc::error::TrySendError;
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => AskError::Silent,
            TrySendError::Closed(_) => AskError::Gone,
        })
    }

    /// Has a viewer's offer answered; they are sent away when their right ends.
    pub async fn offer(
        &self,
        sdp: String,
        viewer: Viewer,
        right_ends: impl Future<Output = ()> + Send + 'static,
    ) -> Result<OfferAnswer, AskError> {
        let mut showing = self.offering.lock().await;
        let command = |request| RunnerCommand::Offer { request, sdp, viewer };
        let answer = self.ask(&self.waiting.offers, command).await?;
        let (commands, ice_ufrag) = (self.commands.downgrade(), answer.ice_ufrag.clone());
        // The viewer before is gone, and with this goes what watched over their right.
        *showing = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            right_ends.await;
            if let Some(commands) = commands.upgrade() {
                let _ = commands.send(RunnerCommand::Dismiss { ice_ufrag }).await;
            }
        })));
        Ok(answer)
    }

    /// A picture of the desktop: PNG in base64.
    pub async fn screenshot(&self) -> Result<String, AskError> {
        self.ask(&self.waiting.screenshots, |request| RunnerCommand::Screenshot { request }).await
    }

    /// Has the person's code typed.
    pub async fn enter_code(&self, code: String) -> Result<CodeTaken, AskError> {
        self.ask(&self.waiting.codes, |request| RunnerCommand::EnterCode { request, code }).await
    }

    /// Has a refused host allowed.
    pub async fn allow_host(&self, host: String) -> Result<(), AskError> {
        self.ask(&self.waiting.hosts, |request| RunnerCommand::AllowHost { request, host }).await
    }

    /// Opens a channel for a viewer.
    pub async fn channel(&self, kind: StreamKind, viewer: Viewer) -> Result<Channel, AskError> {
        let place = self.places.take(viewer);
        let opened = tokio::time::timeout(ANSWER, self.channels.open(kind)).await;
        let stream = opened.map_err(|_| AskError::Silent)?.map_err(|_| AskError::Gone)?;
        Ok(Channel::new(stream, place))
    }

    async fn ask<T>(
        &self,
        waiting: &Mutex<HashMap<u64, oneshot::Sender<Result<T, String>>>>,
        command: impl FnOnce(u64) -> RunnerCommand,
    ) -> Result<T, AskError> {
        let request = self.waiting.next.fetch_add(1, Ordering::Relaxed);
        let (sender, result) = oneshot::channel();
        waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(request, sender);
        // One that ends answers nothing any more.
        let mut exited = self.exited.clone();
        let answer = tokio::time::timeout(ANSWER, async {
            // A queue that is full waits too.
            self.report(command(request)).await;
            tokio::select! {
                answer = result => answer.ok(),
                _ = exited.wait_for(Option::is_some) => None,
            }
        })
        .await;
        waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&request);
        match answer {
            Ok(Some(Ok(value))) => Ok(value),
            Ok(Some(Err(cause))) => Err(AskError::Refused(cause)),
            Ok(None) => Err(AskError::Gone),
            Err(_) => Err(AskError::Silent),
        }
    }

    /// Tells it to end and waits; kills it when it does not. Whatever it started is looked for later.
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
