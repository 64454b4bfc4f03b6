//! One place that waits for children: PID 1 inherits every orphan of the guest.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use anteroom_guest_protocol::ProcessExit;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::Witness;

/// Hands each wait status to whoever expects it, and drops those of orphans. Cheap to clone.
#[derive(Clone, Default)]
pub struct Reaper {
    waiting: Rc<RefCell<HashMap<Pid, oneshot::Sender<End>>>>,
    witness: Witness,
}

/// A wait status.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// How.
    pub exit: ProcessExit,
    /// Whether the kernel made a core dump.
    pub dumped: bool,
}

impl Reaper {
    /// Starts reaping.
    pub fn start() -> Result<Self> {
        let reaper = Self::default();
        let mut children =
            signal(SignalKind::child()).context("watching for the end of children failed")?;
        let in_task = reaper.clone();
        tokio::task::spawn_local(async move {
            while children.recv().await.is_some() {
                in_task.reap_all();
            }
        });
        Ok(reaper)
    }

    /// Who sees what else there is of an end.
    pub fn witness(&self) -> &Witness {
        &self.witness
    }

    /// The status of `pid` when it ends. To be called before the event loop runs again after the
    /// spawn; then no status can be missed.
    pub fn expect(&self, pid: Pid) -> oneshot::Receiver<End> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().insert(pid, sender);
        receiver
    }

    /// Takes every status there is; says whether any child is left.
    pub fn reap_all(&self) -> bool {
        loop {
            let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED;
            let (pid, exit, dumped) = match waitpid(None, Some(flags)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, ProcessExit::Exited { code }, false),
                Ok(WaitStatus::Signaled(pid, signal, dumped)) => {
                    (pid, ProcessExit::Signalled { signal: signal as i32 }, dumped)
                }
                Ok(WaitStatus::StillAlive) => return true,
                Ok(WaitStatus::Stopped(pid, _)) => {
                    self.witness.stopped(pid);
                    continue;
                }
                // Nothing else is an end.
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(_) => return false,
            };
            if let Some(waiting) = self.waiting.borrow_mut().remove(&pid) {
                let _ = waiting.send(End { exit, dumped });
            }
        }
    }
}
