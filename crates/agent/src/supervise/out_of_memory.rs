//! The kernel's log, for whom it killed for want of memory.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::{Notify, mpsc};

/// Kills that wait to be asked for.
const MAX_WAITING: usize = 64;

/// How long after a death the kernel's line may be read.
const LATE: Duration = Duration::from_millis(500);

/// How long before the end of a process a kill in its group may have been, to be reported as its cause.
const JUST_BEFORE: Duration = Duration::from_secs(5);

/// One kill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// Who was killed.
    pub pid: i32,
    /// Its name, as the kernel has it.
    pub name: String,
    /// Its process group, where it could still be asked for.
    pub group: Option<i32>,
    /// The kernel's line.
    pub line: String,
    /// When the line was read.
    pub at: Instant,
}

/// Who hears of each kill.
pub type OnKill = Box<dyn Fn(&Kill)>;

/// Kills by process. Cheap to clone.
#[derive(Clone, Default)]
pub struct Kills(Rc<Inner>);

#[derive(Default)]
struct Inner {
    kills: RefCell<HashMap<i32, Kill>>,
    came: Notify,
    followed: std::cell::Cell<bool>,
}

impl Kills {
    /// Follows the kernel's log, in a thread: each read gives one record, which no event loop that
    /// takes a short read for the last one gets along with.
    pub fn follow(&self, on_kill: OnKill) -> Result<()> {
        let mut log = File::open("/dev/kmsg").context("opening the kernel's log failed")?;
        let (sender, mut kills) = mpsc::channel(MAX_WAITING);
        let reads = move || {
            let mut record = vec![0; 8192];
            loop {
                match log.read(&mut record) {
                    Ok(0) => return,
                    Ok(count) => {
                        let found = killed(&String::from_utf8_lossy(&record[..count]));
                        if found.is_some_and(|kill| sender.blocking_send(kill).is_err()) {
                            return;
                        }
                    }
                    // Records that were overwritten before they were read: on with the next.
                    Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                    Err(_) => return,
                }
            }
        };
        std::thread::Builder::new()
            .name("kernel-log".to_owned())
            .spawn(reads)
            .context("following the kernel's log failed")?;
        self.0.followed.set(true);
        let inner = self.0.clone();
        tokio::task::spawn_local(async move {
            while let Some(kill) = kills.recv().await {
                on_kill(&kill);
                inner.take(kill);
            }
        });
        Ok(())
    }

    /// Whether the kernel's log is read at all.
    pub fn are_seen(&self) -> bool {
        self.0.followed.get()
    }

    /// The kernel's line about the kill of `pid`.
    pub async fn of(&self, pid: i32) -> Option<String> {
        if !self.0.followed.get() {
            return None;
        }
        let wait = async {
            loop {
                let came = self.0.came.notified();
                if let Some(kill) = self.0.kills.borrow_mut().remove(&pid) {
                    return kill.line;
                }
                came.await;
            }
        };
        tokio::time::timeout(LATE, wait).await.ok()
    }
}

impl Kills {
    /// The last kill of another process in the group that `pid` leads, if it was just now.
    pub fn in_group_of(&self, pid: i32) -> Option<Kill> {
        let kills = self.0.kills.borrow();
        let of_group = kills.values().filter(|kill| kill.group == Some(pid) && kill.pid != pid);
        of_group.max_by_key(|kill| kill.at).filter(|kill| kill.at.elapsed() < JUST_BEFORE).cloned()
    }
}

/// The group of a process that is being killed: it is there until its parent has waited for it.
fn group_of(pid: i32) -> Option<i32> {
    nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid))).ok().map(nix::unistd::Pid::as_raw)
}

impl Inner {
    fn take(&self, kill: Kill) {
        let mut kills = self.kills.borrow_mut();
        if kills.len() >= MAX_WAITING {
            kills.clear();
        }
        kills.insert(kill.pid, kill);
        drop(kills);
        self.came.notify_waiters();
    }
}

/// `prefix;Out of memory: Killed process 123 (name) …` and `…Memory cgroup out of memory: Killed…`
/// (mm/oom_kill.c). Only the kernel writes with facility 0, so no program can pretend.
fn killed(record: &str) -> Option<Kill> {
    let (prefix, text) = record.split_once(';')?;
    let priority: u32 = prefix.split(',').next()?.parse().ok()?;
    let line = text.lines().next()?;
    if priority >> 3 != 0 || !line.to_lowercase().contains("out of memory") {
        return None;
    }
    let (_, rest) = line.split_once("Killed process ")?;
    let pid = rest.split(' ').next()?.parse().ok()?;
    // A name may have brackets of its own; nothing behind it has any.
    let name =
        rest.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')).map(|(name, _)| name);
    let name = name.unwrap_or("a process").to_owned();
    Some(Kill { pid, name, group: group_of(pid), line: line.to_owned(), at: Instant::now() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_in_a_group_is_found_by_who_leads_it() {
        let (own, kills) = (std::process::id().cast_signed(), Kills::default());
        let group = group_of(own).unwrap();
        let record = format!("3,1,1,-;Out of memory: Killed process {own} (tab) x");
        let kill = killed(&record).unwrap();
        assert_eq!(kill.group, Some(group));
        kills.0.take(Kill { pid: own + 1, ..kill });
        assert_eq!(kills.in_group_of(group).map(|kill| kill.name), Some("tab".to_owned()));
        assert_eq!(kills.in_group_of(group + 1), None);
    }

    #[test]
    fn the_kernel_s_own_lines_are_taken_and_no_other() {
        let line = "3,801,9,-;Memory cgroup out of memory: Killed process 77 (hog) total-vm:9kB\n SUBSYSTEM=x\n";
        let kill = killed(line).unwrap();
        assert_eq!((kill.pid, kill.name.as_str()), (77, "hog"));
        assert_eq!(kill.line, "Memory cgroup out of memory: Killed process 77 (hog) total-vm:9kB");
        let brackets =
            killed("3,1,1,-;Out of memory: Killed process 7 ((sd-pam)) total-vm:9kB, UID:0");
        assert_eq!(brackets.map(|kill| kill.name), Some("(sd-pam)".to_owned()));
        // Facility 1: a program wrote it.
        assert_eq!(killed("11,801,9,-;Out of memory: Killed process 77 (hog)"), None);
        assert_eq!(killed("6,1,1,-;usb 1-1: new device"), None);
    }
}
