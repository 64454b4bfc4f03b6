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
use anteroom_guest_protocol::{BeginSignIn, ConfigureSandbox, GuestMessage, HostMessage};
use anyhow::{Context as _, Error, Result, bail};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use self::context::Context;
use self::services::Services;
use crate::desktop::PendingDesktop;
use crate::desktop::browser::Trust;
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

/// Says hello, sets the guest up, and does what the host says until the end.
async fn serve(
    context: &Context,
    mut from_host: mpsc::Receiver<Result<HostMessage, LinkError>>,
    failures: mpsc::Receiver<Error>,
) -> Result<()> {
    let reporter = &context.supervisor.reporter;
    reporter.report(setup::hello()?).await;
    let configuration = match next(&mut from_host).await? {
        Some(HostMessage::ConfigureSandbox(configuration)) => *configuration,
        Some(other) => bail!("the host sent {other:?} before the configuration"),
        None => return Ok(()),
    };
    // Beside the heartbeat: on a busy machine it takes some seconds.
    let (wanted, guest) = (configuration.clone(), context.guest.clone());
    let trust = tokio::task::spawn_blocking(move || setup::set_up(&wanted, &guest)).await??;
    reporter.report(GuestMessage::SandboxConfigured {}).await;
    let failures = Some(failures);
    let mut sandbox =
        Configured { context, configuration, trust, failures, services: None, sign_in: None };
    loop {
        let message = tokio::select! {
            message = next(&mut from_host) => message?,
            failure = failure_of(&mut sandbox.services) => return Err(failure),
        };
        let Some(message) = message else { return Ok(()) };
        if sandbox.obey(message).await? == Course::Ends {
            return Ok(());
        }
    }
}

/// A sandbox that is set up, and how far it has come.
struct Configured<'a> {
    context: &'a Context,
    configuration: ConfigureSandbox,
    trust: Trust,
    /// Until the services start.
    failures: Option<mpsc::Receiver<Error>>,
    services: Option<Services>,
    /// One that has begun and waits for the services.
    sign_in: Option<BeginSignIn>,
}

/// Whether the session goes on.
#[derive(PartialEq)]
enum Course {
    GoesOn,
    Ends,
}

impl Configured<'_> {
    /// Does what the host says.
    async fn obey(&mut self, message: HostMessage) -> Result<Course> {
        let Context { guest, supervisor, signals, .. } = self.context;
        match message {
            HostMessage::BeginSignIn(mut begin) => {
                setup::welcome(std::mem::take(&mut begin.preferences), guest)?;
                supervisor.reporter.report(GuestMessage::SignInBegun {}).await;
                self.sign_in = Some(*begin);
                self.sign_in_where_services_run();
            }
            HostMessage::StartServices {} => {
                let Some(failures) = self.failures.take() else {
                    bail!("the host started the services twice")
                };
                let services = Services::start(self.context, &self.configuration, failures).await?;
                self.services = Some(services);
                self.sign_in_where_services_run();
            }
            HostMessage::OpenSignInPage { url } => {
                // Parsed, no line break is left in it.
                let url = url::Url::parse(&url)
                    .context("the host sent a page address that is not a valid URL")?;
                if let Some(services) = &self.services {
                    services.open_sign_in_page(url.as_str());
                }
            }
            HostMessage::Time { asked_ms, now_unix_ms } => {
                clock::hold(guest, asked_ms, now_unix_ms, &supervisor.reporter);
            }
            HostMessage::Secret { text } => supervisor.reporter.secrets().add(&text),
            HostMessage::StartTool {} => signals.start_tool.give(),
            HostMessage::TurnBegins {} => signals.turn_begins.give(),
            HostMessage::SignedIn {} => signals.signed_in.give(),
            HostMessage::AcknowledgeCredential {} | HostMessage::Shutdown {} => {
                return Ok(Course::Ends);
            }
            other @ HostMessage::ConfigureSandbox(_) => bail!("the host sent {other:?} twice"),
        }
        Ok(Course::GoesOn)
    }

    /// The services and the sign-in come in either order: a desktop needs nobody who signs in.
    fn sign_in_where_services_run(&mut self) {
        if let Some(services) = &self.services
            && let Some(begin) = self.sign_in.take()
        {
            services.sign_in(self.context, self.trust.clone(), begin);
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
