//! The sign-in: the CLI from its start to a sealed credential.

pub mod cli;
pub mod printed;
pub mod terminal;

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anteroom_guest_protocol::{Desktop, GuestMessage, ProcessExit, ServiceEvent, SignIn, Then};
use anyhow::{Context, Result};
use base64::Engine;
use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::cli::CliContext;
use self::printed::Printed;
use self::terminal::Terminal;
use crate::credential::keyring;
use crate::credential::status::{self, Answer};
use crate::credential::watch::{BundledFile, Look, Missing, Watched, archive, quoted, seal};
use crate::desktop::browser::Trust;
use crate::desktop::opener;
use crate::desktop::opener::{Asked, SOCKET_ENV};
use crate::sandbox::SandboxKind;
use crate::session::Shared;
use crate::session::services::{give_up, startable, started};
use crate::supervise::{self, Death, Process};

/// How long a CLI may take to end by itself once its credential is there: it shows its last page,
/// and writes what it wrote before once more. One that goes on, or says nothing for a while, is
/// frozen then.
const LAST_STEPS: Duration = Duration::from_secs(20);
const SAYS_NOTHING: Duration = Duration::from_secs(4);

/// How long after the last word of a CLI the host may take to see on its screen that it is signed in.
const SEEN: Duration = Duration::from_secs(10);

/// How long a frozen CLI's last output may take from its terminal to us.
const LAST_OUTPUT: Duration = Duration::from_millis(200);

/// How often is looked whether what an ended CLI left still runs.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Of a CLI that ended.
const NEVER_SHOWN: &str = "the tool wrote its credential and ended, and its screen never showed that it is \
                           signed in, by `credential.screen` of the provider file";

/// The same, of one with a person's turn and nothing of it.
const NOTHING_NEW: &str = "the tool ended with success, and its credential is as it was when the person's turn \
                           began";

/// How long the keyring's bus may take to be there.
const KEYRING_READY: Duration = Duration::from_secs(60);

/// What the CLI needs of the room.
pub struct DesktopContext {
    /// The X display, `:1`.
    pub display: String,
    /// The guest's proxy.
    pub proxy: SocketAddr,
    /// Certificate authorities.
    pub trust: Trust,
}

