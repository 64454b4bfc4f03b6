//! The CLI from its start to a sealed credential.

use std::ffi::OsString;
use std::rc::Rc;
use std::time::Duration;

use anteroom_guest_protocol::{BeginSignIn, GuestMessage, Then};
use anyhow::Result;
use tokio::time::Instant;

use super::capture::{Captured, Found, capture, refuse};
use super::cli;
use super::context::Context;
use super::printed::Printed;
use super::start::{report_urls, start_cli};
use super::terminal::Terminal;
use crate::credential::bundle::BundledFile;
use crate::credential::look::Look;
use crate::credential::missing::{Missing, quoted};
use crate::credential::watch::Watched;
use crate::desktop::opener::{self, SOCKET_ENV};
use crate::guest::GuestKind;
use crate::supervise::{Death, Process, ProcessTree};

/// How long a CLI may take to end by itself once its credential is there: it shows its last page,
/// and writes what it wrote before once more. One that goes on, or says nothing for a while, is
/// frozen then.
const LAST_STEPS: Duration = Duration::from_secs(20);
const SAYS_NOTHING: Duration = Duration::from_secs(4);

/// How long after a CLI's last output the host may take to see on its screen that it is signed in.
const SEEN: Duration = Duration::from_secs(10);

/// How long a frozen CLI's last output may take from its terminal to us.
const LAST_OUTPUT: Duration = Duration::from_millis(200);

/// How often is looked whether what an ended CLI left still runs.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Of a CLI that ended.
const NEVER_SHOWN: &str = "the tool wrote its credential and ended, but its screen never showed that it is \
                           signed in (`credential.screen` in the provider file)";

/// The same, of one with an end user's turn and nothing of it.
const NOTHING_NEW: &str = "the tool exited with status 0, but its credential has not changed since the end \
                           user's turn began";

