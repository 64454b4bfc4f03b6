//! The command line.

mod client;
mod credentials;
mod doctor;
mod egress;
mod explain;
mod folders;
mod http_server;
mod image;
mod keys;
mod progress;
mod provider;
mod provider_test;
mod reach;
mod serve;
mod sessions;
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

/// Disposable computers for signing in to command-line tools.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the controller: API, viewer, sessions.
    Serve(Box<serve::Options>),
    /// Starts sign-ins, and brings the codes that end some of them.
    ///
    /// `start` has the controller (`anteroom serve`) make a session, and prints a one-use link: whoever
    /// opens it signs in. Where the last page of a sign-in shows a code, the person enters it on the page
    /// that the link opened, or `code` brings it to the tool. `anteroom sessions`, `why`, `logs` and
    /// `screenshot` tell what becomes of a session; `viewer link` makes a new link, and `cancel` ends it.
    #[command(subcommand)]
    Auth(sessions::Auth),
    /// Lists sessions.
    Sessions(sessions::List),
    /// Shows a session's console and services, also after its VM is gone.
    Logs(sessions::Logs),
    /// Says what happened to a session and why, with the evidence.
    Why(why::Why),
    /// Takes a picture of a session's desktop.
    Screenshot(sessions::Screenshot),
    /// Makes, lists and revokes API keys.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Renews or revokes the person's link.
    #[command(subcommand)]
    Viewer(viewer::Command),
    /// Ends a session and destroys its VM.
    Cancel(sessions::Cancel),
    /// Receives, fetches and opens sealed credentials.
    #[command(subcommand)]
    Credentials(credentials::Credentials),
    /// Finds out which hosts a sign-in needs, and allows one that a session was refused.
    #[command(subcommand)]
    Egress(egress::Egress),
    /// Lists, checks and tries provider files.
    #[command(subcommand)]
    Provider(provider::Command),
    /// Builds, verifies, lists and removes golden images.
    #[command(subcommand)]
    Image(image::Image),
    /// Explains a core dump, or what a program needs that a CPU profile lacks.
    #[command(subcommand)]
    Explain(explain::Explain),
    /// Says what this machine can do, and how to mend what it cannot.
    Doctor(doctor::Options),
    /// One session's runner; started by `serve`.
    #[command(hide = true)]
    Session,
}

/// Reads the arguments and does what they say.
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
        Command::Session => crate::runner::run(),
    }
}

/// Takes over Ctrl-C and SIGTERM for a command that has something to end in order: true from then on.
fn interrupts() -> Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let on_interrupt = interrupted.clone();
    ctrlc::set_handler(move || on_interrupt.store(true, Ordering::SeqCst))
        .context("taking over Ctrl-C failed")?;
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
