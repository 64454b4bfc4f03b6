//! The agent after the handshake.
//!
//! [`control`] carries messages from and to the host, [`streams`] the rest; [`services`] starts what the
//! sign-in needs once the host says so.

mod clock;
mod context;
mod control;
mod identity;
mod services;
mod setup;
mod streams;

use anteroom_guest_link::{LinkError, Side, answer_handshake, connect};
use anteroom_guest_protocol::{GuestMessage, HostMessage};
use anyhow::{Context as _, Error, Result, bail};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use self::context::Context;
use self::services::Services;
use crate::desktop::PendingDesktop;
use crate::guest::{Guest, GuestKind};
use crate::sign_in::HostSignals;
use crate::supervise::{Reaper, Supervisor};

/// Serves one session on `link`, then ends all processes. Returns when the host says so or the link
/// is gone.
pub async fn run<S>(mut link: S, guest: Guest) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let reaper = Reaper::start()?;
    answer_handshake(&mut link).await.context("the handshake with the host failed")?;
    let (opener, mut incoming, drive) = connect(link, Side::Guest);
    let link_ended = tokio::task::spawn_local(drive);
    let control = streams::control(&mut incoming).await?;
    let (reporter, messages) = crate::report::channel();
    let (mut control, from_host) = control::start(control, messages);
    let (supervisor, failures) = Supervisor::new(reaper.clone(), reporter.clone());
    let context = Context {
        guest: guest.clone(),
        supervisor,
        opener,
        desktop: PendingDesktop::new(),
        checker: watch::channel(None).0,
        terminal: watch::channel(None).0,
        signals: HostSignals::default(),
    };
    tokio::task::spawn_local(streams::serve(incoming, context.clone()));
    if guest.kind == GuestKind::Vm
        && let Err(error) = reaper.collector().ask_kernel(&guest.agent(), &reporter)
    {
        reporter.note(&format!("deaths will be reported without the kernel's evidence: {error:#}"));
    }

    let ended = tokio::select! {
        served = serve(&context, from_host, failures) => served,
        _ = link_ended => Ok(()),
        () = terminated(guest.kind) => Ok(()),
    };
    if let Err(error) = &ended {
        reporter.report(GuestMessage::Fatal { cause: format!("{error:#}") }).await;
    }
    // The host must read why before the sandbox is gone.
    drop(context);
    drop(reporter);
    control.flush().await;
    if guest.kind == GuestKind::Host {
        services::end_all(&reaper).await;
    }
    ended
}

/// The host driver's signal that the session ends. Nobody sends PID 1 of a guest signals.
async fn terminated(kind: GuestKind) {
    match (kind, signal(SignalKind::terminate())) {
        (GuestKind::Host, Ok(mut terminate)) => {
            terminate.recv().await;
        }
        _ => std::future::pending().await,
    }
}

/// Says hello, configures, starts the services when the host says so, and obeys until the end.
async fn serve(
    context: &Context,
    mut from_host: mpsc::Receiver<Result<HostMessage, LinkError>>,
    failures: mpsc::Receiver<Error>,
) -> Result<()> {
    let reporter = &context.supervisor.reporter;
    reporter.report(setup::hello()?).await;
    let configuration = match next(&mut from_host).await? {
        Some(HostMessage::Configure(configuration)) => *configuration,
        Some(other) => bail!("the host sent {other:?} before the configuration"),
        None => return Ok(()),
    };
    // Beside the heartbeat: on a busy machine it takes some seconds.
    let (wanted, guest) = (configuration.clone(), context.guest.clone());
    let trust = tokio::task::spawn_blocking(move || setup::apply(&wanted, &guest)).await??;
    context.guest.preferences.get_or_init(|| configuration.preferences.clone());
    reporter.report(GuestMessage::Configured {}).await;
    let (mut failures, mut services) = (Some(failures), None);
    loop {
        let message = tokio::select! {
            message = next(&mut from_host) => message?,
            failure = failure_of(&mut services) => return Err(failure),
        };
        match message {
            Some(message @ HostMessage::StartServices {}) => {
                let Some(failures) = failures.take() else {
                    bail!("the host sent {message:?} twice")
                };
                let trust = trust.clone();
                services = Some(services::start(context, &configuration, trust, failures).await?);
            }
            Some(HostMessage::OpenPage { url }) => {
                // Parsed, no line break is left in it.
                let url = url::Url::parse(&url)
                    .context("the host sent a page address that is not a valid URL")?;
                if let Some(services) = &services {
                    services.open_page(url.as_str());
                }
            }
            Some(HostMessage::Time { asked_ms, now_unix_ms }) => {
                clock::hold(&context.guest, asked_ms, now_unix_ms, reporter);
            }
            Some(HostMessage::Secret { text }) => reporter.secrets().add(&text),
            Some(HostMessage::StartTool {}) => context.signals.start_tool.give(),
            Some(HostMessage::TurnBegins {}) => context.signals.turn_begins.give(),
            Some(HostMessage::SignedIn {}) => context.signals.signed_in.give(),
            Some(HostMessage::CredentialStored {} | HostMessage::Shutdown {}) | None => {
                return Ok(());
            }
            Some(other @ HostMessage::Configure(_)) => bail!("the host sent {other:?} twice"),
        }
    }
}

/// The host's next message; `None` when the link is gone.
async fn next(
    from_host: &mut mpsc::Receiver<Result<HostMessage, LinkError>>,
) -> Result<Option<HostMessage>> {
    from_host.recv().await.transpose().context("reading from the host failed")
}

/// The first thing that went wrong for good; never returns while there are no services.
async fn failure_of(services: &mut Option<Services>) -> Error {
    match services {
        Some(services) => services.failure().await,
        None => std::future::pending().await,
    }
}
