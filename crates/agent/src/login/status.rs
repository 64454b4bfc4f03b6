//! The CLI's own word on a credential, before it is sealed: asked where nothing is as it was but the
//! files, as it will be at its owner's.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anteroom_guest_protocol::{KeyringItem, ProcessExit, StatusSpec, is_keyring_entry};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use regex::Regex;

use super::bundle::BundledFile;
use super::elsewhere::{NO_SUCH_PLACE, Place};
use super::keyring;
use crate::report::Reporter;
use crate::room::{RUNTIME, Room};
use crate::supervise::{self, Reaper};

/// How long the CLI may take: a large one starts for a quarter of a minute under emulation.
const ANSWER: Duration = Duration::from_secs(90);

/// Characters of the question that are told.
const MAX_COMMAND: usize = 60;

/// A home for a moment.
struct Home(PathBuf);

impl Drop for Home {
    fn drop(&mut self) {
        // What stays behind goes with the room.
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
    room: &Room,
    reaper: &Reaper,
    reporter: &Reporter,
) -> Result<Answer> {
    let signed_in = Regex::new(&spec.signed_in).context("signed_in is no regular expression")?;
    let says_so = |lines: &[String]| {
        let found = signed_in.find(&lines.join("\n"))?.as_str().to_owned();
        Some(found.lines().next().unwrap_or_default().trim().to_owned())
    };
    let asked = in_words(&spec.command);
    let question = Question { spec, files, room, reaper, reporter };
    let elsewhere = question.ask(Where::Elsewhere).await?;
    let denies = |lines: &[String]| {
        let said = lines.join(" / ");
        Answer::NotSignedIn(format!("`{asked}` does not call it signed in; it says: {said}"))
    };
    let Some(elsewhere) = elsewhere else {
        let here = question.ask(Where::Plainly).await?.unwrap_or_default();
        return Ok(says_so(&here).map_or_else(|| denies(&here), Answer::SignedIn));
    };
    if let Some(said) = says_so(&elsewhere) {
        return Ok(Answer::SignedIn(said));
    }
    let here = question.ask(Where::Here).await?.unwrap_or_default();
    if says_so(&here).is_none() {
        return Ok(denies(&elsewhere));
    }
    Ok(Answer::NotSignedIn(format!(
        "`{asked}` calls it signed in where it was made, and not with the same files on another machine (other host name, user name, home and machine id, nothing else in it), so its owner could not use it; there it says: {}",
        elsewhere.join(" / ")
    )))
}

/// A command as a sentence can have it.
fn in_words(command: &[String]) -> String {
    let words = command.join(" ");
    match words.char_indices().nth(MAX_COMMAND) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

/// Where is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// On another machine.
    Elsewhere,
    /// On this one, without a network.
    Here,
    /// In the room as it is, since no other place can be made.
    Plainly,
}

/// What is asked, and of what.
struct Question<'a> {
    spec: &'a StatusSpec,
    files: &'a [BundledFile],
    room: &'a Room,
    reaper: &'a Reaper,
    reporter: &'a Reporter,
}

impl Question<'_> {
    /// What the CLI prints, in a home that holds the files alone. `None` when there cannot be such a
    /// place, which is noted.
    async fn ask(&self, place: Where) -> Result<Option<Vec<String>>> {
        let Self { spec, files, room, reaper, reporter } = self;
        let home = make_home(files, room).context("making a home for it failed")?;
        let secrets = secrets(files);
        let mut words = spec.command.clone();
        if !secrets.is_empty() {
            keyring::lay(&home.0, &secrets, room).context("laying out its keyring failed")?;
            words = keyring::with_a_session(&home.0, &words, room)
                .context("preparing a session bus for it failed")?;
        }
        let mut command = self.command(place, &words, &home.0)?;
        command.envs(&spec.env);
        let mut process = supervise::start("status", command, reaper, reporter)?;
        let ended = tokio::time::timeout(ANSWER, process.died()).await;
        let Ok(death) = ended else {
            process.signal(Signal::SIGKILL);
            process.died().await;
            bail!("`{}` did not end within {} s", in_words(&spec.command), ANSWER.as_secs());
        };
        let lines = process.last_lines();
        let no_such_place = death.exit == (ProcessExit::Exited { code: NO_SUCH_PLACE });
        if place != Where::Plainly && no_such_place {
            let why = lines.last().map_or("", String::as_str);
            reporter.note(&format!("the tool is asked on the machine where it signed in: {why}"));
            return Ok(None);
        }
        Ok(Some(lines))
    }

    fn command(&self, place: Where, words: &[String], home: &Path) -> Result<Command> {
        let room = self.room;
        let [program, arguments @ ..] = words else { bail!("it names no program") };
        match place {
            Where::Elsewhere => Place::elsewhere(home, &room.runtime, words, room)?.command(room),
            Where::Here => Place::here(home, words, room).command(room),
            Where::Plainly => {
                let mut command = room.command(program);
                command.args(arguments).env("HOME", home).current_dir(home);
                command.env("XDG_RUNTIME_DIR", home.join(RUNTIME));
                Ok(command)
            }
        }
    }
}

/// The secrets of the keyring among what a bundle has.
fn secrets(files: &[BundledFile]) -> Vec<KeyringItem> {
    let entries = files.iter().filter(|file| is_keyring_entry(&file.path));
    entries.filter_map(|file| serde_json::from_slice(&file.content).ok()).collect()
}

/// A home with these files and nothing else.
fn make_home(files: &[BundledFile], room: &Room) -> Result<Home> {
    let home = Home(room.runtime.join("status-home"));
    make_folder(&home.0, room)?;
    for file in files.iter().filter(|file| !is_keyring_entry(&file.path)) {
        let path = home.0.join(&file.path);
        let folders: Vec<&Path> =
            path.ancestors().skip(1).take_while(|folder| **folder != home.0).collect();
        for folder in folders.into_iter().rev() {
            make_folder(folder, room)?;
        }
        std::fs::write(&path, &file.content)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(file.mode))?;
        room.give_to_person(&path)?;
    }
    Ok(home)
}

fn make_folder(path: &Path, room: &Room) -> Result<()> {
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    Ok(room.give_to_person(path)?)
}
