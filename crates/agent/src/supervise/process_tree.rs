//! A process and all that it started, also in sessions of their own and after its end.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long processes may take to stop, and how often that is looked at.
const FREEZE: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A process and its descendants, known by a variable of their environment that is theirs alone.
pub struct ProcessTree {
    /// Leads the session that most of them are in.
    leader: Pid,
    /// `NAME=value`.
    variable: OsString,
}

impl ProcessTree {
    /// Of this process, which was started with this variable.
    pub fn of(leader: Pid, variable: OsString) -> Self {
        Self { leader, variable }
    }

    /// Stops all of them and waits until they stand: what they were writing is written, and nothing more
    /// is.
    pub async fn freeze(&self) {
        let until = Instant::now() + FREEZE;
        loop {
            self.signal(Some(Signal::SIGSTOP));
            let all_stopped = self.processes().into_iter().all(is_stopped);
            // One that the kernel itself holds, on a disk that does not answer, writes nothing either.
            if all_stopped || Instant::now() >= until {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.signal(Some(Signal::SIGCONT));
    }

    /// Whether any of them is left.
    pub fn is_running(&self) -> bool {
        self.signal(None) > 0
    }

    /// Sends a signal to each of them; how many there were.
    fn signal(&self, signal: Option<Signal>) -> usize {
        self.processes().into_iter().filter(|pid| kill(*pid, signal).is_ok()).count()
    }

    fn processes(&self) -> Vec<Pid> {
        let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
        let pids = processes.flatten().filter_map(|entry| {
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?);
            let is_ours = nix::unistd::getsid(Some(pid)) == Ok(self.leader)
                || has_variable(&entry.path(), &self.variable);
            is_ours.then_some(pid)
        });
        pids.collect()
    }
}

fn has_variable(process: &Path, variable: &OsStr) -> bool {
    let environment = std::fs::read(process.join("environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|one| one == variable.as_bytes())
}

/// Whether all threads of a process are stopped, or gone (`proc_pid_stat(5)`).
fn is_stopped(pid: Pid) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        state.is_none_or(|state| matches!(state, 'T' | 't' | 'Z' | 'X'))
    })
}
