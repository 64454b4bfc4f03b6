//! The person, played by headless Chromium: `demo/person/person.mjs`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Options, provider, server::Started};
use crate::shell;

/// When the person saw what, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// The first decoded frame of the desktop.
    pub first_frame: Option<u64>,
    /// The first decoded frame that shows the sign-in page.
    pub ready: Option<u64>,
}

/// Has the person sign in.
pub fn play(options: &Options, session: &Started) -> Result<Seen> {
    let mut command = Command::new("node");
    command
        .arg(shell::root().join("demo/person/person.mjs"))
        .args(["--viewer-url", &session.viewer_url])
        .args(["--email", provider::USER, "--password", provider::PASSWORD])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    if options.wrong_password_first {
        command.arg("--wrong-password-first");
    }
    if let Some(folder) = &options.screenshots {
        command.arg("--screenshots").arg(folder);
    }
    let mut child = command.spawn().context("starting the person failed")?;
    let stdout = child.stdout.take().context("the person has no output")?;
    let mut seen = Seen::default();
    let mut last = String::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("listening to the person failed")?;
        eprintln!("  person: {line}");
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        let at = event["at_ms"].as_u64();
        match event["event"].as_str() {
            Some("first_frame") => seen.first_frame = seen.first_frame.or(at),
            Some("ready") => seen.ready = seen.ready.or(at),
            _ => {}
        }
        last = line;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("the person could not sign in: {last}");
    }
    Ok(seen)
}
