//! The sign-in: the CLI from its start to a sealed credential.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anteroom_guest_protocol::{Desktop, GuestMessage, ProcessExit, SignIn, Then};
use anyhow::Result;
use base64::Engine;
use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Shared;
use super::services::{give_up, startable, started};
use crate::browser::Trust;
use crate::login::cli::{self, Surroundings};
use crate::login::credential::{BundledFile, Look, Missing, Watched, archive, seal};
use crate::login::opener;
use crate::login::opener::SOCKET_ENV;
use crate::login::status::{self, Answer};
use crate::room::RoomKind;
use crate::supervise::{Death, Process};

/// How long a CLI may take to end by itself once its credential is there: it shows its last page,
/// and writes what it wrote before once more. One that goes on, or says nothing for a while, is
/// frozen then.
const LAST_STEPS: Duration = Duration::from_secs(20);
const SAYS_NOTHING: Duration = Duration::from_secs(4);

/// How often is looked whether what an ended CLI left still runs.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What the CLI needs of the room.
pub struct Around {
    /// The X display, `:1`.
    pub display: String,
    /// The guest's proxy.
    pub proxy: SocketAddr,
    /// Certificate authorities.
    pub trust: Trust,
}

/// The CLI from its start to a sealed credential.
pub async fn run(shared: Shared, wanted: SignIn, around: Around) -> Result<()> {
    let (opener_socket, urls) = opener::listen(&shared.room)?;
    // In the environment of the CLI and all that it starts, and of nothing else on this machine.
    let mut mark = OsString::from(SOCKET_ENV);
    mark.push("=");
    mark.push(&opener_socket);
    let surroundings = Surroundings {
        proxy: &format!("http://{}", around.proxy),
        opener_socket: &opener_socket,
        ca_bundle: around.trust.bundle(),
        display: &around.display,
    };
    let command = cli::command(&wanted.cli, &surroundings, &shared.room)?;
    startable(&shared, "cli", &command).await?;
    if let Some(port) = cli::taken_port(&wanted.cli.callback_ports) {
        let cause = format!(
            "something listens on port {port} already, where it takes the end of the sign-in"
        );
        give_up(&shared, "cli", &cause).await;
        anyhow::bail!("the CLI cannot be started: {cause}");
    }
    let started_cli = cli::start(command, &shared.reaper, &shared.reporter, &shared.secrets);
    let (mut process, terminal) = match started_cli {
        Ok(started) => started,
        Err(error) => {
            give_up(&shared, "cli", &format!("{error:#}")).await;
            return Err(error);
        }
    };
    shared.terminal.send_replace(Some(terminal.clone()));
    if wanted.desktop == Desktop::Used {
        // The browser takes longest: the CLI is done long before it, also with what it leaves.
        process.give_way();
    }
    started(&shared, "cli", &process).await;
    let watched = Rc::new(Watched::new(&wanted.credential, &shared.room)?);
    tokio::task::spawn_local(tell_urls(shared.clone(), urls, watched.clone()));
    loop {
        let ended = tokio::select! {
            found = watched.until_stable() => {
                if let Err(cause) = found {
                    process.freeze(&mark).await;
                    return refuse(&shared, cause).await;
                }
                let quiet = tokio::time::timeout(LAST_STEPS, terminal.quiet(SAYS_NOTHING));
                tokio::select! { death = process.died() => Some(death), _ = quiet => None }
            }
            death = process.died() => Some(death),
        };
        if ended.is_some() {
            what_it_left_ends(&process, &mark).await;
        }
        // A refresh token is used once: what would be written after our read would make ours worthless.
        process.freeze(&mark).await;
        let outcome = match (watched.look(), ended) {
            (Look::Complete(_), Some(death)) if failed(&death) && !watched.tells() => {
                // Its files alone say nothing of a sign-in, and the tool says that there was none.
                report_end(&shared, &process, death).await
            }
            (Look::Complete(files), ended) => {
                let goes_on = ended.is_none() && !watched.tells();
                let its_word_decides = goes_on && wanted.credential.status.is_some();
                match capture(&shared, &wanted, &files, its_word_decides).await {
                    Ok(Captured::NotYet) => {
                        watched.waits_for_another(Look::Complete(files));
                        process.signal_all(&mark, Some(Signal::SIGCONT));
                        continue;
                    }
                    captured => captured.map(drop),
                }
            }
            (Look::Refused(cause), _) => refuse(&shared, cause).await,
            (Look::Incomplete(_), None) => {
                // It was there and is not any more: the CLI is not done.
                process.signal_all(&mark, Some(Signal::SIGCONT));
                continue;
            }
            (Look::Incomplete(missing), Some(death)) => {
                ended_without(&shared, &process, &missing, death).await
            }
        };
        if shared.room.kind == RoomKind::Host {
            // A frozen process does not answer the SIGTERM that will end it.
            process.signal_all(&mark, Some(Signal::SIGCONT));
        }
        return outcome;
    }
}

