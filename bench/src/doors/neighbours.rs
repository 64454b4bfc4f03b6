//! Sessions beside one another, and a process of somebody else's: none reads, signals or traces another.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anteroom_confine::{SessionUser, processes_of};
use anyhow::{Context, Result, bail};

use super::{Outcome, Tries};
use anteroom_testkit::SILENT;

use crate::server::Server;
use xtask::shell;

/// Somebody else.
const NOBODY: u64 = 65534;

/// What the script tries of each process.
const ATTEMPTS: [&str; 8] = [
    "memory",
    "memory across",
    "environment",
    "addresses",
    "descriptors",
    "files",
    "trace",
    "signal",
];

/// How long a session may take to be confined.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the attacks. Only root is every user.
pub fn attack(anteroom: &Path, tries: &mut Tries) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("  skipped: only root can try as other users");
        return Ok(());
    }
    let folder = tempfile::Builder::new().prefix("xtask-doors-").tempdir()?;
    let mut server = Server::with_fake_guest(anteroom, folder.path(), SILENT)?;
    let sessions = [(); 2].map(|()| server.start_session_without_recipient());
    let mut held = Vec::new();
    for session in sessions {
        let id = session?.id;
        let status = server.wait_until(&id, PATIENCE, "been confined", |status| {
            !status["confinement"].is_null() || status["state"] == "ended"
        })?;
        let user = status["confinement"]["runner"]["uid"].as_u64();
        let user = user.with_context(|| format!("the session ended: {}", status["reason"]))?;
        held.push((user, processes(user)?));
    }
    for (attacker, what) in
        [(held[0].0, "the first session"), (held[1].0, "the second session"), (NOBODY, "nobody")]
    {
        for (user, pids) in &held {
            if *user != attacker {
                try_all(attacker, what, pids, tries)?;
            }
        }
    }
    server.stop()
}

/// The runner and the sandbox of a session.
fn processes(user: u64) -> Result<Vec<String>> {
    let user = SessionUser::try_from(u32::try_from(user)?)?;
    let pids = processes_of(user);
    if pids.len() < 2 {
        bail!("of user {user} there are {} processes, not a runner and a sandbox", pids.len());
    }
    Ok(pids.iter().map(ToString::to_string).collect())
}

fn try_all(attacker: u64, what: &str, pids: &[String], tries: &mut Tries) -> Result<()> {
    let mut python = Command::new("python3");
    python.arg(shell::root().join("bench/attacks/neighbours.py"));
    let output = python.args([&attacker.to_string(), "all"]).args(pids).output()?;
    let succeeded: Vec<String> = serde_json::from_slice(&output.stdout).with_context(|| {
        format!("the attack itself failed: {}", String::from_utf8_lossy(&output.stderr))
    })?;
    for pid in pids {
        for attempt in ATTEMPTS {
            let outcome = if succeeded.contains(&format!("{attempt} of {pid}")) {
                Outcome::Passed("it succeeded".to_owned())
            } else {
                Outcome::Refused
            };
            tries.record(&format!("{attempt} of a process of another session, by {what}"), outcome);
        }
    }
    Ok(())
}
