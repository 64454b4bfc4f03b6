//! The end user, played by headless Chromium: `demo/end-user/end-user.mjs`.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::api::Started;

/// Who they are to the mock identity provider.
pub const USER: &str = "ada@example.com";
/// Their password there.
pub const PASSWORD: &str = "correct horse";

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/end-user/end-user.mjs");

const NOT_STARTED: &str = "starting the end user failed";

/// What the end user does beside signing in.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Types a wrong password first.
    pub wrong_password_first: bool,
    /// Closes the tab and comes back.
    pub close_tab_once: bool,
    /// Loads the page again when the page asks for it.
    pub reload_when_asked: bool,
    /// Leaves the desktop alone for so many seconds.
    pub idle_seconds: u64,
    /// How long to wait for the sign-in page, in seconds; 0 for the end user's own patience.
    pub patience_seconds: u64,
    /// Where screenshots go.
    pub screenshots: Option<PathBuf>,
    /// How to find what no resolver knows and no authority vouches for.
    pub directions: Option<Directions>,
}

/// What the end user's browser knows beforehand.
#[derive(Clone, Debug)]
pub struct Directions {
    /// A name that is this machine.
    pub name: String,
    /// A home folder whose store of certificates has one more authority.
    pub home: PathBuf,
}

/// When the end user saw what, in milliseconds since the Unix epoch.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The first decoded frame of the desktop.
    pub first_frame: Option<u64>,
    /// The first decoded frame that shows the sign-in page.
    pub ready: Option<u64>,
    /// Frames that came while the desktop was left alone.
    pub idle_frames: Option<u64>,
    /// By which way the browser came to the desktop.
    pub way: Option<Way>,
}

/// What the browser says of its connection.
#[derive(Clone, Debug)]
pub struct Way {
    /// The candidate that the picture comes from, as in its statistics.
    pub media: Value,
    /// The cookie, without its value.
    pub cookie: Value,
}

/// An end user whose browser is open already, so that its start is no part of what is measured.
pub struct Waiting(Child);

impl Waiting {
    /// Opens the browser, and waits until it is.
    ///
    /// # Errors
    /// When it does not open.
    pub fn new(plan: &Plan) -> Result<Self> {
        let mut child = command(plan, "-").stdin(Stdio::piped()).spawn().context(NOT_STARTED)?;
        // Unbuffered: what follows is read by another.
        let stdout = child.stdout.as_mut().context("the end user has no output")?;
        let mut line = Vec::new();
        let mut byte = [0];
        while byte != *b"\n" {
            stdout.read_exact(&mut byte).context("the end user's browser did not open")?;
            line.push(byte[0]);
        }
        Ok(Self(child))
    }

    /// Has them sign in, as [`play_quietly`] does.
    ///
    /// # Errors
    /// When they cannot.
    pub fn play(mut self, session: &Started) -> Result<Seen> {
        let mut stdin = self.0.stdin.take().context("the end user has no input")?;
        writeln!(stdin, "{}", session.viewer_url).context("giving the end user the link failed")?;
        heard(self.0, |_, _| ())
    }
}

/// Has the end user sign in; `on_event` hears each event's name when it happens.
pub fn play(plan: &Plan, session: &Started, mut on_event: impl FnMut(&str)) -> Result<Seen> {
    hear(plan, session, |name, line| {
        eprintln!("  end user: {line}");
        on_event(name);
    })
}

/// The same without a word.
pub fn play_quietly(plan: &Plan, session: &Started) -> Result<Seen> {
    hear(plan, session, |_, _| ())
}

fn hear(plan: &Plan, session: &Started, on_line: impl FnMut(&str, &str)) -> Result<Seen> {
    heard(command(plan, &session.viewer_url).spawn().context(NOT_STARTED)?, on_line)
}

fn command(plan: &Plan, viewer_url: &str) -> Command {
    let mut command = Command::new("node");
    command
        .arg(PROGRAM)
        .args(["--viewer-url", viewer_url])
        .args(["--email", USER, "--password", PASSWORD])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    if plan.wrong_password_first {
        command.arg("--wrong-password-first");
    }
    if plan.close_tab_once {
        command.arg("--close-tab-once");
    }
    if plan.reload_when_asked {
        command.arg("--reload-when-asked");
    }
    if plan.idle_seconds > 0 {
        command.arg("--idle-seconds").arg(plan.idle_seconds.to_string());
    }
    if plan.patience_seconds > 0 {
        command.arg("--timeout").arg(plan.patience_seconds.to_string());
    }
    if let Some(directions) = &plan.directions {
        command.args(["--name-of-this-machine", &directions.name]);
        command.env("HOME", &directions.home);
    }
    if let Some(folder) = &plan.screenshots {
        command.arg("--screenshots").arg(folder);
    }
    command
}

/// Listens to the end of what they do.
fn heard(mut child: Child, mut on_line: impl FnMut(&str, &str)) -> Result<Seen> {
    let stdout = child.stdout.take().context("the end user has no output")?;
    let mut seen = Seen::default();
    let mut last = String::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("listening to the end user failed")?;
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        let at = event["at_ms"].as_u64();
        let name = event["event"].as_str().unwrap_or_default();
        match name {
            "first_frame" => seen.first_frame = seen.first_frame.or(at),
            "ready" => seen.ready = seen.ready.or(at),
            "way" => {
                let (media, cookie) = (event["media"].clone(), event["cookie"].clone());
                seen.way = Some(Way { media, cookie });
            }
            "idle_ends" => seen.idle_frames = event["frames"].as_u64(),
            _ => {}
        }
        on_line(name, &line);
        last = line;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("the end user could not sign in: {last}");
    }
    Ok(seen)
}
