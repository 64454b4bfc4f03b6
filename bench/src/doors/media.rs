//! The port that all viewers' media goes through: what a hostile viewer, or a runner that was taken over,
//! does to another session's picture.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::links::WAITS;
use super::{Outcome, Tries};
use anteroom_testkit::link::Visitor;
use anteroom_testkit::raw;

use crate::server::Server;
use xtask::shell;

/// How long a session may take to have a picture.
const PATIENCE: Duration = Duration::from_secs(120);

/// Makes the attacks, two sessions beside each other. Only root can copy a runner's sockets.
pub fn attack(anteroom: &Path, tries: &mut Tries) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("  skipped: only root can do as a runner that was taken over does");
        return Ok(());
    }
    let folder = tempfile::Builder::new().prefix("xtask-doors-").tempdir()?;
    let mut server = Server::start_with(anteroom, folder.path(), WAITS, "host", &[])?;
    let host = raw::host(server.url()).to_owned();
    let mut viewers = Vec::new();
    for _ in 0..2 {
        let started = server.begin(&json!({ "provider": "demo" }))?;
        let visitor = Visitor::by(&host, &started.id, &started.viewer_url)?;
        viewers.push((started.id, visitor));
    }
    for (id, _) in &viewers {
        server.wait_until(id, PATIENCE, "come to the end user's turn", |status| {
            status["state"] == "awaiting_user"
        })?;
    }
    let [(end_user, of_end_user), (hostile, of_hostile)] = &viewers[..] else {
        bail!("two sessions")
    };
    let state = folder.path().join("state");
    let keys = |arguments: &[&str]| -> Vec<String> {
        let (anteroom, state) = (anteroom.display().to_string(), state.display().to_string());
        let rest = ["--json", "--state-dir", &state];
        let command = [&anteroom, "keys"].into_iter();
        command.chain(arguments.iter().copied()).chain(rest).map(str::to_owned).collect()
    };
    let add = keys(&["add", "caller"]);
    let added = shell::output(Command::new(&add[0]).args(&add[1..]))?;
    let added: Value = serde_json::from_str(&added).context("anteroom keys printed no JSON")?;
    let plan = json!({
        "host": host,
        "person": { "session": end_user, "cookie": of_end_user.cookie },
        "hostile": { "session": hostile, "cookie": of_hostile.cookie },
        "caller": { "session": end_user, "key": added["key"], "revoke": keys(&["revoke", "caller"]) },
        "runner": runner_of(hostile)?,
    });
    for (attack, seen) in made(&plan)? {
        let outcome = match seen {
            None => Outcome::Refused,
            Some(seen) => Outcome::Passed(seen),
        };
        tries.record(&attack, outcome);
    }
    for (id, _) in &viewers {
        server.cancel(id)?;
        server.wait_until_torn_down(id, Duration::from_secs(60))?;
    }
    server.stop()
}

/// What each attack got, if anything.
fn made(plan: &Value) -> Result<BTreeMap<String, Option<String>>> {
    let mut python = Command::new("python3")
        .arg(shell::root().join("bench/attacks/media.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("running python3 failed")?;
    let mut stdin = python.stdin.take().context("the attack has no input")?;
    stdin.write_all(plan.to_string().as_bytes())?;
    drop(stdin);
    let output = python.wait_with_output()?;
    serde_json::from_slice(&output.stdout).with_context(|| {
        format!("the attack itself failed: {}", String::from_utf8_lossy(&output.stderr))
    })
}

/// The process `anteroom session` of a session, by the mark that it has in its environment.
fn runner_of(session: &str) -> Result<u32> {
    let mark = format!("ANTEROOM_SANDBOX={session}");
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let is_marked = read("environ").split(|byte| *byte == 0).any(|one| one == mark.as_bytes());
        if is_marked && read("cmdline") == b"anteroom\0session\0" {
            return Ok(pid);
        }
    }
    bail!("no runner of session {session} was found in /proc")
}