/// Runs a sign-in; returns when the host knows what came of it.
pub async fn run(context: Context, wanted: BeginSignIn) -> Result<()> {
    let (opener_socket, urls) = opener::listen(&context.guest)?;
    // In the environment of the CLI and all that it starts, and of nothing else on this machine.
    let mut mark = OsString::from(SOCKET_ENV);
    mark.push("=");
    mark.push(&opener_socket);
    let printed = Printed::new(&wanted.credential.printed)?;
    let watched = Rc::new(Watched::new(&wanted.credential, &context.guest)?);
    let seen = cli::Seen { printed: printed.clone(), watched: watched.clone() };
    let (process, terminal) = start_cli(&context, &wanted, &opener_socket, seen).await?;
    let reporter = context.supervisor.reporter.clone();
    tokio::task::spawn_local(report_urls(reporter, urls, watched.clone()));
    let (turn_begins, of_turn) = (context.signals.turn_begins.clone(), watched.clone());
    tokio::task::spawn_local(async move {
        turn_begins.given().await;
        of_turn.turn_began();
    });
    let tree = ProcessTree::of(process.pid, mark);
    let mut running = Running { context, wanted, printed, watched, process, terminal, tree };
    let outcome = loop {
        match running.attempt().await {
            Ok(Captured::NotYet) => running.tree.thaw(),
            Ok(Captured::Reported) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    if running.context.guest.kind == GuestKind::Host {
        // A frozen process does not answer the SIGTERM that will end it.
        running.tree.thaw();
    }
    outcome
}

/// A CLI that was started.
struct Running {
    context: Context,
    wanted: BeginSignIn,
    printed: Printed,
    watched: Rc<Watched>,
    process: Process,
    terminal: Terminal,
    tree: ProcessTree,
}

impl Running {
    /// Waits until the credential is there or the CLI has ended, freezes it, and looks what it is. Not yet,
    /// of a CLI that is not done.
    async fn attempt(&mut self) -> Result<Captured> {
        let ended = match self.until_done().await {
            Ok(ended) => ended,
            Err(cause) => {
                self.tree.freeze().await;
                return Ok(self.refuse(cause).await);
            }
        };
        if ended.is_none() && !self.watched.counts(&self.watched.look()) {
            // The end user's turn began meanwhile, and this was there before it.
            return Ok(Captured::NotYet);
        }
        if ended.is_some() {
            self.until_descendants_end().await;
        }
        // A refresh token is used once: what would be written after our read would make ours worthless.
        self.tree.freeze().await;
        self.terminal.quiet(LAST_OUTPUT).await;
        // Before the tool itself is asked about it, and before anything else is reported.
        self.keep_secret();
        self.decide(ended).await
    }

    /// Returns when the CLI has ended, with its death, or goes on and has done all that is waited for; the
    /// error is a sentence on files that no wait makes right.
    async fn until_done(&mut self) -> Result<Option<Death>, String> {
        tokio::select! {
            found = files_are_there(&self.watched) => found?,
            death = self.process.died() => return Ok(Some(death)),
        }
        self.keep_secret();
        let done = until_last_steps(&self.context, &self.wanted, &self.printed, &self.terminal);
        Ok(tokio::select! { death = self.process.died() => Some(death), () = done => None })
    }

    /// What a frozen CLI's files and its end, if it has ended, come to.
    async fn decide(&mut self, ended: Option<Death>) -> Result<Captured> {
        let said = signed_in_on_screen(&self.context, &self.wanted);
        let is_unseen = ended.as_ref().is_some_and(|death| !death.is_failure())
            && tokio::time::timeout(SEEN, said).await.is_err();
        match (self.watched.look(), ended) {
            (look @ Look::Complete(_), Some(death)) if death.is_failure() => {
                // A tool that says that it failed has failed, whatever it left.
                if self.watched.counts(&look) && self.printed.files().is_ok() {
                    self.report(GuestMessage::CredentialLeft {}).await;
                }
                Ok(self.report_end(death).await)
            }
            (look @ Look::Complete(_), Some(_)) if self.watched.is_left_as_it_was(&look) => {
                Ok(self.refuse_with_last_line(NOTHING_NEW).await)
            }
            (Look::Complete(_), _) if is_unseen => {
                Ok(self.refuse_with_last_line(NEVER_SHOWN).await)
            }
            (Look::Complete(files), ended) => self.capture(files, ended.is_none()).await,
            (Look::Refused(cause), _) => Ok(self.refuse(cause).await),
            // It was there and is not any more: the CLI is not done.
            (Look::Incomplete(_), None) => Ok(Captured::NotYet),
            (Look::Incomplete(missing), Some(death)) => {
                Ok(self.ended_without(&missing, death).await)
            }
        }
    }

    /// Captures complete files together with what was printed.
    async fn capture(&self, mut files: Vec<BundledFile>, goes_on: bool) -> Result<Captured> {
        match self.printed.files() {
            Ok(more) => files.extend(more),
            // A CLI that goes on has printed all: that was waited for.
            Err(path) => return Ok(self.refuse_with_last_line(&never_printed(&path)).await),
        }
        let cli_decides = goes_on
            && !self.watched.reports()
            && self.printed.is_empty()
            && self.wanted.credential.status.is_some();
        let found = Found { terminal_bytes: self.terminal.bytes(), cli_decides };
        let captured = capture(&self.context, &self.wanted, &files, found).await?;
        if matches!(captured, Captured::NotYet) {
            self.watched.waits_for_another(Look::Complete(files));
        }
        Ok(captured)
    }

    /// The CLI is gone and left no credential: how it ended decides what that means.
    async fn ended_without(&self, missing: &Missing, death: Death) -> Captured {
        match death.is_failure() {
            true => self.report_end(death).await,
            false => self.refuse(missing.after_success(self.said().as_deref())).await,
        }
    }

    /// Keeps what is secret of the credential out of reports and logs.
    fn keep_secret(&self) {
        let printed = self.printed.files().unwrap_or_default().into_iter();
        let printed = printed.map(|file| String::from_utf8_lossy(&file.content).into_owned());
        let secrets = self.watched.secrets().into_iter().chain(printed);
        secrets.for_each(|secret| self.context.secrets().add(&secret));
    }

    /// Waits a moment for what an ended CLI left running: it may be at the last of its files.
    async fn until_descendants_end(&self) {
        let until = Instant::now() + SAYS_NOTHING;
        while self.tree.is_running() && Instant::now() < until {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The line of a tool's last ones that says why it ended, or the last.
    fn said(&self) -> Option<String> {
        let lines = self.process.last_lines();
        anteroom_crash::message(&lines).or_else(|| lines.last().cloned())
    }

    async fn report(&self, message: GuestMessage) {
        self.context.supervisor.reporter.report(message).await;
    }

    async fn report_end(&self, death: Death) -> Captured {
        let event = death.into_event(self.process.last_lines(), 1, Then::Nothing {});
        self.context.supervisor.reporter.service("cli", event).await;
        Captured::Reported
    }

    async fn refuse(&self, cause: String) -> Captured {
        refuse(&self.context, cause).await
    }

    async fn refuse_with_last_line(&self, cause: &str) -> Captured {
        self.refuse(format!("{cause}{}", quoted(self.said().as_deref()))).await
    }
}

/// Waits until a CLI that goes on, and whose files are complete, has said all that is waited for, and
/// a while longer for its last steps.
async fn until_last_steps(
    context: &Context,
    wanted: &BeginSignIn,
    printed: &Printed,
    terminal: &Terminal,
) {
    signed_in_on_screen(context, wanted).await;
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

/// Waits until the host has seen on the screen that the CLI is signed in, where the provider file says
/// what shows it.
async fn signed_in_on_screen(context: &Context, wanted: &BeginSignIn) {
    if wanted.credential.awaits_screen {
        context.signals.signed_in.given().await;
    }
}

/// The cause when a CLI that succeeded did not print this file.
fn never_printed(path: &str) -> String {
    format!("the tool exited with status 0, but never printed what is to be sealed as ~/{path}")
}
