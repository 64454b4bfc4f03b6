//! One place that waits for children: PID 1 inherits every orphan of the guest.

use std::cell::RefCell;
use std::collections::HashMap;
use std::process::{Command, Output};
use std::rc::Rc;
use std::sync::{PoisonError, RwLock};

use anteroom_guest_protocol::ProcessExit;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::death::End;
use super::evidence_collector::EvidenceCollector;

/// Held for reading by who waits for a child of its own, for writing by who takes every status there
/// is: else the second takes what the first waits for.
static WAITING_ELSEWHERE: RwLock<()> = RwLock::new(());

/// Runs a program to its end, on a thread that may block. The only right way beside a [`Reaper`].
///
/// # Errors
/// When it cannot be started.
pub fn run_to_end(command: &mut Command) -> std::io::Result<Output> {
    let output = {
        let _waiting = WAITING_ELSEWHERE.read().unwrap_or_else(PoisonError::into_inner);
        command.output()
    };
    // What ended meanwhile was left, and its signal is over.
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGCHLD);
    output
}

/// Hands each wait status to whoever expects it, and drops those of orphans. Cheap to clone.
#[derive(Clone, Default)]
pub struct Reaper {
    waiting: Rc<RefCell<HashMap<Pid, oneshot::Sender<End>>>>,
    collector: EvidenceCollector,
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
    pub fn collector(&self) -> &EvidenceCollector {
        &self.collector
    }

    /// The status of `pid` when it ends. To be called before the event loop runs again after the
    /// spawn; then no status can be missed.
    pub fn expect(&self, pid: Pid) -> oneshot::Receiver<End> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().insert(pid, sender);
        receiver
    }

    /// Takes every status there is, unless another thread waits for a child of its own; says whether
    /// any child is left.
    pub fn reap_all(&self) -> bool {
        let Ok(_alone) = WAITING_ELSEWHERE.try_write() else { return true };
        loop {
            let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED;
            let (pid, exit, dumped) = match waitpid(None, Some(flags)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, ProcessExit::Exited { code }, false),
                Ok(WaitStatus::Signaled(pid, signal, dumped)) => {
                    (pid, ProcessExit::Signalled { signal: signal as i32 }, dumped)
                }
                Ok(WaitStatus::StillAlive) => return true,
                Ok(WaitStatus::Stopped(pid, _)) => {
                    self.collector.stopped(pid);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_a_child_of_its_own_gets_its_status() {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let reaper = Reaper::start().unwrap();
                let others = tokio::task::spawn_blocking(|| {
                    (0..200).map(|_| run_to_end(&mut Command::new("true"))).collect::<Vec<_>>()
                });
                for _ in 0..20 {
                    #[expect(clippy::zombie_processes, reason = "the reaper waits for it")]
                    let child = Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
                    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
                    let end = reaper.expect(pid).await.unwrap();
                    assert!(matches!(end.exit, ProcessExit::Exited { code: 3 }), "{end:?}");
                }
                for ended in others.await.unwrap() {
                    assert!(ended.unwrap().status.success());
                }
            })
            .await;
    }
}
