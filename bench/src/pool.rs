//! Clones that wait: one is there for the next sign-in, replaced when it dies, and gone when its controller
//! is, however that ends.

use std::fs;
use std::path::{Path, PathBuf};
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

/// How far a clone is that is made, by what the machine shows of it.
#[derive(Clone, Copy, Debug)]
enum Made {
    Recorded,
    Runner,
    Vmm,
    Waits,
}

/// A controller with a template, and how it is started.
struct Served<'a> {
    anteroom: &'a Path,
    folder: PathBuf,
    template: &'a Template,
    provider_file: &'a str,
    options: &'a [&'a str],
}

/// Kills a clone that waits and its controller, stops one, gives one to a session, and takes the template away;
/// fails unless each clone is replaced or removed as it should be.
pub fn check(
    anteroom: &Path,
    folder: &Path,
    template: &Template,
    provider_file: &str,
    options: &[&str],
) -> Result<()> {
    let before = leftovers::Before::look();
    let served = Served { anteroom, folder: folder.join("pool"), template, provider_file, options };
    let recipient = new_identity(folder)?.recipient;
    let mut server = served.start()?;
    let dead = waiting(&server, &[])?;
    signal_vmm(&dead, Signal::SIGKILL)?;
    let other = waiting(&server, std::slice::from_ref(&dead))?;
    let died = "ended while it waited for a sign-in, and is replaced: ";
    let log = server.log();
    let line = log.lines().find(|line| line.contains(died)).context("its end is not explained")?;
    println!("{line}");
    ensure!(line.contains("SIGKILL"), "its end is not explained by the signal that it died of");
    ensure!(metric(&server, "anteroom_waiting_clones_died_total")? == 1, "it is not counted");
    served.refuse_another(&other)?;

    let session = server.start_session(&recipient, 300)?;
    ensure!(session.id == other, "the session {} has no waiting clone", session.id);
    let connected = server.wait_until_agent(&session.id, PATIENCE)?;
    println!("the agent of a clone that waited connected after {connected} ms");
    server.cancel(&session.id)?;
    server.wait_until_torn_down(&session.id, PATIENCE)?;
    ensure!(metric(&server, "anteroom_waiting_clones_used_total")? == 1, "it is not counted");
    let mut ids = vec![dead, other];
    ids.push(waiting(&server, &ids)?);
    ids.extend(served.stopped(&server, &recipient, &ids[2])?);
    ids.push(served.without_template(&server, &recipient)?);
    server.stop()?;

    // A controller that dies can end nothing.
    for made in [Made::Recorded, Made::Runner, Made::Vmm, Made::Waits] {
        let left = killed(&mut served.start()?, made, &ids)?;
        println!("the controller was killed when of its clone {left} was seen: {made:?}");
        ids.push(left);
    }
    let mut server = served.start()?;
    ids.push(waiting(&server, &ids)?);
    server.stop()?;
    for id in &ids {
        let found = leftovers::of_session(id, folder, &before)?;
        ensure!(found.is_empty(), "of the clone {id} is left: {}", found.join("; "));
    }
    let records = fs::read_dir(served.folder.join("state/waiting"))?.count();
    ensure!(records == 0, "{records} records of waiting clones are left");
    Ok(())
}

