//! Whole sign-ins as tests: one by each driver, noVNC on a desktop, one over a company's own host, and one
//! behind each TLS proxy.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use xtask::shell;

use crate::company;
use crate::demo::{Options, sign_in};
use crate::front::Proxy;
use crate::provider::OpenIdProvider;
use crate::server::Server;

/// All of them, one after the other.
pub fn run(anteroom: &Path) -> Result<()> {
    for driver in ["host", "qemu"] {
        check(anteroom, driver)?;
    }
    check_vnc(anteroom)?;
    check_company(anteroom)?;
    for proxy in Proxy::ALL {
        check_behind(anteroom, proxy)?;
    }
    Ok(())
}

/// One sign-in with the end user played, who types a wrong password first and closes the tab once;
/// fails unless all is as it should be.
fn check(anteroom: &Path, driver: &str) -> Result<()> {
    eprintln!("One sign-in with the {driver} driver …");
    let options =
        Options { wrong_password_first: true, close_tab_once: true, ..Options::auto(driver) };
    check_sign_in(&options, anteroom)
        .with_context(|| format!("the sign-in with the {driver} driver did not end as it should"))
}

/// noVNC on a session's desktop.
fn check_vnc(anteroom: &Path) -> Result<()> {
    eprintln!("noVNC on a desktop …");
    let folder = tempfile::Builder::new().prefix("xtask-demo-").tempdir()?;
    let provider = OpenIdProvider::start(folder.path())?;
    let mut server = Server::start(anteroom, folder.path(), &provider, "host", &[])?;
    let session = server.start_session_without_recipient()?;
    let status = server.wait_until(
        &session.id,
        Duration::from_secs(120),
        "come to the end user",
        |view| view["state"] == "awaiting_user" || view["state"] == "ended",
    )?;
    if status["state"] == "ended" {
        bail!("the session ended before its end user's turn: {status}");
    }
    let mut novnc = Command::new("node");
    novnc.arg(shell::root().join("demo/end-user/novnc.mjs"));
    novnc.args(["--viewer-url", &session.viewer_url, "--session", &session.id]);
    let seen = novnc.output().context("starting noVNC failed")?;
    println!("{}", String::from_utf8_lossy(&seen.stdout).trim());
    server.cancel(&session.id)?;
    server.wait_until_torn_down(&session.id, Duration::from_secs(60))?;
    server.stop()?;
    if !seen.status.success() {
        bail!("noVNC did not show the desktop");
    }
    Ok(())
}

/// One sign-in that leads over a company's own host, which the operator allows meanwhile.
fn check_company(anteroom: &Path) -> Result<()> {
    eprintln!("One sign-in over a company's own host …");
    let left = company::sign_in(anteroom, "host")?;
    anyhow::ensure!(left.is_empty(), "left over: {}", left.join("; "));
    Ok(())
}

/// One sign-in by an end user elsewhere, who comes through a TLS proxy.
fn check_behind(anteroom: &Path, proxy: Proxy) -> Result<()> {
    eprintln!("One sign-in behind {proxy} …");
    let options = Options { behind: Some(proxy), close_tab_once: true, ..Options::auto("host") };
    check_sign_in(&options, anteroom)
        .with_context(|| format!("the sign-in behind {proxy} did not end as it should"))
}

fn check_sign_in(options: &Options, anteroom: &Path) -> Result<()> {
    let outcome = sign_in(options, anteroom, 0)?;
    println!("{}", outcome.json());
    if !outcome.ok() {
        bail!("{}", outcome.problem());
    }
    Ok(())
}
