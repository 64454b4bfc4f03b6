//! Processes of the room: started, watched and explained one by one.
//!
//! One service's death never touches a sibling: what a death means is decided where the service is
//! run ([`crate::session`]), not here.

mod core_dump;
mod evidence_collector;
mod limits;
mod not_started;
mod out_of_memory;
mod output;
mod reaper;

mod stall;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::future::Future;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anteroom_guest_protocol::{Evidence, LogStream, ProcessExit, ServiceEvent, Then};
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::sync::oneshot;

pub use core_dump::{ARGUMENT as CORE_ARGUMENT, look as look_at_core};
pub use evidence_collector::EvidenceCollector;
pub use limits::Limits;
pub use not_started::look as can_start;
pub use output::{Lines, Tail, watch_lines};
pub use reaper::{End, Reaper, run_to_end};

pub use stall::look as look_at_stall;

use crate::report::Reporter;

/// The niceness of a process that gives way: a tenth of the others' share, and all that is idle.
const GIVES_WAY: i32 = 10;

/// How long after a look at a service failed its death may be seen.
const JUST_DEAD: Duration = Duration::from_millis(500);

/// How long a dead process's output may come late: what it started may hold its pipes for ever.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// How long processes may take to stand still, and how often is looked.
const FREEZE: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A running process of the room; leads a process group of its own.
pub struct Process {
    /// Its id, and that of its group.
    pub pid: Pid,
    /// What it printed last.
    pub tail: Rc<RefCell<Tail>>,
    /// What it printed first, of one whose output is kept.
    kept: Rc<RefCell<String>>,
    started: Instant,
    end: oneshot::Receiver<End>,
    collector: EvidenceCollector,
    /// Those that read its output.
    readers: Vec<tokio::task::JoinHandle<()>>,
    /// Its name, and who hears of its end.
    known_as: Option<(String, Reporter)>,
}

/// How a process ended, and what was seen of it.
#[derive(Clone, Debug)]
pub struct Death {
    /// Its wait status.
    pub exit: ProcessExit,
    /// How long it lived, in milliseconds.
    pub lived_ms: u64,
    /// What else was seen.
    pub evidence: Evidence,
}

/// Starts a process whose output is logged line by line.
pub fn start(
    name: &str,
    command: Command,
    reaper: &Reaper,
    reporter: &Reporter,
) -> Result<Process> {
    start_and_keep(name, command, reaper, reporter, 0)
}

/// The same, and keeps so many bytes of what it prints.
pub fn start_and_keep(
    name: &str,
    mut command: Command,
    reaper: &Reaper,
    reporter: &Reporter,
    most: usize,
) -> Result<Process> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    end_with_agent(&mut command);
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| format!("starting {program} failed"))?;
    let pid = pid_of(&child);
    let end = reaper.expect(pid);
    reaper.collector().names(pid, name);
    let tail = Rc::new(RefCell::new(Tail::default()));
    let kept = Rc::new(RefCell::new(String::new()));
    let streams = [
        (LogStream::Stdout, child.stdout.take().map(std::os::fd::OwnedFd::from)),
        (LogStream::Stderr, child.stderr.take().map(std::os::fd::OwnedFd::from)),
    ];
    let mut readers = Vec::new();
    for (stream, fd) in streams {
        let receiver = tokio::net::unix::pipe::Receiver::from_owned_fd(
            fd.context("a piped stream of a child is missing")?,
        )?;
        let (reporter, name) = (reporter.clone(), name.to_owned());
        let (tail, kept) = (tail.clone(), kept.clone());
        readers.push(tokio::task::spawn_local(watch_lines(receiver, move |line| {
            tail.borrow_mut().push(line);
            let mut kept = kept.borrow_mut();
            if kept.len() + line.len() < most {
                kept.push_str(line);
                kept.push('\n');
            }
            reporter.log(&name, stream, line);
        })));
    }
    let collector = reaper.collector().clone();
    let known_as = Some((name.to_owned(), reporter.clone()));
    Ok(Process { pid, tail, kept, started: Instant::now(), end, collector, readers, known_as })
}

impl Process {
    /// A process that was started elsewhere (the CLI, in its terminal).
    pub fn adopt(name: &str, child: &std::process::Child, reaper: &Reaper) -> Self {
        let pid = pid_of(child);
        let end = reaper.expect(pid);
        reaper.collector().names(pid, name);
        let collector = reaper.collector().clone();
        let (tail, kept, readers) = (Rc::default(), Rc::default(), Vec::new());
        Self { pid, tail, kept, started: Instant::now(), end, collector, readers, known_as: None }
    }

    /// Waits for its end, and for what there is to see of it.
    pub async fn died(&mut self) -> Death {
        let end = (&mut self.end).await;
        self.death_by(end).await
    }

    /// What there is to see of an end.
    async fn death_by(&mut self, end: Result<End, oneshot::error::RecvError>) -> Death {
        // The reaper lives as long as the agent; losing it would be a bug seen as a SIGKILL.
        let lost = End { exit: ProcessExit::Signalled { signal: libc::SIGKILL }, dumped: false };
        let end = end.unwrap_or(lost);
        let lived_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let Some((name, reporter)) = &self.known_as {
            // When it was seen; why takes a moment longer.
            reporter.note(&format!("{name} (process {}) {}", self.pid, describe(end.exit)));
        }
        let evidence = self.collector.of(self.pid, end).await;
        self.printed().await;
        Death { exit: end.exit, lived_ms, evidence }
    }

