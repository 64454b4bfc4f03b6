//! The runner's session: boot, prepare, attend, end.

mod attend;
mod carry_out;
mod early;
mod picture;
mod prepare;

use std::fmt::Display;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use anteroom_clock::now;
use anteroom_crash::Explainer;
use anteroom_fail_point::fail_point;
use anteroom_guest_link::chain;
use anteroom_guest_protocol::{GuestCpu, LogStream};
use anteroom_guest_session::{
    Conversation, DiagnosedEnd, SandboxConfig, ServiceLog, VmFiles, log_files, start_guest,
    until_end,
};
use anteroom_runner_protocol::RunnerCommand;
use anteroom_session::{Cloned, Confined, EndReason, Observation, ProcessExit, SetupStep};
use anteroom_sign_in::End;
use anteroom_vm::{CloneStart, LinkStream, RunningSandbox};
use tokio::sync::mpsc;

use super::Sockets;
use super::config::RunnerConfig;
use super::confine::confine;
use super::controller_link::{self, ControllerSender};
use super::error::RunnerError;
use super::media::{self, Unconnected};
use early::EarlyCommands;
use picture::Picture;

/// How long the guest may take to power off once it may, before it is killed.
const POWER_OFF: Duration = Duration::from_secs(5);

/// Runs the session that the controller describes; returns when nothing of it is left.
pub async fn run<E: Display>(
    sockets: Sockets,
    files: Option<VmFiles>,
    agent: fn() -> Result<&'static [u8], E>,
) -> Result<(), RunnerError> {
    let Sockets { control, media, channels } = sockets;
    let (config, mut commands, sender, writing) = controller_link::open(control).await?;
    tracing::Span::current().record("session", config.name.as_str());
    fail_point("runner.configured")
        .map_err(RunnerError::system("reading the sandbox's configuration"))?;
    match config.boot(agent, files).await {
        Ok(mut sandbox) => {
            let viewers = Viewers { media, channels };
            let ended = serve(config, &mut sandbox, viewers, &mut commands, &sender).await;
            let powered_off = match ended {
                End::Done => Some(power_off(&mut sandbox).await),
                End::Failed(_) | End::Ordered => None,
            };
            sandbox.end().await;
            if let Some(vmm) = sandbox.inspect() {
                sender.vmm_failed(vmm.failures()).await;
            }
            sender.last_figures().await;
            match (ended, powered_off) {
                (End::Failed(reason), _) => sender.failed(reason).await,
                (_, Some(observation)) => sender.observed(observation).await,
                (_, None) => {}
            }
        }
        Err(reason) => sender.failed(reason).await,
    }
    fail_point("teardown.sandbox_ended").map_err(RunnerError::system("ending the sandbox"))?;
    drop(sender);
    writing.finished().await;
    Ok(())
}

/// Sockets of the viewers' media.
struct Viewers {
    media: UnixDatagram,
    channels: UnixStream,
}

async fn serve(
    config: SandboxConfig,
    sandbox: &mut RunningSandbox,
    viewers: Viewers,
    commands: &mut mpsc::Receiver<RunnerCommand>,
    sender: &ControllerSender,
) -> End {
    // Nothing is awaited between the sandbox's start and this: nothing of it has been read.
    let (log, confined) = match hold(&config, sandbox) {
        Ok(held) => held,
        Err(reason) => return reason.into(),
    };
    let (driver, pid) = (sandbox.driver, sandbox.pid);
    let accelerator = sandbox.confirmed_accelerator().await;
    let template = config.driver.clone_of().map(|clone| clone.template.clone());
    let cloned = template.map(|template| Cloned { template, waited_ms: None });
    let started = Observation::SandboxStarted { driver, accelerator, pid, cloned };
    sender.observed(started).await;
    // A sandbox that is gone already is reported below, by what it ended.
    if let Some(confined) = confined {
        sender.observed(Observation::Confined(Box::new(confined))).await;
    }
    let mut early = EarlyCommands::default();
    let config = match until_end(sandbox, early.until_begun(commands)).await {
        Ok(Some(session)) => RunnerConfig::of(config, session),
        Ok(None) => return End::Ordered,
        Err(reason) => return reason.into(),
    };
    if let Err(reason) = start_guest(sandbox).await {
        return reason.into();
    }
    let link = sandbox.take_link();
    let explainer = Explainer::new(&config.sandbox.driver.processor_name(), &GuestCpu::default());
    let clone_start = sandbox.clone_start();
    let mut session = Session { config: &config, sender, log, explainer, clone_start };
    let end = until_end(sandbox, session.run(link, viewers, early, commands)).await;
    match end.unwrap_or_else(End::Failed) {
        End::Failed(reason) => {
            let DiagnosedEnd { reason, lines } = DiagnosedEnd::of(sandbox, reason).await;
            for line in lines {
                session.write_log(driver.into(), LogStream::Stdout, &line);
            }
            End::Failed(reason)
        }
        other => other,
    }
}