impl Served<'_> {
    fn start(&self) -> Result<Server> {
        let Self { anteroom, folder, template, provider_file, options } = self;
        template.serve(anteroom, folder, provider_file, options)
    }

    /// A second controller with the same state is refused, and the clone of the first waits on.
    fn refuse_another(&self, clone: &str) -> Result<()> {
        let before = processes::of_session(clone)?;
        let refused = self.start().err().context("two controllers have one state folder")?;
        let said = refused.to_string();
        ensure!(said.contains("another controller is using"), "it is refused so: {said}");
        ensure!(said.contains("stop it, or choose another folder with --state-dir"), "{said}");
        ensure!(processes::of_session(clone)? == before, "the clone is not as it was");
        Ok(())
    }

    /// The VMM of a clone that waits is stopped: its sign-in gets another, and it is replaced. The ids of both.
    fn stopped(&self, server: &Server, recipient: &str, clone: &str) -> Result<[String; 2]> {
        signal_vmm(clone, Signal::SIGSTOP)?;
        let session = server.start_session(recipient, 300)?;
        ensure!(session.id != clone, "the session has a clone that is stopped");
        let connected = server.wait_until_agent(&session.id, PATIENCE)?;
        let stopped = "that waited for a sign-in is replaced: a signal stopped its VMM";
        ensure!(server.log().contains(stopped), "it is not said:\n{}", server.log());
        println!("one that was stopped was passed by; the agent connected after {connected} ms");
        until(server, || Ok(vmm_of(clone)?.is_none().then_some(())))?;
        server.cancel(&session.id)?;
        server.wait_until_torn_down(&session.id, PATIENCE)?;
        let replaced = waiting(server, &[clone.to_owned(), session.id.clone()])?;
        Ok([session.id, replaced])
    }

    /// The template is gone for a while: the clone that waits ends, and a session is booted, whose id this is.
    fn without_template(&self, server: &Server, recipient: &str) -> Result<String> {
        let templates = self.template.image_dir.join(anteroom_template::FOLDER);
        let (place, away) = (templates.join(&self.template.id), templates.join("away"));
        fs::rename(&place, &away).context("taking the template away failed")?;
        let booted = self.booted(server, recipient);
        fs::rename(&away, &place).context("putting the template back failed")?;
        booted
    }

    fn booted(&self, server: &Server, recipient: &str) -> Result<String> {
        let session = server.start_session(recipient, 300)?;
        let view = server.wait_until(&session.id, PATIENCE, "have a VM", |view| {
            view["timeline"].to_string().contains("sandbox_started")
        })?;
        ensure!(!view["timeline"].to_string().contains(&self.template.id), "it is a clone: {view}");
        until(server, || Ok((metric(server, "anteroom_waiting_clones")? == 0).then_some(())))?;
        server.cancel(&session.id)?;
        server.wait_until_torn_down(&session.id, PATIENCE)?;
        Ok(session.id)
    }
}

/// Kills the controller as soon as so much is seen of another clone than these; its id.
fn killed(server: &mut Server, made: Made, but: &[String]) -> Result<String> {
    let id = until(server, || {
        let Some(id) = recorded(server).find(|id| !but.contains(id)) else { return Ok(None) };
        let is_seen = match made {
            Made::Recorded => true,
            Made::Runner => !processes::of_session(&id)?.is_empty(),
            Made::Vmm => vmm_of(&id)?.is_some(),
            Made::Waits => metric(server, "anteroom_waiting_clones")? == 1,
        };
        Ok(is_seen.then_some(id))
    })?;
    server.kill()?;
    Ok(id)
}

/// Waits until a clone waits.
pub fn until_one_waits(server: &Server) -> Result<()> {
    until(server, || Ok((metric(server, "anteroom_waiting_clones")? == 1).then_some(())))
}

/// The id of a clone that waits, other than these, once there is one.
fn waiting(server: &Server, but: &[String]) -> Result<String> {
    until(server, || {
        let other = recorded(server).find(|id| !but.contains(id));
        Ok(other.filter(|_| metric(server, "anteroom_waiting_clones").is_ok_and(|n| n == 1)))
    })
}

/// The ids of the clones that are written down.
fn recorded(server: &Server) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(server.state_dir().join("waiting")).into_iter().flatten();
    entries.flatten().filter_map(|entry| {
        // One that is being written says nothing yet.
        let record: Value = serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()?;
        Some(record["session"].as_str()?.to_owned())
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
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn signal_vmm(id: &str, signal: Signal) -> Result<()> {
    let pid = vmm_of(id)?.context("the clone has no VMM")?;
    kill(Pid::from_raw(i32::try_from(pid)?), signal)
        .with_context(|| format!("sending it {signal} failed"))
}

fn vmm_of(id: &str) -> Result<Option<u32>> {
    let of_it = processes::of_session(id)?;
    Ok(of_it.into_iter().find(|(_, command)| command.contains("qemu-system")).map(|(pid, _)| pid))
}

fn metric(server: &Server, name: &str) -> Result<u64> {
    let page = server.get("/metrics")?.expect(200)?.body;
    let mut lines = page.as_str().unwrap_or_default().lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("there is no metric {name}"))?.parse()?)
}
