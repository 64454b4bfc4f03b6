//! What the CLI itself says of a credential before it is sealed: asked where nothing is as it was but the
//! files, as it will be at its owner's.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anteroom_guest_protocol::{KeyringItem, ProcessExit, StatusSpec, is_keyring_entry};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use regex::Regex;

use super::bundle::BundledFile;
use super::keyring;
use super::portability::{CANNOT_ISOLATE, Environment};
use crate::guest::{Guest, RUNTIME};
use crate::report::Reporter;
use crate::supervise::{self, Output, Process, Reaper};

/// How long the CLI may take: a large one starts for a quarter of a minute under emulation.
const ANSWER: Duration = Duration::from_secs(90);

/// Bytes of its answer that are read: tools list much after they have said who is signed in.
const MAX_ANSWER: usize = 1024 * 1024;

/// Characters of the question that are quoted.
const MAX_COMMAND: usize = 60;

/// A home for a moment.
struct Home(PathBuf);

impl Drop for Home {
    fn drop(&mut self) {
        // What stays behind goes with the sandbox.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the CLI says of a credential.
pub enum Answer {
    /// The line that says that it is signed in.
    SignedIn(String),
    /// Why not, one sentence.
    NotSignedIn(String),
}

/// Asks the CLI on another machine, and on this one when it denies there.
pub async fn ask(
    spec: &StatusSpec,
    files: &[BundledFile],
    guest: &Guest,
    reaper: &Reaper,
    reporter: &Reporter,
) -> Result<Answer> {
    let signed_in =
        Regex::new(&spec.signed_in).context("signed_in is not a valid regular expression")?;
    let asked = joined(&spec.command);
    let question = Question { spec, files, guest, reaper, reporter };
    let away = question.ask(Where::AnotherMachine).await?;
    let denies = |said: &Said| {
        Answer::NotSignedIn(format!(
            "`{asked}` does not report that the tool is signed in; it {said}"
        ))
    };
    let Some(away) = away else {
        let plain = question
            .ask(Where::NotIsolated)
            .await?
            .context("no environment could be prepared for it")?;
        let found = plain.signed_in(&signed_in);
        return Ok(found.map_or_else(|| denies(&plain), Answer::SignedIn));
    };
    if let Some(said) = away.signed_in(&signed_in) {
        return Ok(Answer::SignedIn(said));
    }
    let here = question.ask(Where::ThisMachine).await?;
    if here.and_then(|here| here.signed_in(&signed_in)).is_none() {
        return Ok(denies(&away));
    }
    Ok(Answer::NotSignedIn(format!(
        "`{asked}` reports that the tool is signed in on the machine where it signed in, but not on another one that has only the same files (and another host name, user name, home directory and machine id), so the credential cannot be used elsewhere; there it {away}"
    )))
}

/// What the CLI said to the question, and how it ended.
struct Said {
    exit: ProcessExit,
    /// All of it, as far as it is read.
    all: String,
    last_lines: Vec<String>,
}

impl Said {
    /// The line that says that it is signed in, if it also exited with status 0: a command that fails
    /// after such a line has failed.
    fn signed_in(&self, pattern: &Regex) -> Option<String> {
        let found = pattern.find(&self.all).filter(|_| self.succeeded())?.as_str();
        Some(found.lines().next().unwrap_or_default().trim().to_owned())
    }

    fn succeeded(&self) -> bool {
        self.exit == (ProcessExit::Exited { code: 0 })
    }
}

impl fmt::Display for Said {
    /// Goes on after "it".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.succeeded() {
            write!(f, "{} and ", supervise::describe(self.exit))?;
        }
        match self.last_lines.as_slice() {
            [] => f.write_str("printed nothing"),
            lines => write!(f, "printed: {}", lines.join(" / ")),
        }
    }
}

/// A command as one line, cut to [`MAX_COMMAND`] characters.
fn joined(command: &[String]) -> String {
    let line = command.join(" ");
    match line.char_indices().nth(MAX_COMMAND) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Where is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// On another machine.
    AnotherMachine,
    /// On this one, without a network.
    ThisMachine,
    /// In the sandbox as it is, since no other environment can be made.
    NotIsolated,
}

