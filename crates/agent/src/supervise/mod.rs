//! Processes of the room: started, watched and explained one by one.
//!
//! One service's death never touches a sibling: what a death means is decided where the service is
//! run ([`crate::session`]), not here.

mod output;
mod reaper;

use std::cell::RefCell;
use std::future::Future;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anteroom_guest_protocol::{LogStream, ProcessExit, ServiceEvent};
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::sync::oneshot;

pub use output::{Tail, watch_lines};
pub use reaper::Reaper;

use crate::report::Reporter;

/// The niceness of a process that gives way: a tenth of the others' share, and all that is idle.
const GIVES_WAY: i32 = 10;

/// A running process of the room; leads a process group of its own.
pub struct Process {
    /// Its id, and that of its group.
    pub pid: Pid,
    /// What it printed last.
    pub tail: Rc<RefCell<Tail>>,
    started: Instant,
    exit: oneshot::Receiver<ProcessExit>,
}

/// Starts a process whose output is logged line by line.
pub fn start(
    name: &str,
    mut command: Command,
    reaper: &Reaper,
    reporter: &Reporter,
) -> Result<Process> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    end_with_agent(&mut command);
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| format!("starting {program} failed"))?;
    let pid = pid_of(&child);
    let exit = reaper.expect(pid);
    let tail = Rc::new(RefCell::new(Tail::default()));
    let streams = [
        (LogStream::Stdout, child.stdout.take().map(std::os::fd::OwnedFd::from)),
        (LogStream::Stderr, child.stderr.take().map(std::os::fd::OwnedFd::from)),
    ];
    for (stream, fd) in streams {
        let receiver = tokio::net::unix::pipe::Receiver::from_owned_fd(
            fd.context("a piped stream of a child is missing")?,
        )?;
        let (reporter, name, tail) = (reporter.clone(), name.to_owned(), tail.clone());
        tokio::task::spawn_local(watch_lines(receiver, move |line| {
            tail.borrow_mut().push(line);
            reporter.log(&name, stream, line);
        }));
    }
    Ok(Process { pid, tail, started: Instant::now(), exit })
}

impl Process {
    /// A process that was started elsewhere (the CLI, in its terminal).
    pub fn adopt(child: &std::process::Child, reaper: &Reaper) -> Self {
        let pid = pid_of(child);
        let exit = reaper.expect(pid);
        Self { pid, tail: Rc::default(), started: Instant::now(), exit }
    }

    /// Waits for its end.
    pub async fn exited(&mut self) -> ProcessExit {
        // The reaper lives as long as the agent; losing it would be a bug seen as a SIGKILL.
        (&mut self.exit).await.unwrap_or(ProcessExit::Signalled { signal: libc::SIGKILL })
    }

    /// The event that tells of its end.
    pub fn exit_event(&self, exit: ProcessExit) -> ServiceEvent {
        let lived_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        ServiceEvent::Exited { exit, lived_ms, last_lines: self.last_lines() }
    }

    /// What it printed last.
    pub fn last_lines(&self) -> Vec<String> {
        self.tail.borrow().lines()
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

    /// Runs until `ready` is, or the process ends, or `deadline` passes; the failure as a sentence.
    pub async fn until_ready<T>(
        &mut self,
        deadline: Duration,
        ready: impl Future<Output = Result<T>>,
    ) -> Result<T, String> {
        tokio::select! {
            ready = ready => ready.map_err(|error| format!("{error:#}")),
            exit = self.exited() => Err(format!("it {} before it was ready", describe(exit))),
            () = tokio::time::sleep(deadline) => Err(format!("it was not ready within {} s", deadline.as_secs())),
        }
    }
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
