//! The agent's life after the handshake.
//!
//! [`control`] speaks with the host; [`services`] starts what the sign-in needs once the host says
//! so. What a service's death means is decided here: X, a browser or a CLI that cannot run end the
//! session, a window manager or browser that merely died is started again.

mod clock;
mod control;
mod declared;
mod identity;
pub mod services;
mod setup;

use std::rc::Rc;

use anteroom_guest_link::{
    Incoming, LinkError, LinkStream, Opener, Side, answer_handshake, connect, read_kind,
};
use anteroom_guest_protocol::{Configure, GuestMessage, HostMessage, StreamKind};
use anyhow::{Context, Result, bail};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::check::Checker;
use crate::desktop::display::{Pixels, serve_frames};
use crate::desktop::input::{Input, serve_input};
use crate::desktop::vnc;
use crate::files;
use crate::redact::Secrets;
use crate::report::Reporter;
use crate::sandbox::{EndUser, Sandbox, SandboxKind};
use crate::sign_in::terminal::Terminal;
use crate::supervise::Reaper;

/// The desktop's two sides, once X is up.
#[derive(Clone)]
pub struct Desktop {
    pub pixels: Pixels,
    pub input: Input,
}

/// What the tasks of a session share.
#[derive(Clone)]
pub struct Shared {
    pub sandbox: Sandbox,
    pub reporter: Reporter,
    pub reaper: Reaper,
    pub opener: Opener,
    pub desktop: watch::Sender<Option<Desktop>>,
    /// X is gone and was told of.
    pub x_died: watch::Sender<bool>,
    /// In a room that proves its image: who answers the host's questions.
    pub checker: watch::Sender<Option<Rc<Checker>>>,
    /// The CLI's terminal, once it has one.
    pub terminal: watch::Sender<Option<Terminal>>,
    /// What is kept out of logs.
    pub secrets: Secrets,
    /// The host has said that the CLI may be started.
    pub tool_wanted: watch::Sender<bool>,
    /// The host has seen on the CLI's screen that it is signed in.
    pub signed_in: watch::Sender<bool>,
    /// It is the person's turn.
    pub turn: watch::Sender<bool>,
}

/// Serves one session on `link`, then ends all processes. Returns when the host says so or the link
/// is gone.
pub async fn run<S>(mut link: S, sandbox: Sandbox) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let reaper = Reaper::start()?;
    answer_handshake(&mut link).await.context("the handshake with the host failed")?;
    let (opener, mut incoming, drive) = connect(link, Side::Guest);
    let link_ended = tokio::task::spawn_local(drive);
    let control = control_stream(&mut incoming).await?;
    let (reporter, messages) = crate::report::channel();
    let (mut control, from_host) = control::start(control, messages);
    let shared = Shared {
        sandbox: sandbox.clone(),
        reporter: reporter.clone(),
        reaper: reaper.clone(),
        opener,
        desktop: watch::channel(None).0,
        x_died: watch::channel(false).0,
        checker: watch::channel(None).0,
        terminal: watch::channel(None).0,
        secrets: reporter.secrets().clone(),
        tool_wanted: watch::channel(false).0,
        signed_in: watch::channel(false).0,
        turn: watch::channel(false).0,
    };
    tokio::task::spawn_local(take_streams(incoming, shared.clone()));
    if sandbox.kind == SandboxKind::Guest
        && let Err(error) = reaper.collector().ask_kernel(&sandbox.agent(), &reporter)
    {
        reporter.note(&format!("deaths will be told without the kernel's evidence: {error:#}"));
    }

    let ended = tokio::select! {
        served = serve(&shared, from_host) => served,
        _ = link_ended => Ok(()),
        () = terminated(sandbox.kind) => Ok(()),
    };
    if let Err(error) = &ended {
        reporter.report(GuestMessage::Fatal { cause: format!("{error:#}") }).await;
    }
    // The host must read why before the room is gone.
    drop(shared);
    drop(reporter);
    control.flush().await;
    if sandbox.kind == SandboxKind::Host {
        services::end_all(&reaper).await;
    }
    ended
}

/// The host driver's word that the room ends. Nobody sends PID 1 of a guest signals.
async fn terminated(kind: SandboxKind) {
    match (kind, signal(SignalKind::terminate())) {
        (SandboxKind::Host, Ok(mut terminate)) => {
            terminate.recv().await;
        }
        _ => std::future::pending().await,
    }
}

/// The first stream the host opens.
async fn control_stream(incoming: &mut Incoming) -> Result<LinkStream> {
    let mut stream = incoming.next().await.context("the host closed the link")?;
    match read_kind(&mut stream).await? {
        StreamKind::Control => Ok(stream),
        other => bail!("the host opened a {other:?} stream before the control stream"),
    }
}