/// The CLI from its start to a sealed credential.
pub async fn run(shared: Shared, wanted: SignIn, context: DesktopContext) -> Result<()> {
    let (opener_socket, urls) = opener::listen(&shared.sandbox)?;
    // In the environment of the CLI and all that it starts, and of nothing else on this machine.
    let mut mark = OsString::from(SOCKET_ENV);
    mark.push("=");
    mark.push(&opener_socket);
    let printed = Printed::new(&wanted.credential.printed)?;
    let watched = Rc::new(Watched::new(&wanted.credential, &shared.sandbox)?);
    let seen = cli::Seen { printed: printed.clone(), watched: watched.clone() };
    let (mut process, terminal) =
        start_cli(&shared, &wanted, &context, &opener_socket, seen).await?;
    tokio::task::spawn_local(report_urls(shared.clone(), urls, watched.clone()));
    let (mut turn, of_turn) = (shared.turn.subscribe(), watched.clone());
    tokio::task::spawn_local(async move {
        // Its sender lives as long as the session.
        if turn.wait_for(|begun| *begun).await.is_ok() {
            of_turn.turn_began();
        }
    });
    loop {
        let ended = tokio::select! {
            found = files_are_there(&watched) => {
                if let Err(cause) = found {
                    process.freeze(&mark).await;
                    return refuse(&shared, cause).await;
                }
                keep_secret(&shared, &watched, &printed);
                let done = is_done(&shared, &wanted, &printed, &terminal);
                tokio::select! { death = process.died() => Some(death), () = done => None }
            }
            death = process.died() => Some(death),
        };
        if ended.is_none() && !watched.counts(&watched.look()) {
            // The person's turn began meanwhile, and this was there before it.
            continue;
        }
        if ended.is_some() {
            what_it_left_ends(&process, &mark).await;
        }
        // A refresh token is used once: what would be written after our read would make ours worthless.
        process.freeze(&mark).await;
        terminal.quiet(LAST_OUTPUT).await;
        // Before the tool itself is asked about it, and before anything else is told.
        keep_secret(&shared, &watched, &printed);
        let said = says_that_it_is_signed_in(&shared, &wanted);
        let unseen = ended.as_ref().is_some_and(|death| !failed(death))
            && tokio::time::timeout(SEEN, said).await.is_err();
        let outcome = match (watched.look(), ended) {
            (look @ Look::Complete(_), Some(death)) if failed(&death) => {
                // A tool that says that it failed has failed, whatever it left.
                if watched.counts(&look) && printed.files().is_ok() {
                    shared.reporter.report(GuestMessage::CredentialLeft {}).await;
                }
                report_end(&shared, &process, death).await
            }
            (look @ Look::Complete(_), Some(_)) if watched.is_left_as_it_was(&look) => {
                refuse(&shared, format!("{NOTHING_NEW}{}", last_words(&process))).await
            }
            (Look::Complete(_), _) if unseen => {
                refuse(&shared, format!("{NEVER_SHOWN}{}", last_words(&process))).await
            }
            (Look::Complete(mut files), ended) => {
                match printed.files() {
                    Ok(more) => files.extend(more),
                    // A CLI that goes on has printed all: that was waited for.
                    Err(path) => {
                        let cause = never_printed(&path);
                        return refuse(&shared, cause + &last_words(&process)).await;
                    }
                }
                let goes_on = ended.is_none() && !watched.reports() && printed.is_empty();
                let found = Found {
                    terminal_bytes: terminal.bytes(),
                    its_word_decides: goes_on && wanted.credential.status.is_some(),
                };
                match capture(&shared, &wanted, &files, found).await {
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
        if shared.sandbox.kind == SandboxKind::Host {
            // A frozen process does not answer the SIGTERM that will end it.
            process.signal_all(&mark, Some(Signal::SIGCONT));
        }
        return outcome;
    }
}

/// Keeps what is secret of the credential out of what is told.
fn keep_secret(shared: &Shared, watched: &Watched, printed: &Printed) {
    let printed = printed.files().unwrap_or_default().into_iter();
    let printed = printed.map(|file| String::from_utf8_lossy(&file.content).into_owned());
    watched.secrets().into_iter().chain(printed).for_each(|secret| shared.secrets.add(&secret));
}

/// Waits a moment for what an ended CLI left running: it may be at the last of its files.
async fn what_it_left_ends(process: &Process, mark: &OsStr) {
    let until = Instant::now() + SAYS_NOTHING;
    while process.signal_all(mark, None) > 0 && Instant::now() < until {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Waits until a CLI that goes on, and whose files are complete, has said all that is waited for, and
/// a while longer for its last steps.
async fn is_done(shared: &Shared, wanted: &SignIn, printed: &Printed, terminal: &Terminal) {
    says_that_it_is_signed_in(shared, wanted).await;
    printed.all_found().await;
    let _ = tokio::time::timeout(LAST_STEPS, terminal.quiet(SAYS_NOTHING)).await;
}

/// Waits until the files are complete and stable, where there are any.
async fn files_are_there(watched: &Watched) -> Result<(), String> {
    match watched.is_empty() {
        true => Ok(()),
        false => watched.until_stable().await,
    }
}

/// Said of a CLI that ended as if all were well.
fn never_printed(path: &str) -> String {
    format!("the tool ended with success and never showed what is to be sealed as ~/{path}")
}

/// Waits until the host has seen on the screen that the CLI is signed in, where the provider file says
/// what shows it.
async fn says_that_it_is_signed_in(shared: &Shared, wanted: &SignIn) {
    if wanted.credential.awaits_screen {
        // Its sender lives as long as the session.
        let _ = shared.signed_in.subscribe().wait_for(|signed_in| *signed_in).await;
    }
}

/// Starts the CLI when the host says so, and before that what it needs of the room.
async fn start_cli(
    shared: &Shared,
    wanted: &SignIn,
    context: &DesktopContext,
    opener_socket: &Path,
    seen: cli::Seen,
) -> Result<(Process, Terminal)> {
    let session_bus = if wanted.credential.keyring.is_empty() {
        None
    } else {
        Some(start_keyring(shared, &context.display).await?)
    };
    let context = CliContext {
        proxy: &format!("http://{}", context.proxy),
        opener_socket,
        ca_bundle: context.trust.bundle(),
        display: &context.display,
        session_bus: session_bus.as_deref(),
    };
    let command = cli::command(&wanted.cli, &context, &shared.sandbox)?;
    startable(shared, "cli", &command).await?;
    // All else is there by now, and what cannot be started was told. Its sender lives as long as the
    // session.
    let _ = shared.tool_wanted.subscribe().wait_for(|wanted| *wanted).await;
    if let Some(port) = cli::taken_port(&wanted.cli.callback_ports) {
        let cause = format!(
            "something listens on port {port} already, where it takes the end of the sign-in"
        );
        give_up(shared, "cli", &cause).await;
        anyhow::bail!("the CLI cannot be started: {cause}");
    }
    let started_cli = cli::start(command, &shared.reaper, &shared.reporter, &shared.secrets, seen);
    let (process, terminal) = match started_cli {
        Ok(started) => started,
        Err(error) => {
            give_up(shared, "cli", &format!("{error:#}")).await;
            return Err(error);
        }
    };
    shared.terminal.send_replace(Some(terminal.clone()));
    if wanted.desktop == Desktop::Used {
        // The browser takes longest: the CLI is done long before it, also with what it leaves.
        process.give_way();
    }
    started(shared, "cli", &process).await;
    Ok((process, terminal))
}

/// Starts the desktop's keyring on a session bus of its own; the bus's address.
async fn start_keyring(shared: &Shared, display: &str) -> Result<String> {
    let bus = keyring::Bus::of(&shared.sandbox);
    keyring::lay(&shared.sandbox.home, &[], &shared.sandbox)
        .context("laying out the keyring failed")?;
    // It is the bus that starts it, when somebody asks.
    startable(shared, "keyring", &shared.sandbox.command("gnome-keyring-daemon")).await?;
    let command = bus.command(&shared.sandbox, display);
    startable(shared, "keyring", &command).await?;
    let mut process = supervise::start("keyring", command, &shared.reaper, &shared.reporter)?;
    started(shared, "keyring", &process).await;
    if let Err(unready) = process.until_ready(KEYRING_READY, bus.ready()).await {
        let cause = unready.to_string();
        shared.reporter.service("keyring", process.failed_event(unready)).await;
        anyhow::bail!("the keyring did not start: {cause}");
    }
    shared.reporter.service("keyring", ServiceEvent::Ready {}).await;
    Ok(bus.address())
}

/// Tells the host what the CLI wants opened.
async fn report_urls(shared: Shared, mut urls: mpsc::Receiver<Asked>, watched: Rc<Watched>) {
    while let Some(asked) = urls.recv().await {
        // Before the tool goes on, and writes.
        watched.turn_begins();
        let url = asked.url.clone();
        drop(asked);
        shared.reporter.report(GuestMessage::SignInUrl { url }).await;
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
        return refuse(shared, missing.after_success(said(process).as_deref())).await;
    }
    report_end(shared, process, death).await
}

/// The line of a tool's last ones that says why it ended, or the last.
fn said(process: &Process) -> Option<String> {
    let lines = process.last_lines();
    anteroom_crash::message(&lines).or_else(|| lines.last().cloned())
}

/// The same at the end of a sentence on it.
fn last_words(process: &Process) -> String {
    quoted(said(process).as_deref())
}

fn failed(death: &Death) -> bool {
    death.exit != (ProcessExit::Exited { code: 0 })
}

async fn report_end(shared: &Shared, process: &Process, death: Death) -> Result<()> {
    shared.reporter.service("cli", process.exit_event(death, 1, Then::Nothing {})).await;
    Ok(())
}

async fn refuse(shared: &Shared, cause: String) -> Result<()> {
    shared.reporter.report(GuestMessage::CredentialRefused { cause }).await;
    Ok(())
}

/// How complete files were found.
#[derive(Clone, Copy)]
struct Found {
    /// Bytes that the CLI wrote until then.
    terminal_bytes: u64,
    /// Whether the CLI's own word says if they are a sign-in at all.
    its_word_decides: bool,
}

/// Has the CLI's own word on what was found, seals it, tells the host. Not yet, of a CLI that goes on
/// and whose files say nothing by themselves, when its word is that nobody is signed in.
async fn capture(
    shared: &Shared,
    wanted: &SignIn,
    files: &[BundledFile],
    found: Found,
) -> Result<Captured> {
    let Found { terminal_bytes, its_word_decides } = found;
    if !its_word_decides {
        shared.reporter.report(GuestMessage::CredentialFound { terminal_bytes }).await;
    }
    if let Some(spec) = &wanted.credential.status {
        let asked =
            status::ask(spec, files, &shared.sandbox, &shared.reaper, &shared.reporter).await;
        match asked {
            Ok(Answer::SignedIn(said)) => {
                if its_word_decides {
                    shared.reporter.report(GuestMessage::CredentialFound { terminal_bytes }).await;
                }
                shared.reporter.report(GuestMessage::CredentialVerified { said }).await;
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
    shared.reporter.report(GuestMessage::CredentialSealed { ciphertext_base64 }).await;
    Ok(Captured::Done)
}

/// What became of a look that found all files.
enum Captured {
    /// The host knows.
    Done,
    /// It was no sign-in yet.
    NotYet,
}
