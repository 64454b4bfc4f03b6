//! The command line.

mod client;
mod credentials;
mod doctor;
mod driver;
mod egress;
mod explain;
mod folders;
mod http_server;
mod image;
mod keys;
mod memory;
mod output;
mod own_controller;
mod progress;
mod provider;
mod provider_test;
mod reach;
mod ready_file;
mod serve;
mod sessions;
mod snapshot;
mod state_lock;
mod table;
mod temporary;
mod verify;
mod viewer;
mod why;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::{embedded, logging};

/// Disposable computers for signing in to command-line tools.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the controller: the API, the viewer and the sessions.
    Serve(Box<serve::Options>),
    /// Start sign-ins, and enter the codes that complete some of them.
    ///
    /// `start` creates a session on the controller (`anteroom serve`) and prints a one-use link for the end
    /// user. Where the last page of a sign-in shows a code, the end user enters it on the page that the
    /// link opened, or `code` enters it. `anteroom sessions`, `why`, `logs` and `screenshot` show what
    /// happens in a session; `viewer link` creates a new link, and `cancel` ends the session.
    #[command(subcommand)]
    Auth(sessions::Auth),
    /// List sessions.
    Sessions(sessions::List),
    /// Show the logs of a session's console and services, even after its VM is gone.
    Logs(sessions::Logs),
    /// Explain what happened to a session, with the evidence.
    Why(why::Why),
    /// Take a screenshot of a session's desktop.
    Screenshot(sessions::Screenshot),
    /// Create, list, rotate and revoke API keys.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Renew or revoke the end user's link.
    #[command(subcommand)]
    Viewer(viewer::Command),
    /// End a session and tear down its sandbox.
    Cancel(sessions::Cancel),
    /// Receive, fetch and open sealed credentials.
    #[command(subcommand)]
    Credentials(credentials::Credentials),
    /// Find out which hosts a sign-in needs, and allow a host that was refused.
    #[command(subcommand)]
    Egress(egress::Egress),
    /// List, check and test provider files.
    #[command(subcommand)]
    Provider(provider::Command),
    /// Build, verify, list and remove golden images.
    #[command(subcommand)]
    Image(image::Image),
    /// Explain a core dump, or what a program needs that a CPU profile lacks.
    #[command(subcommand)]
    Explain(explain::Explain),
    /// Check whether this machine can run sessions, and how to fix what is missing.
    Doctor(doctor::Options),
    /// Run one session; started by `serve`.
    #[command(hide = true)]
    Session,
}

/// Runs the command that the arguments name.
pub fn run() -> Result<()> {
    match Arguments::parse().command {
        Command::Serve(options) => serve::run(*options),
        Command::Auth(command) => sessions::auth(&command),
        Command::Sessions(options) => sessions::list(&options),
        Command::Logs(options) => sessions::logs(&options),
        Command::Why(options) => why::run(&options),
        Command::Explain(command) => explain::run(&command),
        Command::Screenshot(options) => sessions::screenshot(&options),
        Command::Keys(command) => keys::run(&command),
        Command::Viewer(command) => viewer::run(&command),
        Command::Cancel(options) => sessions::cancel(&options),
        Command::Credentials(command) => credentials::run(&command),
        Command::Egress(command) => egress::run(&command),
        Command::Provider(command) => provider::run(&command),
        Command::Image(command) => image::run(&command),
        Command::Doctor(options) => doctor::run(&options),
        Command::Session => {
            logging::start_as_configured();
            Ok(anteroom_runner::run(embedded::agent)?)
        }
    }
}

/// Handles Ctrl-C and SIGTERM for a command that must clean up; the value becomes true on either.
fn interrupts() -> Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let on_interrupt = interrupted.clone();
    ctrlc::set_handler(move || on_interrupt.store(true, Ordering::SeqCst))
        .context("cannot handle Ctrl-C")?;
    Ok(interrupted)
}

/// Returns when somebody wants this to end.
async fn asked_to_stop() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // The operator's terminal was closed.
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hangup.recv() => {} }
    Ok(())
}

/// Somebody wanted the command to end.
#[derive(Debug)]
struct Interrupted {
    undone: String,
}

impl std::fmt::Display for Interrupted {
    fn fmt(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(text, "interrupted; {}", self.undone)
    }
}

impl std::error::Error for Interrupted {}

/// Does work with a VM of this command's own; when somebody wants it to end, that is an error which says
/// what has not been done.
fn unless_interrupted<T, E: Into<anyhow::Error>>(
    work: impl Future<Output = Result<T, E>>,
    undone: &str,
) -> Result<T> {
    // One thread: the VMM's parent-death signal is tied to the thread that starts it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::select! {
            biased;
            asked = asked_to_stop() => {
                asked.context("cannot handle Ctrl-C")?;
                Err(Interrupted { undone: undone.to_owned() }.into())
            }
            done = work => done.map_err(Into::into),
        }
    })
}
