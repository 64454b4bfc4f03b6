//! API keys: where they are shown, and what one that was revoked, or is no admin's, still opens.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::meaning::{closes, refused_with};
use super::{Outcome, Tries};
use anteroom_testkit::SILENT;
use anteroom_testkit::raw::{self, Answer, ask};

use crate::server::Server;

/// How soon what a revoked key opened is closed.
const SOON: Duration = Duration::from_secs(1);

/// Makes the attacks.
pub fn attack(anteroom: &Path, tries: &mut Tries) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("xtask-doors-").tempdir()?;
    let mut server = Server::with_fake_guest(anteroom, folder.path(), SILENT)?;
    let host = raw::host(server.url()).to_owned();
    let state = folder.path().join("state");
    let keys = |arguments: &[&str]| -> Result<Value> {
        let mut command = Command::new(anteroom);
        command.arg("keys").args(arguments).args(["--json", "--state-dir"]).arg(&state);
        let output = command.output().context("running anteroom keys failed")?;
        if !output.status.success() {
            bail!("anteroom keys: {}", String::from_utf8_lossy(&output.stderr));
        }
        serde_json::from_slice(&output.stdout).context("anteroom keys printed no JSON")
    };
    let first = std::fs::read_to_string(state.join("first-key.txt"))
        .context("there is no file with the first key")?;
    let (log, first) = (std::fs::read(folder.path().join("serve.log"))?, first.trim());
    tries.record("the first key in the journal", not_in(&log, first));

    let made = keys(&["add", "service"])?;
    let key = made["key"].as_str().context("no key was made")?.to_owned();
    as_no_admin(&host, &key, tries)?;
    for name in ["anteroom.db", "anteroom.db-wal"] {
        let bytes = std::fs::read(state.join(name))?;
        tries.record(&format!("a key in {name}"), not_in(&bytes, &key));
    }
    let listed = keys(&["list"])?.to_string();
    tries.record("a key in the list of keys", not_in(listed.as_bytes(), &key));

    let session = server.begin(&json!({ "provider": "demo" }))?;
    let path = format!("/api/auth/session/{}/events", session.id);
    let (_, events) = raw::open(&host, &path, &bearer(&key))?;
    let rotated = keys(&["rotate", "service"])?;
    tries.record("events by a key that was made anew", closes(events, Instant::now(), SOON)?);
    tries.record("a key that was made anew", refused_with(&with(&host, &key)?, &[401]));
    let key = rotated["key"].as_str().context("no key was made anew")?.to_owned();
    let (_, events) = raw::open(&host, &path, &bearer(&key))?;
    keys(&["revoke", "service"])?;
    tries.record("events by a revoked key", closes(events, Instant::now(), SOON)?);
    tries.record("a revoked key", refused_with(&with(&host, &key)?, &[401]));
    keys(&["revoke", "first"])?;
    tries.record("the first key, revoked", refused_with(&with(&host, first)?, &[401]));
    server.cancel(&session.id)?;
    server.wait_until_torn_down(&session.id, Duration::from_secs(60))?;
    server.stop()
}

/// What only an admin's key may.
fn as_no_admin(host: &str, key: &str, tries: &mut Tries) -> Result<()> {
    for (what, method, path, body) in [
        ("listing keys", "GET", "/api/keys", ""),
        ("making an admin's key", "POST", "/api/keys", r#"{"name":"x","role":"admin"}"#),
        ("making a key anew", "POST", "/api/keys/cli/rotate", ""),
        ("revoking a key", "DELETE", "/api/keys/first", ""),
    ] {
        let answer = ask(host, method, path, &bearer(key), body)?;
        tries.record(&format!("{what} with a caller's key"), refused_with(&answer, &[403]));
        let answer = ask(host, method, path, "", body)?;
        tries.record(&format!("{what} without a key"), refused_with(&answer, &[401]));
    }
    Ok(())
}

fn with(host: &str, key: &str) -> Result<Answer> {
    ask(host, "GET", "/api/sessions", &bearer(key), "")
}

fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}\r\n")
}

fn not_in(bytes: &[u8], key: &str) -> Outcome {
    if bytes.windows(key.len()).any(|part| part == key.as_bytes()) {
        return Outcome::Passed("it is there".to_owned());
    }
    Outcome::Refused
}