/// What is asked, and of what.
struct Question<'a> {
    spec: &'a StatusSpec,
    files: &'a [BundledFile],
    guest: &'a Guest,
    reaper: &'a Reaper,
    reporter: &'a Reporter,
}

impl Question<'_> {
    /// What the CLI prints, in a home that holds the files alone. `None` when there cannot be such an
    /// environment, which is noted.
    async fn ask(&self, environment: Where) -> Result<Option<Said>> {
        let Self { spec, files, guest, reaper, reporter } = self;
        let home = make_home(files, guest).context("making a home for it failed")?;
        let secrets = secrets(files);
        let mut argv = spec.command.clone();
        if !secrets.is_empty() {
            keyring::lay(&home.0, &secrets, guest).context("laying out its keyring failed")?;
            argv = keyring::with_a_session(&home.0, &argv, guest)
                .context("preparing a session bus for it failed")?;
        }
        let mut command = self.command(environment, &argv, &home.0)?;
        command.envs(&spec.env);
        let output = Output { keep: MAX_ANSWER, ..Output::default() };
        let mut process = Process::start("status", command, output, reaper, reporter)?;
        let ended = tokio::time::timeout(ANSWER, process.died()).await;
        let Ok(death) = ended else {
            process.signal(Signal::SIGKILL);
            process.died().await;
            bail!("`{}` did not end within {} s", joined(&spec.command), ANSWER.as_secs());
        };
        let (all, last_lines) = (process.kept(), process.last_lines());
        let cannot_isolate = death.exit == (ProcessExit::Exited { code: CANNOT_ISOLATE });
        if environment != Where::NotIsolated && cannot_isolate {
            let why = last_lines.last().map_or("", String::as_str);
            reporter.note(&format!("the status command runs on the machine where the tool signed in, because another machine cannot be simulated: {why}"));
            return Ok(None);
        }
        Ok(Some(Said { exit: by_its_code(death.exit), all, last_lines }))
    }

    fn command(&self, environment: Where, argv: &[String], home: &Path) -> Result<Command> {
        let guest = self.guest;
        let [program, arguments @ ..] = argv else { bail!("the status command is empty") };
        match environment {
            Where::AnotherMachine => {
                Environment::another_machine(home, &guest.runtime, argv, guest)?.command(guest)
            }
            Where::ThisMachine => Environment::this_machine(home, argv, guest).command(guest),
            Where::NotIsolated => {
                let mut command = guest.command(program);
                command.args(arguments).env("HOME", home).current_dir(home);
                command.env("XDG_RUNTIME_DIR", home.join(RUNTIME));
                Ok(command)
            }
        }
    }
}

/// How the CLI itself ended: who ran it in its place hands on a signal as a code, as shells do.
fn by_its_code(exit: ProcessExit) -> ProcessExit {
    match exit {
        ProcessExit::Exited { code: code @ 129..=192 } => {
            ProcessExit::Signalled { signal: code - 128 }
        }
        exit => exit,
    }
}

/// The secrets of the keyring among what a bundle has.
fn secrets(files: &[BundledFile]) -> Vec<KeyringItem> {
    let entries = files.iter().filter(|file| is_keyring_entry(&file.path));
    entries.filter_map(|file| serde_json::from_slice(&file.content).ok()).collect()
}

/// A home with these files and nothing else.
fn make_home(files: &[BundledFile], guest: &Guest) -> Result<Home> {
    let home = Home(guest.runtime.join("status-home"));
    make_folder(&home.0, guest)?;
    for file in files.iter().filter(|file| !is_keyring_entry(&file.path)) {
        let path = home.0.join(&file.path);
        let folders: Vec<&Path> =
            path.ancestors().skip(1).take_while(|folder| **folder != home.0).collect();
        for folder in folders.into_iter().rev() {
            make_folder(folder, guest)?;
        }
        std::fs::write(&path, &file.content)?;
        // As `anteroom credentials open` leaves it, whatever it was before.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        guest.give_to_end_user(&path)?;
    }
    Ok(home)
}

fn make_folder(path: &Path, guest: &Guest) -> Result<()> {
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    Ok(guest.give_to_end_user(path)?)
}