/// Waits until the guest has powered off, of which a VMM's or an agent's exit with 0 is the sign.
async fn power_off(sandbox: &mut RunningSandbox) -> Observation {
    let exit = tokio::time::timeout(POWER_OFF, sandbox.wait()).await.ok();
    match exit {
        Some(ProcessExit::Exited { code: 0 }) => Observation::GuestPoweredOff,
        exit => Observation::GuestNotPoweredOff { exit },
    }
}

/// Opens the log of the sandbox's services, then confines this process; returns what confines both.
fn hold(
    config: &SandboxConfig,
    sandbox: &RunningSandbox,
) -> Result<(ServiceLog, Option<Confined>), EndReason> {
    let failed = |step, cause| EndReason::SessionSetupFailed { step, cause };
    let log = fail_point("runner.service_log").and_then(|()| ServiceLog::create(&config.log_dir));
    let log = log.map_err(|error| {
        let path = config.log_dir.join(log_files::SERVICES);
        failed(SetupStep::CreateServiceLog, format!("{}: {error}", path.display()))
    })?;
    let confined = confine(&config.confinement, sandbox)
        .map_err(|error| failed(SetupStep::Confine, chain(&error)))?;
    Ok((log, confined))
}

/// A guest that is prepared, and the picture of it that viewers may watch already.
struct Begun {
    conversation: Conversation,
    guest: Unconnected,
    picture: Picture,
    channels: UnixStream,
}

/// What the session's steps share.
struct Session<'a> {
    config: &'a RunnerConfig,
    sender: &'a ControllerSender,
    log: ServiceLog,
    /// Of no processor until the guest has named its own.
    explainer: Explainer,
    /// How long its VMM was waited for, of a clone.
    clone_start: Option<CloneStart>,
}

impl Session<'_> {
    async fn run(
        &mut self,
        link: LinkStream,
        viewers: Viewers,
        mut early: EarlyCommands,
        commands: &mut mpsc::Receiver<RunnerCommand>,
    ) -> End {
        let (mut picture, guest) = match self.picture(viewers.media) {
            Ok(picture) => picture,
            Err(reason) => return reason.into(),
        };
        early = early.obeyed_by(&picture).await;
        let prepared = self.prepared(link, &mut picture, &mut early, commands).await;
        let conversation = match prepared {
            Ok(conversation) => conversation,
            Err(end) => return end,
        };
        let link = conversation.link.clone();
        let begun = Begun { conversation, guest, picture, channels: viewers.channels };
        match self.attend(begun, early, commands).await {
            End::Failed(reason) => End::Failed(link.cause_of(reason).await),
            other => other,
        }
    }

    /// Starts serving viewers.
    fn picture(&self, media: UnixDatagram) -> Result<(Picture, Unconnected), EndReason> {
        let RunnerConfig { sandbox, candidates, .. } = self.config;
        let shown = sandbox.driver.clone_of().map(|clone| clone.picture.as_str());
        let (media, events, guest) = media::start(candidates.clone(), shown, media, self.sender)?;
        Ok((Picture { media, events, sender: self.sender.clone() }, guest))
    }

    /// Prepares the guest. Meanwhile viewers are served, and other commands kept.
    async fn prepared(
        &mut self,
        link: LinkStream,
        picture: &mut Picture,
        early: &mut EarlyCommands,
        commands: &mut mpsc::Receiver<RunnerCommand>,
    ) -> Result<Conversation, End> {
        let mut prepare = std::pin::pin!(self.prepare(link));
        loop {
            tokio::select! {
                prepared = &mut prepare => return Ok(prepared?),
                command = commands.recv() => match command {
                    Some(RunnerCommand::Shutdown {}) | None => return Err(End::Ordered),
                    Some(command) => {
                        if let Some(command) = picture.obey(command).await {
                            early.keep(command);
                        }
                    }
                },
                Some(event) = picture.events.recv() => {
                    if let Some(failed) = picture.report(event).await {
                        tracing::warn!("{failed:?}");
                    }
                }
            }
        }
    }

    fn write_log(&mut self, service: &str, stream: LogStream, line: &str) {
        // A full disk must not end a sign-in; the log is evidence, not a part of it.
        let _ = self.log.line(now(), service, stream, line);
    }
}

/// A fail point between two steps.
fn step(name: &str) -> Result<(), EndReason> {
    fail_point(name).map_err(|error| EndReason::RunnerFailed { cause: error.to_string() })
}
