//! Whole sign-ins as tests: one by each driver, noVNC on a desktop, one over a company's own host, one
//! behind each TLS proxy, and one from a template.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anteroom_testkit::{SteppedClock, end_user};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use xtask::{build, shell};

use crate::demo::{Options, TTL_SECONDS, sign_in};
use crate::front::Proxy;
use crate::identity::new_identity;
use crate::provider::{OpenIdProvider, provider_file};
use crate::server::Server;
use crate::template::{Template, killed_snapshot, until_loaded};
use crate::{clones, company, leftovers, pool};

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
    run_warm(anteroom)
}

/// A processor without RDRAND: where it has one, a library that drew a number before its VM was cloned mixes
/// in others all the same.
const WITHOUT_RDRAND: [&str; 3] = ["--cpu", "x86-64-v2", "--allow-unverified-images"];

/// Clones that are compared, each with all others: 21 pairs.
const CLONES: usize = 7;

/// By so many seconds the host's clock is off when a template is made, and so is its guest's. The one is 30 days
/// old; the other is ahead of the host, so that each of its clones is set back.
const MONTH_OLD: i64 = -30 * 24 * 3600;
const AHEAD: i64 = 5 * 60;

/// One sign-in from a template, clones that wait, and what clones draw.
pub fn run_warm(anteroom: &Path) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("xtask-demo-").tempdir()?;
    let mut provider = OpenIdProvider::start(folder.path())?;
    let (authority, file) = (provider.authority_pem.clone(), provider_file(&provider)?);
    let clock = SteppedClock::right(folder.path())?;
    let made = |off| {
        clock.step_to(off)?;
        let clock = clock.environment();
        Template::make_in(&clock, anteroom, folder.path(), &WITHOUT_RDRAND, &authority)
    };
    eprintln!("One sign-in from a template that is 30 days old …");
    let (image, before) = (build::golden_image(anteroom, false)?.dir, leftovers::Before::look());
    let killed = killed_snapshot(anteroom, folder.path(), &image, &WITHOUT_RDRAND)?;
    let template = made(MONTH_OLD)?;
    let left = leftovers::of_session(&killed, folder.path(), &before)?;
    ensure!(left.is_empty(), "of a snapshot that was killed is left: {}", left.join("; "));
    sign_in_from(&template, anteroom, folder.path(), &file)?;
    ensure!(provider.stop()?.online == Some(true), "the guest's browser takes itself for offline");
    eprintln!("Clones that wait …");
    pool::check(anteroom, folder.path(), &template, &file, &WITHOUT_RDRAND)?;
    // The next one has its id.
    drop(template);
    eprintln!("Clones of a template whose clock is ahead …");
    let template = made(AHEAD)?;
    clones::compare(anteroom, folder.path(), &template, &WITHOUT_RDRAND, &authority, CLONES)
}

/// A whole sign-in; the provider's certificate is of today, and the guest's browser judges it.
fn sign_in_from(template: &Template, anteroom: &Path, folder: &Path, file: &str) -> Result<()> {
    let served = folder.join("warm");
    let mut server = template.serve(anteroom, &served, file, &WITHOUT_RDRAND)?;
    until_loaded(&server)?;
    let identity = new_identity(folder)?;
    let session = server.start_session(&identity.recipient, TTL_SECONDS)?;
    let played = end_user::play_quietly(&end_user::Plan::default(), &session);
    let status = server.wait_until_torn_down(&session.id, Duration::from_secs(120))?;
    server.stop()?;
    played?;
    let started = when_started(&status);
    ensure!(started.contains(&template.id), "the VM was booted: {started}");
    ensure!(status["reason"]["code"] == "completed", "{}", status["reason"]["message"]);
    Ok(())
}

/// What the timeline says of the sandbox's start.
fn when_started(status: &Value) -> String {
    let entries = status["timeline"].as_array().into_iter().flatten();
    let started = entries.filter(|entry| entry["kind"] == "sandbox_started");
    started.map(|entry| entry["message"].to_string()).collect()
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
