//! Files that somebody else prepared, and folders that somebody else may change: no key goes there.

use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Outcome, Tries};

/// Somebody else.
const NOBODY: u32 = 65534;

/// How long a start, or its refusal, may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes the attacks.
pub fn attack(anteroom: &Path, tries: &mut Tries) -> Result<()> {
    prepared(anteroom, tries)?;
    opened(anteroom, tries)?;
    injected(anteroom, tries)
}

fn folder() -> Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("xtask-doors-").tempdir().context("making a folder failed")
}

fn mode(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
        .with_context(|| format!("setting the mode of {} failed", path.display()))
}

/// Starts `serve` on `folder`/state; it writes the file `ready` when it is ready.
fn serve(anteroom: &Path, folder: &Path, ready: &Path, embedded: bool) -> Result<Child> {
    let mut command = Command::new(anteroom);
    command.args(["serve", "--driver", "host", "--listen", "127.0.0.1:0", "--state-dir"]);
    command.arg(folder.join("state")).arg("--ready-file").arg(ready);
    command.env("XDG_CACHE_HOME", folder.join("cache"));
    if !embedded {
        command.args(["--agent", "/bin/true"]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().context("starting the controller failed")
}

/// Whether it is refused: it ends by itself and badly. One that is ready is ended.
fn is_refused(mut child: Child, ready: &Path) -> Result<bool> {
    let began = Instant::now();
    let refused = loop {
        if let Some(status) = child.try_wait()? {
            return Ok(!status.success());
        }
        if std::fs::metadata(ready).is_ok_and(|file| file.len() > 0) {
            break false;
        }
        if began.elapsed() > PATIENCE {
            child.kill()?;
            bail!("the controller was neither ready nor refused");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    child.kill()?;
    child.wait()?;
    Ok(refused)
}

fn outcome(refused: bool, seen: &str) -> Outcome {
    if refused { Outcome::Refused } else { Outcome::Passed(seen.to_owned()) }
}

/// The ready file's path, and names beside it, as somebody else left them.
fn prepared(anteroom: &Path, tries: &mut Tries) -> Result<()> {
    let folder = folder()?;
    let folder = folder.path();
    let (ready, theirs) = (folder.join("ready.json"), folder.join("theirs"));
    for (what, target) in
        [("a file of theirs", &theirs), ("a file not there yet", &folder.join("new"))]
    {
        std::fs::write(&theirs, "")?;
        symlink(target, &ready)?;
        let _ = is_refused(serve(anteroom, folder, &ready, false)?, &ready)?;
        let got = std::fs::read_to_string(target).unwrap_or_default();
        let attack = format!("--ready-file that is a link to {what}");
        tries.record(&attack, outcome(!got.contains("ak_"), "it got the key"));
        std::fs::remove_file(&ready)?;
    }
    for (name, link) in [("ready.new", "ready.new"), ("state/cli.new", "cli.new")] {
        std::fs::write(&theirs, "")?;
        symlink(&theirs, folder.join(name))?;
        let _ = is_refused(serve(anteroom, folder, &ready, false)?, &ready)?;
        let got = std::fs::read_to_string(&theirs)?;
        let attack = format!("a link {link} beside what is written");
        tries.record(&attack, outcome(!got.contains("ak_"), "it got the key"));
        let _ = std::fs::remove_file(folder.join(name));
        let _ = std::fs::remove_file(&ready);
    }
    // One that is there, open to all and held open.
    std::fs::write(&ready, "")?;
    mode(&ready, 0o666)?;
    let held = std::fs::File::open(&ready)?;
    let refused = is_refused(serve(anteroom, folder, &ready, false)?, &ready)?;
    let mut seen = String::new();
    std::io::Read::read_to_string(&mut &held, &mut seen)?;
    tries.record(
        "--ready-file that is held open by others",
        outcome(seen.is_empty(), "it got the key"),
    );
    tries.record("--ready-file that is open to all", outcome(refused, "it was replaced"));
    Ok(())
}

/// State folders that others may read or change.
fn opened(anteroom: &Path, tries: &mut Tries) -> Result<()> {
    let folder = folder()?;
    let (folder, ready) = (folder.path(), folder.path().join("ready.json"));
    if is_refused(serve(anteroom, folder, &ready, false)?, &ready)? {
        bail!("a new state folder was refused");
    }
    let state = folder.join("state");
    let attempt = |what: &str, tries: &mut Tries| -> Result<()> {
        let _ = std::fs::remove_file(&ready);
        let refused = is_refused(serve(anteroom, folder, &ready, false)?, &ready)?;
        tries.record(what, outcome(refused, "it was used"));
        Ok(())
    };
    for (name, open, closed) in [
        (".", 0o777, 0o700),
        (".", 0o1777, 0o700),
        (".", 0o770, 0o700),
        ("anteroom.db", 0o644, 0o600),
        ("cli.json", 0o640, 0o600),
        ("first-key.txt", 0o644, 0o600),
        ("vault", 0o755, 0o700),
        ("vault/identity.txt", 0o444, 0o400),
    ] {
        let path = state.join(name);
        mode(&path, open)?;
        attempt(&format!("a state with {name} of mode {open:04o}"), tries)?;
        mode(&path, closed)?;
    }
    for name in [".", "anteroom.db", "vault", "vault/identity.txt", "cli.json"] {
        let path = state.join(name);
        chown(&path, Some(NOBODY), None)?;
        attempt(&format!("a state with {name} of somebody else's"), tries)?;
        chown(&path, Some(0), None)?;
    }
    for name in ["anteroom.db", "vault/identity.txt", "cli.json"] {
        let (path, away) = (state.join(name), folder.join("away"));
        std::fs::rename(&path, &away)?;
        symlink(&away, &path)?;
        attempt(&format!("a state with {name} that is a link"), tries)?;
        std::fs::remove_file(&path)?;
        std::fs::rename(&away, &path)?;
        std::fs::hard_link(&path, &away)?;
        attempt(&format!("a state with {name} that has a second name"), tries)?;
        std::fs::remove_file(&away)?;
    }
    mode(folder, 0o777)?;
    attempt("a state in a folder where anybody can replace it", tries)?;
    mode(folder, 0o770)?;
    chown(folder, None, Some(NOBODY))?;
    attempt("a state in a folder where a group can replace it", tries)?;
    chown(folder, None, Some(0))?;
    mode(folder, 0o700)?;
    chown(folder, Some(NOBODY), None)?;
    attempt("a state in a folder of somebody else's", tries)?;
    chown(folder, Some(0), None)?;
    let aside = folder.join("aside");
    std::fs::rename(&state, &aside)?;
    symlink(&aside, &state)?;
    lchown(&state, Some(NOBODY), None)?;
    attempt("a state by a link of somebody else's", tries)?;
    std::fs::remove_file(&state)?;
    std::fs::rename(&aside, &state).context("putting the state back failed")
}

/// The agent as somebody else left it in the cache, under its right name.
fn injected(anteroom: &Path, tries: &mut Tries) -> Result<()> {
    let folder = folder()?;
    let (folder, ready) = (folder.path(), folder.path().join("ready.json"));
    if is_refused(serve(anteroom, folder, &ready, true)?, &ready)? {
        bail!("an empty cache folder was refused");
    }
    let cache = folder.join("cache/anteroom");
    let agent = std::fs::read_dir(&cache)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains("agent-"))
        .context("no agent was unpacked")?;
    for (what, owner) in [("of ours", 0), ("of somebody else's", NOBODY)] {
        std::fs::remove_file(&agent)?;
        std::fs::write(&agent, "#!/bin/sh\n")?;
        mode(&agent, 0o755)?;
        chown(&agent, Some(owner), None)?;
        let _ = std::fs::remove_file(&ready);
        let _ = is_refused(serve(anteroom, folder, &ready, true)?, &ready)?;
        let replaced = std::fs::metadata(&agent)?.len() > 100;
        tries.record(
            &format!("an agent replaced by a file {what}"),
            outcome(replaced, "it was kept"),
        );
    }
    mode(&cache, 0o777)?;
    let _ = std::fs::remove_file(&ready);
    let refused = is_refused(serve(anteroom, folder, &ready, true)?, &ready)?;
    tries.record("a cache folder that anybody can write to", outcome(refused, "it was used"));
    Ok(())
}
