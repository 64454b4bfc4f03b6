//! The start of the CLI, and before that of what it needs.

use std::path::Path;
use std::rc::Rc;

use anteroom_guest_protocol::{BeginSignIn, GuestMessage};
use anyhow::{Context as _, Result};
use tokio::sync::mpsc;

use super::cli::{self, CliContext};
use super::context::Context;
use super::terminal::Terminal;
use crate::credential::keyring;
use crate::credential::watch::Watched;
use crate::desktop::opener::Asked;
use crate::report::Reporter;
use crate::supervise::{Failure, Launch, Process, ServiceSpec};

/// Starts the CLI when the host says so, and before that what it needs.
pub async fn start_cli(
    context: &Context,
    wanted: &BeginSignIn,
    opener_socket: &Path,
    seen: cli::Seen,
) -> Result<(Process, Terminal)> {
    let session_bus = match wanted.credential.keyring.is_empty() {
        true => None,
        false => Some(start_keyring(context).await?),
    };
    let spec = cli_spec(context, wanted, opener_socket, session_bus.as_deref())?;
    let supervisor = &context.supervisor;
    let command = match (spec.launch)() {
        Ok(launch) => launch.command,
        Err(failure) => return Err(supervisor.give_up(&spec, failure, Vec::new()).await.into()),
    };
    supervisor.check(&spec, &command).await?;
    // All else is there by now, and what cannot be started is reported.
    context.signals.start_tool.given().await;
    if let Some(port) = cli::taken_port(&wanted.cli.callback_ports) {
        let cause = format!(
            "something already listens on port {port}, where the CLI waits for the end of the sign-in"
        );
        let failure = Failure::NotStarted(cause);
        return Err(supervisor.give_up(&spec, failure, Vec::new()).await.into());
    }
    let start = |command| {
        let started = cli::start(command, &supervisor.reaper, &supervisor.reporter, seen)?;
        context.terminal.send_replace(Some(started.1.clone()));
        Ok(started)
    };
    Ok(supervisor.start_by(&spec, command, start).await?)
}

/// The CLI as a service; what its end means is for the sign-in to say.
fn cli_spec(
    context: &Context,
    wanted: &BeginSignIn,
    opener_socket: &Path,
    session_bus: Option<&str>,
) -> Result<ServiceSpec> {
    let cli_context = CliContext {
        proxy: format!("http://{}", context.proxy),
        opener_socket: opener_socket.to_path_buf(),
        ca_bundle: context.trust.bundle().map(Path::to_path_buf),
        display: context.display.clone(),
        session_bus: session_bus.map(str::to_owned),
        guest: context.guest.clone(),
    };
    let cli = wanted.cli.clone();
    let launch = move || {
        let command = cli::command(&cli, &cli_context)?;
        Ok(Launch { command, readiness: None, watchdog: None })
    };
    let spec = ServiceSpec::new("cli", "the CLI", launch);
    Ok(ServiceSpec { priority: context.priority, ..spec })
}

/// Starts the desktop's keyring on a session bus of its own; the bus's address.
async fn start_keyring(context: &Context) -> Result<String> {
    let bus = keyring::Bus::of(&context.guest);
    let spec = bus.spec(&context.guest, &context.display);
    context.supervisor.spawn(spec).await.context("the keyring did not start")?;
    Ok(bus.address())
}

/// Reports what the CLI wants opened.
pub async fn report_urls(
    reporter: Reporter,
    mut urls: mpsc::Receiver<Asked>,
    watched: Rc<Watched>,
) {
    while let Some(asked) = urls.recv().await {
        // Before the tool goes on, and writes.
        watched.turn_begins();
        let url = asked.url.clone();
        drop(asked);
        reporter.report(GuestMessage::SignInUrl { url }).await;
    }
}