/// Says hello, configures, starts the services on the host's word, and obeys until the end.
async fn serve(
    shared: &Shared,
    mut from_host: mpsc::Receiver<Result<HostMessage, LinkError>>,
) -> Result<()> {
    shared.reporter.report(setup::hello()?).await;
    const READING: &str = "reading what the host says failed";
    let configuration = match from_host.recv().await.transpose().context(READING)? {
        Some(HostMessage::Configure(configuration)) => Rc::new(*configuration),
        Some(other) => bail!("the host sent {other:?} before the configuration"),
        None => return Ok(()),
    };
    // Beside the signs of life: on a busy machine it takes some seconds.
    let (wanted, sandbox) = ((*configuration).clone(), shared.sandbox.clone());
    let trust = tokio::task::spawn_blocking(move || setup::apply(&wanted, &sandbox)).await??;
    let end_user = EndUser {
        locale: configuration.locale.clone(),
        time_zone: configuration.time_zone.clone(),
    };
    let shared =
        &Shared { sandbox: Sandbox { end_user, ..shared.sandbox.clone() }, ..shared.clone() };
    shared.reporter.report(GuestMessage::Configured {}).await;
    let mut services: Option<services::Services> = None;
    loop {
        let message = tokio::select! {
            message = from_host.recv() => message.transpose().context(READING)?,
            failure = services::failure(&mut services) => return Err(failure),
        };
        match message {
            Some(HostMessage::StartServices {}) if services.is_none() => {
                services = Some(services::start(shared, &configuration, trust.clone()).await?);
            }
            Some(HostMessage::StartTool {}) => {
                shared.tool_wanted.send_replace(true);
            }
            Some(HostMessage::OpenPage { url }) => {
                // Parsed, no line break is left in it.
                let url = url::Url::parse(&url).context("the host named a page by no URL")?;
                if let Some(services) = &services {
                    services.open_page(url.as_str());
                }
            }
            Some(HostMessage::Time { asked_ms, now_unix_ms }) => {
                clock::hold(&shared.sandbox, asked_ms, now_unix_ms, &shared.reporter);
            }
            Some(HostMessage::Secret { text }) => shared.secrets.add(&text),
            Some(HostMessage::TurnBegins {}) => {
                shared.turn.send_replace(true);
            }
            Some(HostMessage::SignedIn {}) => {
                shared.signed_in.send_replace(true);
            }
            Some(HostMessage::CredentialStored {} | HostMessage::Shutdown {}) | None => {
                return Ok(());
            }
            Some(other @ (HostMessage::Configure(_) | HostMessage::StartServices {})) => {
                bail!("the host sent {other:?} twice")
            }
        }
    }
}

async fn take_streams(mut incoming: Incoming, shared: Shared) {
    while let Some(stream) = incoming.next().await {
        let shared = shared.clone();
        tokio::task::spawn_local(async move {
            let reporter = shared.reporter.clone();
            if let Err(error) = take_stream(stream, shared).await {
                reporter.note(&format!("a stream of the host failed: {error:#}"));
            }
        });
    }
}

async fn take_stream(mut stream: LinkStream, shared: Shared) -> Result<()> {
    match read_kind(&mut stream).await? {
        StreamKind::File => files::receive(&mut stream, &shared.sandbox).await?,
        StreamKind::Frames => {
            let desktop = desktop(&shared).await?;
            serve_frames(stream, desktop.pixels).await?;
        }
        StreamKind::Input => {
            let desktop = desktop(&shared).await?;
            serve_input(stream, desktop.input).await?;
        }
        StreamKind::Check => {
            let checker = shared.checker.borrow().clone();
            checker.context("this room proves no image")?.serve(&mut stream).await?;
        }
        StreamKind::Terminal => {
            let mut watched = shared.terminal.subscribe();
            let terminal = watched.wait_for(Option::is_some).await?.clone();
            terminal.context("there is no terminal")?.serve(stream).await?;
        }
        StreamKind::Vnc => {
            desktop(&shared).await?;
            vnc::serve(stream, &shared.sandbox).await?;
        }
        other @ (StreamKind::Control | StreamKind::Egress) => {
            bail!("a second {other:?} stream was opened")
        }
    }
    Ok(())
}

/// The desktop, as soon as X is up.
async fn desktop(shared: &Shared) -> Result<Desktop> {
    let mut watched = shared.desktop.subscribe();
    let desktop = watched.wait_for(Option::is_some).await?.clone();
    desktop.context("the desktop is gone")
}

/// The configuration as the services see it.
type Configuration = Rc<Configure>;
