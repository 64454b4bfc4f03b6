//! The kernel's log, for whom it killed for want of memory.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::{Notify, mpsc};

/// Kills that wait to be asked for.
const MAX_WAITING: usize = 64;

/// How long after a death the kernel's line may be read.
const LATE: Duration = Duration::from_millis(500);

/// Kills by process. Cheap to clone.
#[derive(Clone, Default)]
pub struct Kills(Rc<Inner>);

#[derive(Default)]
struct Inner {
    lines: RefCell<HashMap<i32, String>>,
    came: Notify,
    followed: std::cell::Cell<bool>,
}

impl Kills {
    /// Follows the kernel's log, in a thread: each read gives one record, which no event loop that
    /// takes a short read for the last one gets along with.
    pub fn follow(&self) -> Result<()> {
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
            while let Some((pid, line)) = kills.recv().await {
                inner.take(pid, line);
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
                if let Some(line) = self.0.lines.borrow_mut().remove(&pid) {
                    return line;
                }
                came.await;
            }
        };
        tokio::time::timeout(LATE, wait).await.ok()
    }
}

impl Inner {
    fn take(&self, pid: i32, line: String) {
        let mut lines = self.lines.borrow_mut();
        if lines.len() >= MAX_WAITING {
            lines.clear();
        }
        lines.insert(pid, line);
        drop(lines);
        self.came.notify_waiters();
    }
}

/// `prefix;Out of memory: Killed process 123 (name) …` and `…Memory cgroup out of memory: Killed…`
/// (mm/oom_kill.c). Only the kernel writes with facility 0, so no program can pretend.
fn killed(record: &str) -> Option<(i32, String)> {
    let (prefix, text) = record.split_once(';')?;
    let priority: u32 = prefix.split(',').next()?.parse().ok()?;
    let line = text.lines().next()?;
    if priority >> 3 != 0 || !line.to_lowercase().contains("out of memory") {
        return None;
    }
    let (_, rest) = line.split_once("Killed process ")?;
    let pid = rest.split(' ').next()?.parse().ok()?;
    Some((pid, line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_own_lines_are_taken_and_no_other() {
        let line = "3,801,9,-;Memory cgroup out of memory: Killed process 77 (hog) total-vm:9kB\n SUBSYSTEM=x\n";
        assert_eq!(
            killed(line),
            Some((77, "Memory cgroup out of memory: Killed process 77 (hog) total-vm:9kB".into()))
        );
        // Facility 1: a program wrote it.
        assert_eq!(killed("11,801,9,-;Out of memory: Killed process 77 (hog)"), None);
        assert_eq!(killed("6,1,1,-;usb 1-1: new device"), None);
    }
}