/// Waits a moment for what an ended CLI left running: it may be at the last of its files.
async fn what_it_left_ends(process: &Process, mark: &OsStr) {
    let until = Instant::now() + SAYS_NOTHING;
    while process.signal_all(mark, None) > 0 && Instant::now() < until {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Tells the host what the CLI wants opened.
async fn tell_urls(shared: Shared, mut urls: mpsc::Receiver<String>, watched: Rc<Watched>) {
    while let Some(url) = urls.recv().await {
        watched.turn_begins();
        shared.reporter.tell(GuestMessage::SignInUrl { url }).await;
    }
}

/// The CLI is gone and left no credential: how it ended decides what that means.
async fn ended_without(
    shared: &Shared,
    process: &Process,
    missing: &Missing,
    death: Death,
) -> Result<()> {
    if !failed(&death) {
        return refuse(shared, missing.after_success()).await;
    }
    report_end(shared, process, death).await
}

fn failed(death: &Death) -> bool {
    death.exit != (ProcessExit::Exited { code: 0 })
}

async fn report_end(shared: &Shared, process: &Process, death: Death) -> Result<()> {
    shared.reporter.service("cli", process.exit_event(death, 1, Then::Nothing {})).await;
    Ok(())
}

async fn refuse(shared: &Shared, cause: String) -> Result<()> {
    shared.reporter.tell(GuestMessage::CredentialRefused { cause }).await;
    Ok(())
}

/// Has the CLI's own word on what was found, seals it, tells the host. Not yet, of a CLI that goes on
/// and whose files say nothing by themselves, when its word is that nobody is signed in.
async fn capture(
    shared: &Shared,
    wanted: &SignIn,
    files: &[BundledFile],
    its_word_decides: bool,
) -> Result<Captured> {
    if !its_word_decides {
        shared.reporter.tell(GuestMessage::CredentialFound {}).await;
    }
    if let Some(spec) = &wanted.credential.status {
        let asked = status::ask(spec, files, &shared.room, &shared.reaper, &shared.reporter).await;
        match asked {
            Ok(Answer::SignedIn(said)) => {
                if its_word_decides {
                    shared.reporter.tell(GuestMessage::CredentialFound {}).await;
                }
                shared.reporter.tell(GuestMessage::CredentialVerified { said }).await;
            }
            Ok(Answer::NotSignedIn(_)) if its_word_decides => return Ok(Captured::NotYet),
            Ok(Answer::NotSignedIn(why)) => {
                refuse(shared, why).await?;
                return Ok(Captured::Done);
            }
            Err(error) => {
                refuse(shared, format!("asking the tool itself failed: {error:#}")).await?;
                return Ok(Captured::Done);
            }
        }
    }
    let sealed = seal(&archive(files)?, &wanted.recipient)?;
    let ciphertext_base64 = base64::engine::general_purpose::STANDARD.encode(sealed);
    shared.reporter.tell(GuestMessage::CredentialSealed { ciphertext_base64 }).await;
    Ok(Captured::Done)
}

/// What became of a look that found all files.
enum Captured {
    /// The host knows.
    Done,
    /// It was no sign-in yet.
    NotYet,
}
