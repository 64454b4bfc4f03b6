//! The API against its own OpenAPI document, by Schemathesis: no server errors, no answers that the
//! document does not have.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use xtask::shell;

use anteroom_testkit::SILENT;

use crate::server::Server;

/// From PyPI, into a folder of ours.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// How long each of the two parts may take, in seconds.
const PART_SECONDS: u32 = 40;

/// Holds the API to its document.
pub fn check(anteroom: &Path) -> Result<()> {
    eprintln!("The API against its OpenAPI document …");
    let schemathesis = install()?;
    let folder = tempfile::Builder::new().prefix("xtask-contract-").tempdir()?;
    let mut server = Server::with_fake_guest(anteroom, folder.path(), SILENT)?;
    let live = server.start_session_without_recipient()?;
    std::fs::write(
        folder.path().join("live.toml"),
        format!("[parameters]\n\"path.id\" = \"{}\"\n", live.id),
    )?;
    std::fs::write(folder.path().join("any.toml"), "")?;
    let run = |config: &str, arguments: &[&str]| {
        let mut command = Command::new(&schemathesis);
        command
            .current_dir(folder.path())
            .arg("--no-color")
            .arg("--config-file")
            .arg(folder.path().join(config))
            .args(["run", &format!("{}/openapi.json", server.url())])
            .args(["--header", &format!("Authorization: Bearer {}", server.key())])
            .args(["--max-examples", "15", "--seed", "1", "--continue-on-failure"])
            .args(["--max-time", &PART_SECONDS.to_string(), "--warnings", "off"])
            // Some rules are not to be said in JSON Schema: which providers there are, what is a path.
            // A wrong cookie beside the right key is no wrong authentication. An ended session stays to
            // be asked why.
            .args(["--exclude-checks", "positive_data_acceptance,ignored_auth,use_after_free"])
            .args(arguments);
        shell::run(&mut command)
    };
    // A session that is there, without what ends it; then anything.
    run(
        "live.toml",
        &[
            "--phases",
            "coverage,fuzzing",
            "--exclude-method",
            "DELETE",
            "--exclude-path-regex",
            "cancel$",
        ],
    )?;
    run("any.toml", &[])?;
    server.stop()
}

fn install() -> Result<PathBuf> {
    let folder = shell::root().join("target/schemathesis");
    let program = folder.join("bin/schemathesis");
    let stamp = folder.join("installed");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == SCHEMATHESIS) {
        return Ok(program);
    }
    shell::output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    let pip = folder.join("bin/pip");
    shell::output(Command::new(pip).args(["install", "--quiet", SCHEMATHESIS]))?;
    std::fs::write(stamp, SCHEMATHESIS)?;
    Ok(program)
}
