//! A running process of the sandbox.

use std::cell::RefCell;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anteroom_guest_protocol::{LogStream, ProcessExit};
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::sync::oneshot;

use super::death::{Death, End, describe};
use super::evidence_collector::EvidenceCollector;
use super::failure::Failure;
use super::output::{LineFilter, LogLine, Tail, all_lines, watch_lines};
use super::reaper::Reaper;
use super::service::Readiness;
use super::stall;
use crate::report::Reporter;

/// The niceness of low priority: a tenth of the others' share, and all that is idle.
const LOW_PRIORITY: i32 = 10;

/// How long after a failed look at a service its death may be seen.
const JUST_DEAD: Duration = Duration::from_millis(500);

/// How long a dead process's output may come late: what it started may hold its pipes for ever.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// A running process of the sandbox; leads a process group of its own.
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
    /// Its name, and where its end is noted.
    noted: Option<(String, Reporter)>,
}

/// What becomes of a process's output.
#[derive(Clone, Copy)]
pub struct Output {
    /// How many bytes are kept.
    pub keep: usize,
    /// Which lines are logged.
    pub filter: LineFilter,
}

impl Default for Output {
    fn default() -> Self {
        Self { keep: 0, filter: all_lines }
    }
}

impl Process {
    /// Starts a process whose output is logged line by line.
    pub fn start(
        name: &str,
        mut command: Command,
        output: Output,
        reaper: &Reaper,
        reporter: &Reporter,
    ) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        end_with_agent(&mut command);
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().with_context(|| format!("starting {program} failed"))?;
        let mut process = Self::adopt(name, &child, reaper);
        let streams = [
            (LogStream::Stdout, child.stdout.take().map(std::os::fd::OwnedFd::from)),
            (LogStream::Stderr, child.stderr.take().map(std::os::fd::OwnedFd::from)),
        ];
        for (stream, fd) in streams {
            let receiver = tokio::net::unix::pipe::Receiver::from_owned_fd(
                fd.context("a piped stream of a child is missing")?,
            )?;
            let (reporter, name) = (reporter.clone(), name.to_owned());
            let (tail, kept) = (process.tail.clone(), process.kept.clone());
            process.readers.push(tokio::task::spawn_local(watch_lines(receiver, move |line| {
                tail.borrow_mut().push(line);
                let mut kept = kept.borrow_mut();
                if kept.len() + line.len() < output.keep {
                    kept.push_str(line);
                    kept.push('\n');
                }
                match (output.filter)(line) {
                    LogLine::Logged => reporter.log(&name, stream, line),
                    LogLine::Dropped => {}
                    LogLine::Reported(message) => reporter.offer(message),
                }
            })));
        }
        process.noted = Some((name.to_owned(), reporter.clone()));
        Ok(process)
    }

    /// A process that was started in another way (the CLI, in its terminal).
    pub fn adopt(name: &str, child: &Child, reaper: &Reaper) -> Self {
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("Linux process ids fit 31 bits"));
        let end = reaper.expect(pid);
        reaper.collector().names(pid, name);
        let collector = reaper.collector().clone();
        let (tail, kept, readers) = (Rc::default(), Rc::default(), Vec::new());
        Self { pid, tail, kept, started: Instant::now(), end, collector, readers, noted: None }
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
        if let Some((name, reporter)) = &self.noted {
            // When it was seen; why takes a moment longer.
            reporter.note(&format!("{name} (process {}) {}", self.pid, describe(end.exit)));
        }
        let evidence = self.collector.of(self.pid, end).await;
        self.printed().await;
        Death { exit: end.exit, lived_ms, evidence }
    }

    /// Waits until it is ready, or ends, or takes too long.
    pub async fn until_ready(&mut self, readiness: Readiness) -> Result<(), Failure> {
        let Readiness { asked, deadline, probe } = readiness;
        let broken = tokio::select! {
            ready = probe => match ready {
                Ok(()) => return Ok(()),
                Err(error) => format!("{error:#}"),
            },
            death = self.died() => return Err(Failure::DiedEarly(Box::new(death))),
            () = tokio::time::sleep(deadline) => {
                let stall = Box::new(stall::look(self.pid, asked, deadline, false));
                return Err(Failure::NotReady { after: deadline, stall });
            }
        };
        // A failed look often means that it just died, and how it died says more.
        match tokio::time::timeout(JUST_DEAD, &mut self.end).await {
            Ok(end) => Err(Failure::DiedEarly(Box::new(self.death_by(end).await))),
            Err(_) => Err(Failure::ProbeFailed(broken)),
        }
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
    pub fn lower_priority(&self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.pid.as_raw()) {
            let _ = rustix::process::setpriority_process(Some(pid), LOW_PRIORITY);
        }
    }

    /// Sends a signal to its whole group; one that is gone is fine.
    pub fn signal(&self, signal: Signal) {
        let _ = killpg(self.pid, signal);
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
