//! The `host` driver: what a call injects stays in the sandbox's home.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{Outcome, Tries};
use crate::provider::OpenIdProvider;
use crate::server::Server;

/// How long a session may take to take its files, or to refuse them.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the attacks.
pub fn attack(anteroom: &Path, tries: &mut Tries) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("xtask-doors-").tempdir()?;
    // Anybody may write there: that it is not written is not the file system's doing.
    let open = tempfile::Builder::new().prefix("xtask-doors-open-").tempdir()?;
    for path in [folder.path(), open.path()] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o1777))?;
    }
    let mut provider = OpenIdProvider::start(folder.path())?;
    let mut server = Server::start(anteroom, folder.path(), &provider, "host", &[])?;
    let target = open.path().join("injected");
    let below = target.strip_prefix("/")?.display().to_string();
    let paths = [
        target.display().to_string(),
        format!("~/../../../../../../{below}"),
        format!("~/x/../../../../../../{below}"),
        format!("/proc/self/root/{below}"),
        format!("//{below}"),
    ];
    for path in paths {
        for owner in ["person", "root"] {
            let outcome = inject(&server, &path, owner, &target)?;
            tries.record(&format!("a file of {owner} injected at {path}"), outcome);
        }
    }
    server.stop()?;
    provider.stop()?;
    Ok(())
}

/// By a whole session, where the call is not refused at once.
fn inject(server: &Server, path: &str, owner: &str, target: &PathBuf) -> Result<Outcome> {
    let file = json!({ "path": path, "content": "x", "mode": 0o644, "owner": owner });
    let body = json!({ "provider": "demo", "files": [file] });
    if let Ok(session) = server.begin(&body) {
        server.wait_until(&session.id, PATIENCE, "taken its files or ended", |status| {
            let entries = status["timeline"].as_array().map(Vec::as_slice).unwrap_or_default();
            let is_injected = entries.iter().any(|entry| entry["kind"] == "files_injected");
            is_injected || status["state"] == "ended"
        })?;
        server.cancel(&session.id)?;
        server.wait_until_torn_down(&session.id, PATIENCE)?;
    }
    if target.exists() {
        std::fs::remove_file(target)?;
        return Ok(Outcome::Passed(format!("{} was written", target.display())));
    }
    Ok(Outcome::Refused)
}
