//! The agent after the handshake.
//!
//! [`control`] carries messages from and to the host, [`streams`] the rest; [`services`] starts what the
//! sign-in needs once the host says so. A guest that is frozen waits for another host ([`host_link`]), that
//! of a clone of it, which it is woken by ([`wake`]).

mod clock;
mod context;
mod control;
mod host_link;
mod identity;
mod programs;
mod random_state;
mod services;
mod setup;
mod streams;
mod v8_generator;
mod wake;

use anteroom_guest_protocol::{BeginSignIn, ConfigureSandbox, GuestMessage, HostMessage};
use anyhow::{Context as _, Error, Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use self::context::Context;
pub use self::host_link::Carrier;
use self::host_link::HostLink;
use self::programs::FrozenPrograms;
use self::services::Services;
use crate::desktop::PendingDesktop;
use crate::desktop::browser::Trust;
use crate::guest::{Guest, GuestKind};
use crate::sign_in::HostSignals;
use crate::supervise::{Reaper, Supervisor};

/// Serves one session on what carries the link, then ends all processes. Returns when the host says so or
/// the link is gone.
pub async fn run<L: Carrier>(mut carrier: L, guest: Guest) -> Result<()> {
    let reaper = Reaper::start()?;
    let (reporter, mut messages) = crate::report::channel();
    let (supervisor, failures) = Supervisor::new(reaper.clone(), reporter.clone());
    let context = Context {
        guest: guest.clone(),
        supervisor,
        opener: watch::channel(None).0,
        desktop: PendingDesktop::new(),
        checker: watch::channel(None).0,
        terminal: watch::channel(None).0,
        signals: HostSignals::default(),
    };
    let mut stage = Stage::Fresh { failures };
    let (ended, mut host) = loop {
        let mut host = HostLink::open(carrier, messages, &context).await?;
        if guest.kind == GuestKind::Vm
            && let Stage::Fresh { .. } = stage
            && let Err(error) = reaper.collector().ask_kernel(&guest.agent(), &reporter)
        {
            reporter
                .note(&format!("deaths will be reported without the kernel's evidence: {error:#}"));
        }
        let served = tokio::select! {
            served = serve(&context, &mut host, stage) => served,
            () = terminated(guest.kind) => Ok(Served::ToTheEnd),
        };
        match served {
            Ok(Served::UntilFrozen(frozen)) => {
                stage = Stage::Frozen(frozen);
                (carrier, messages) = host.leave().await?;
                // Of the time in which nobody listened.
                while messages.try_recv().is_ok() {}
            }
            Ok(Served::ToTheEnd) => break (Ok(()), host),
            Err(error) => break (Err(error), host),
        }
    };
    if let Err(error) = &ended {
        reporter.report(GuestMessage::Fatal { cause: format!("{error:#}") }).await;
    }
    // The host must read why before the sandbox is gone.
    drop(context);
    drop(reporter);
    host.flush().await;
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

/// What a host finds.
enum Stage {
    /// A guest that is yet to be set up.
    Fresh {
        /// What the supervisor reports.
        failures: mpsc::Receiver<Error>,
    },
    /// A clone of one that was.
    Frozen(Box<Frozen>),
}

/// What a frozen guest keeps.
struct Frozen {
    configured: Configured,
    programs: FrozenPrograms,
    wake_token: String,
}

/// How a host was served.
enum Served {
    ToTheEnd,
    UntilFrozen(Box<Frozen>),
}

/// Says hello, sets the guest up or wakes it, and does what the host says until the end.
async fn serve<L: Carrier>(
    context: &Context,
    host: &mut HostLink<L>,
    stage: Stage,
) -> Result<Served> {
    let reporter = &context.supervisor.reporter;
    reporter.report(setup::hello(matches!(stage, Stage::Frozen(_)))?).await;
    let Some(first) = host.next().await? else { return Ok(Served::ToTheEnd) };
    let mut sandbox = match (stage, first) {
        (Stage::Fresh { failures }, HostMessage::ConfigureSandbox(configuration)) => {
            Configured::of(context, *configuration, failures).await?
        }
        (Stage::Frozen(frozen), HostMessage::Wake(wanted)) => {
            wake::wake(&wanted, *frozen, &context.guest, reporter)?
        }
        (_, other) => bail!("the host sent {other:?} first"),
    };
    reporter.report(GuestMessage::SandboxConfigured {}).await;
    loop {
        let message = tokio::select! {
            message = host.next() => message?,
            failure = failure_of(&mut sandbox.services) => return Err(failure),
        };
        let Some(message) = message else { return Ok(Served::ToTheEnd) };
        match sandbox.obey(context, message).await? {
            Course::GoesOn => {}
            Course::Ends => return Ok(Served::ToTheEnd),
            Course::Freezes { wake_token } => {
                let programs = programs::freeze()?;
                reporter.report(GuestMessage::Frozen {}).await;
                let frozen = Frozen { configured: sandbox, programs, wake_token };
                return Ok(Served::UntilFrozen(Box::new(frozen)));
            }
        }
    }
}

/// A sandbox that is set up, and how far it has come.
struct Configured {
    configuration: ConfigureSandbox,
    trust: Trust,
    /// Until the services start.
    failures: Option<mpsc::Receiver<Error>>,
    services: Option<Services>,
    /// Whether this host wants them started: those of a clone run before.
    are_wanted: bool,
    /// One that has begun and waits for the services.
    sign_in: Option<BeginSignIn>,
}

/// Whether the session goes on.
#[derive(PartialEq)]
enum Course {
    GoesOn,
    Ends,
    Freezes { wake_token: String },
}

impl Configured {
    /// A guest that is set up so.
    async fn of(
        context: &Context,
        configuration: ConfigureSandbox,
        failures: mpsc::Receiver<Error>,
    ) -> Result<Self> {
        // Beside the heartbeat: on a busy machine it takes some seconds.
        let (wanted, guest) = (configuration.clone(), context.guest.clone());
        let trust = tokio::task::spawn_blocking(move || setup::set_up(&wanted, &guest)).await??;
        let failures = Some(failures);
        let (services, are_wanted, sign_in) = (None, false, None);
        Ok(Self { configuration, trust, failures, services, are_wanted, sign_in })
    }

    /// Does what the host says.
    async fn obey(&mut self, context: &Context, message: HostMessage) -> Result<Course> {
        let Context { guest, supervisor, signals, .. } = context;
        match message {
            HostMessage::BeginSignIn(mut begin) => {
                setup::welcome(std::mem::take(&mut begin.preferences), guest)?;
                supervisor.reporter.report(GuestMessage::SignInBegun {}).await;
                self.sign_in = Some(*begin);
                self.sign_in_where_services_run(context);
            }
            HostMessage::StartServices {} => {
                if std::mem::replace(&mut self.are_wanted, true) {
                    bail!("the host started the services twice");
                }
                match self.failures.take() {
                    Some(failures) => {
                        let started = Services::start(context, &self.configuration, failures);
                        self.services = Some(started.await?);
                    }
                    None => supervisor.reporter.say_again().await,
                }
                self.sign_in_where_services_run(context);
            }
            HostMessage::Freeze { wake_token } => {
                if self.services.is_none() || guest.preferences.get().is_some() {
                    bail!("the host froze a guest that runs nothing, or somebody's");
                }
                self.are_wanted = false;
                return Ok(Course::Freezes { wake_token });
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
            other @ (HostMessage::ConfigureSandbox(_) | HostMessage::Wake(_)) => {
                bail!("the host sent {other:?} late")
            }
        }
        Ok(Course::GoesOn)
    }

    /// The services and the sign-in come in either order: a desktop needs nobody who signs in.
    fn sign_in_where_services_run(&mut self, context: &Context) {
        if self.are_wanted
            && let Some(services) = &self.services
            && let Some(begin) = self.sign_in.take()
        {
            services.sign_in(context, self.trust.clone(), begin);
        }
    }
}

/// The first thing that went wrong for good; never returns while there are no services.
async fn failure_of(services: &mut Option<Services>) -> Error {
    match services {
        Some(services) => services.failure().await,
        None => std::future::pending().await,
    }
}
