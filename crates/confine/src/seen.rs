//! What holds a process, in the kernel's words.

use std::fs;
use std::io;
use std::path::Path;

use anteroom_session::{Boundaries, Namespace};

/// Reads what holds a process. The namespaces are named of which it has another than this process.
///
/// # Errors
/// When the process is gone or not to be looked at.
pub fn boundaries_of(pid: u32) -> io::Result<Boundaries> {
    let folder = Path::new("/proc").join(pid.to_string());
    let status = fs::read_to_string(folder.join("status"))?;
    let field = |name| field_of(&status, name).ok_or_else(|| missing(name));
    let number = |name| {
        let first = field(name)?.split_whitespace().next().and_then(|word| word.parse().ok());
        first.ok_or_else(|| missing(name))
    };
    let capabilities = |name| u64::from_str_radix(field(name)?, 16).map_err(|_| missing(name));
    let has_capabilities = capabilities("CapPrm")? != 0 || capabilities("CapEff")? != 0;
    let cgroup = fs::read_to_string(folder.join("cgroup"))?;
    let mut namespaces = Vec::new();
    for namespace in Namespace::ALL {
        let of = |folder: &Path| fs::read_link(folder.join("ns").join(namespace.as_str()));
        if of(&folder)? != of(Path::new("/proc/self"))? {
            namespaces.push(namespace);
        }
    }
    Ok(Boundaries {
        uid: number("Uid")?,
        gid: number("Gid")?,
        has_groups: !field("Groups")?.trim().is_empty(),
        has_capabilities,
        no_new_privileges: number("NoNewPrivs")? == 1,
        filters_system_calls: has_filter(&status),
        namespaces,
        cgroup: crate::cgroup::own_of(&cgroup),
    })
}

/// How many filters of system calls a thread of a process has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadFilters {
    /// The thread's name.
    pub thread: String,
    /// Filters that a call must pass (`Seccomp_filters` of proc(5), Linux 5.9).
    pub filters: u32,
}

/// Reads the filters of each thread of a process.
///
/// # Errors
/// When the process is gone or not to be looked at, or the kernel does not say.
pub fn filters_of_threads(pid: u32) -> io::Result<Vec<ThreadFilters>> {
    let threads = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"))?;
    threads
        .map(|thread| {
            let status = fs::read_to_string(thread?.path().join("status"))?;
            let thread = field_of(&status, "Name").ok_or_else(|| missing("Name"))?.to_owned();
            let filters = field_of(&status, "Seccomp_filters").and_then(|count| count.parse().ok());
            let filters = filters.ok_or_else(|| missing("Seccomp_filters"))?;
            Ok(ThreadFilters { thread, filters })
        })
        .collect()
}

/// 2: a filter (proc(5)).
fn has_filter(status: &str) -> bool {
    field_of(status, "Seccomp") == Some("2")
}

/// Whether a process lives and runs as this user. One whose first thread has ended looks like a zombie
/// while its others run.
#[must_use]
pub fn runs_as(pid: i32, uid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut ids = field_of(&status, "Uid").unwrap_or_default().split_whitespace();
    let is_zombie = field_of(&status, "State").is_some_and(|state| state.starts_with('Z'));
    let is_dead = is_zombie && field_of(&status, "Threads") == Some("1");
    ids.any(|id| id.parse() == Ok(uid)) && !is_dead
}

fn field_of<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let of_line = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    status.lines().find_map(of_line).map(str::trim)
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the kernel does not report {name}"))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_whose_first_thread_has_ended_is_alive() {
        let script = "import ctypes, threading, time\n\
                      threading.Thread(target=time.sleep, args=(1000,)).start()\n\
                      print('started', flush=True)\n\
                      ctypes.CDLL(None).syscall(60, 0)";
        let mut command = Command::new("python3");
        let mut child = command.args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let state = || fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        while !state().contains("Z (zombie)") {
            std::thread::yield_now();
        }
        assert!(runs_as(pid, nix::unistd::getuid().as_raw()));
        child.kill().unwrap();
        while state().contains("Threads:\t2") {
            std::thread::yield_now();
        }
        assert!(!runs_as(pid, nix::unistd::getuid().as_raw()));
        child.wait().unwrap();
    }

    #[test]
    fn this_process_is_held_by_what_its_status_says() {
        let seen = boundaries_of(std::process::id()).unwrap();
        assert_eq!(seen.uid, nix::unistd::getuid().as_raw());
        assert!(seen.namespaces.is_empty() && seen.cgroup.is_none());
        assert!(boundaries_of(u32::MAX).is_err());
    }
}
