//! Clones that wait: one is there for the next sign-in, replaced when it dies, and gone when its controller
//! is, however that ends.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anteroom_testkit::processes;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use xtask::interrupt;

use crate::identity::new_identity;
use crate::leftovers;
use crate::server::Server;
use crate::template::Template;

/// How long a clone may take to wait, or to be removed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Kills a clone that waits and then its controller, and gives one to a session; fails unless each is replaced
/// or removed as it should be.
pub fn check(
    anteroom: &Path,
    folder: &Path,
    template: &Template,
    provider_file: &str,
    options: &[&str],
) -> Result<()> {
    let before = leftovers::Before::look();
    let served = folder.join("pool");
    let mut server = template.serve(anteroom, &served, provider_file, options)?;
    let dead = waiting(&server, None)?;
    kill_vmm(&dead)?;
    let other = waiting(&server, Some(&dead))?;
    let died = "ended while it waited for a sign-in, and is replaced: ";
    let log = server.log();
    let line = log.lines().find(|line| line.contains(died)).context("its end is not explained")?;
    println!("{line}");
    ensure!(line.contains("SIGKILL"), "its end is not explained by the signal that it died of");
    ensure!(metric(&server, "anteroom_waiting_clones_died_total")? == 1, "it is not counted");

    let identity = new_identity(folder)?;
    let session = server.start_session(&identity.recipient, 300)?;
    ensure!(session.id == other, "the session {} has no waiting clone", session.id);
    let connected = server.wait_until_agent(&session.id, PATIENCE)?;
    println!("the agent of a clone that waited connected after {connected} ms");
    server.cancel(&session.id)?;
    server.wait_until_torn_down(&session.id, PATIENCE)?;
    ensure!(metric(&server, "anteroom_waiting_clones_used_total")? == 1, "it is not counted");

    // A controller that dies can end nothing.
    let left = waiting(&server, Some(&other))?;
    server.kill()?;
    let mut server = template.serve(anteroom, &served, provider_file, options)?;
    let new = waiting(&server, Some(&left))?;
    server.stop()?;
    for id in [&dead, &other, &left, &new] {
        let found = leftovers::of_session(id, folder, &before)?;
        ensure!(found.is_empty(), "of the clone {id} is left: {}", found.join("; "));
    }
    let records = fs::read_dir(served.join("state/waiting"))?.count();
    ensure!(records == 0, "{records} records of waiting clones are left");
    Ok(())
}

/// Waits until a clone waits.
pub fn until_one_waits(server: &Server) -> Result<()> {
    until(server, || Ok((metric(server, "anteroom_waiting_clones")? == 1).then_some(())))
}

/// The id of a clone that waits, other than this one, once there is one.
fn waiting(server: &Server, but: Option<&str>) -> Result<String> {
    until(server, || {
        let entries = fs::read_dir(server.state_dir().join("waiting")).into_iter().flatten();
        let mut ids = entries.flatten().filter_map(|entry| {
            // One that is being written says nothing yet.
            let record: Value = serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()?;
            Some(record["session"].as_str()?.to_owned())
        });
        let other = ids.find(|id| Some(id.as_str()) != but);
        Ok(other.filter(|_| metric(server, "anteroom_waiting_clones").is_ok_and(|n| n == 1)))
    })
}

fn until<T>(server: &Server, look: impl Fn() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        interrupt::check()?;
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(began.elapsed() < PATIENCE, "no clone waits:\n{}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kill_vmm(id: &str) -> Result<()> {
    let of_it = processes::of_session(id)?;
    let vmm = of_it.iter().find(|(_, command)| command.contains("qemu-system"));
    let (pid, _) = vmm.context("the clone has no VMM")?;
    kill(Pid::from_raw(i32::try_from(*pid)?), Signal::SIGKILL).context("killing it failed")
}

fn metric(server: &Server, name: &str) -> Result<u64> {
    let page = server.get("/metrics")?.expect(200)?.body;
    let mut lines = page.as_str().unwrap_or_default().lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("there is no metric {name}"))?.parse()?)
}