    /// The event that tells of its end.
    pub fn exit_event(&self, death: Death, deaths: u32, then: Then) -> ServiceEvent {
        let Death { exit, lived_ms, evidence } = death;
        ServiceEvent::Exited {
            exit,
            lived_ms,
            last_lines: self.last_lines(),
            evidence: Box::new(evidence),
            deaths,
            then,
        }
    }

    /// The event that tells that it is not to be had.
    pub fn failed_event(&self, unready: Unready) -> ServiceEvent {
        let last_lines = self.last_lines();
        let cause = unready.to_string();
        let (exit, lived_ms, evidence) = match unready {
            Unready::Died(death) => (Some(death.exit), death.lived_ms, death.evidence),
            Unready::Late { .. } | Unready::Broken(_) => (None, 0, Evidence::default()),
        };
        ServiceEvent::Failed { cause, last_lines, evidence: Box::new(evidence), exit, lived_ms }
    }

    /// What it printed last.
    pub fn last_lines(&self) -> Vec<String> {
        self.tail.borrow().lines()
    }

    /// What it printed, a line each, as far as that is kept.
    pub fn kept(&self) -> String {
        self.kept.borrow().trim_end().to_owned()
    }

    /// Waits a moment for what it printed last before it died.
    async fn printed(&mut self) {
        let all = async {
            for reader in &mut self.readers {
                let _ = reader.await;
            }
        };
        let _ = tokio::time::timeout(LAST_OUTPUT, all).await;
        self.readers.clear();
    }

    /// Lets the other services go first where processors are short; one that is gone is fine.
    pub fn give_way(&self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.pid.as_raw()) {
            let _ = rustix::process::setpriority_process(Some(pid), GIVES_WAY);
        }
    }

    /// Sends a signal to its whole group; one that is gone is fine.
    pub fn signal(&self, signal: Signal) {
        let _ = killpg(self.pid, signal);
    }

    /// Stops it and all that it started, as [`Self::signal_all`] finds them, and waits until they
    /// stand: what they were writing is written, and nothing more is.
    pub async fn freeze(&self, variable: &OsStr) {
        let until = Instant::now() + FREEZE;
        loop {
            self.signal_all(variable, Some(Signal::SIGSTOP));
            let stand = self.all(variable).into_iter().all(stands);
            // One that the kernel itself holds, on a disk that does not answer, writes nothing either.
            if stand || Instant::now() >= until {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Sends a signal to it and all that it started, also in sessions of their own and after its end.
    /// How many there were.
    pub fn signal_all(&self, variable: &OsStr, signal: Option<Signal>) -> usize {
        let sent = |pid: &Pid| nix::sys::signal::kill(*pid, signal).is_ok();
        self.all(variable).into_iter().filter(sent).count()
    }

    /// It and all that it started: they are known by a variable of their environment that is theirs
    /// alone.
    fn all(&self, variable: &OsStr) -> Vec<Pid> {
        let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
        let has_mark = |path: &std::path::Path| {
            let environment = std::fs::read(path.join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|one| one == variable.as_bytes())
        };
        let pids = processes.flatten().filter_map(|entry| {
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?);
            let is_ours = nix::unistd::getsid(Some(pid)) == Ok(self.pid) || has_mark(&entry.path());
            is_ours.then_some(pid)
        });
        pids.collect()
    }

    /// Runs until `ready` is, or the process ends, or `deadline` passes.
    pub async fn until_ready<T>(
        &mut self,
        deadline: Duration,
        ready: impl Future<Output = Result<T>>,
    ) -> Result<T, Unready> {
        let broken = tokio::select! {
            ready = ready => match ready {
                Ok(ready) => return Ok(ready),
                Err(error) => format!("{error:#}"),
            },
            death = self.died() => return Err(Unready::Died(Box::new(death))),
            () = tokio::time::sleep(deadline) => return Err(Unready::Late { seconds: deadline.as_secs() }),
        };
        // What fails to be looked at is often just dead, and how it died says more.
        match tokio::time::timeout(JUST_DEAD, &mut self.end).await {
            Ok(end) => Err(Unready::Died(Box::new(self.death_by(end).await))),
            Err(_) => Err(Unready::Broken(broken)),
        }
    }
}

/// Whether all threads of a process stand still, or are gone (`proc_pid_stat(5)`).
fn stands(pid: Pid) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        state.is_none_or(|state| matches!(state, 'T' | 't' | 'Z' | 'X'))
    })
}

/// Why a process is not ready.
#[derive(Debug, thiserror::Error)]
pub enum Unready {
    /// It ended before.
    #[error("it {} before it was ready", describe(.0.exit))]
    Died(Box<Death>),
    /// It took too long.
    #[error("it was not ready within {seconds} s")]
    Late {
        /// How long it had.
        seconds: u64,
    },
    /// The look at it failed.
    #[error("{0}")]
    Broken(String),
}

/// A wait status in words.
pub fn describe(exit: ProcessExit) -> String {
    match exit {
        ProcessExit::Exited { code } => format!("exited with code {code}"),
        ProcessExit::Signalled { signal } => format!("was killed by signal {signal}"),
    }
}

/// Has the kernel send SIGTERM to the child when the agent dies, so that nothing outlives it.
pub fn end_with_agent(command: &mut Command) {
    // SAFETY: prctl is async-signal-safe and touches nothing of the parent.
    #[expect(unsafe_code, reason = "pre_exec runs between fork and exec")]
    unsafe {
        command.pre_exec(|| {
            nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
            Ok(())
        });
    }
}

fn pid_of(child: &std::process::Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("Linux process ids fit 31 bits"))
}
