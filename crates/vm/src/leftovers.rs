//! What is left of a sandbox, by looking: no record is asked, so none can be wrong.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anteroom_confine::{SessionUser, runs_as};
use anteroom_fail_point::fail_point;
use anteroom_guest_protocol::SANDBOX_ENV;
use anteroom_session::Leftover;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::SandboxName;
use crate::host::is_ours;
use crate::ipc::Shared;
use crate::orphaned_files::OrphanedFiles;

/// How long killed processes may take to be gone.
const GONE: Duration = Duration::from_secs(5);

/// Bytes of a process's command or environment.
const MOST_READ: u64 = 256 * 1024;

/// How long what a killed process had open may take to be gone: the kernel closes it after the
/// process itself is no longer seen.
const CLOSED: Duration = Duration::from_secs(2);

/// A sandbox, as what is left of it can be known.
#[derive(Clone, Copy, Debug)]
pub struct SandboxIdentity<'a> {
    /// Its name, which processes, files and cgroups carry.
    pub name: &'a SandboxName,
    /// Its user, which no other process has.
    pub user: Option<SessionUser>,
}

/// Processes, sockets, mounts, cgroups and files (in `folders`) that carry the sandbox's name or are its
/// user's, and its user's files where everybody may write; `kept` is what is meant to outlive it, its
/// logs. Looks again for a moment while there is anything.
#[must_use]
pub fn leftovers(identity: SandboxIdentity<'_>, folders: &[PathBuf], kept: &Path) -> Vec<Leftover> {
    let started = Instant::now();
    loop {
        let found = look(identity, folders, kept);
        if found.is_empty() || started.elapsed() > CLOSED {
            return found;
        }
        // There is no event for a socket of another process that is closed.
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn look(identity: SandboxIdentity<'_>, folders: &[PathBuf], kept: &Path) -> Vec<Leftover> {
    if let Err(error) = fail_point("teardown.look") {
        return unseen(Path::new("/"), error).into_iter().collect();
    }
    let name = identity.name.as_str();
    let mut found: Vec<Leftover> = processes(identity)
        .into_iter()
        .map(|(pid, command)| leftover("process", format!("{pid}: {command}")))
        .collect();
    let mut places = vec![PathBuf::from("/proc")];
    places.extend_from_slice(folders);
    found.extend(places.iter().filter_map(|place| unseen(place, fs::read_dir(place).err()?)));
    for (path, kind) in [("/proc/net/unix", "socket"), ("/proc/self/mountinfo", "mount")] {
        let text = fs::read_to_string(path).unwrap_or_else(|error| {
            found.extend(unseen(Path::new(path), error));
            String::new()
        });
        found.extend(
            text.lines()
                .filter(|line| {
                    line.contains(name) && (kind != "socket" || is_own_socket(line, identity))
                })
                .map(|line| leftover(kind, line.to_owned())),
        );
    }
    let of = |kind| Named { name, kind, user: identity.user };
    entries_named(Path::new("/sys/fs/cgroup"), &of("cgroup"), 4, &mut found);
    for folder in folders {
        entries_named(folder, &of("file"), 2, &mut found);
    }
    if let Some(user) = identity.user {
        let shared = Shared::of(user).into_iter();
        found.extend(shared.map(|shared| leftover("ipc", shared.to_string())));
        let orphaned_files = OrphanedFiles::of(user);
        for path in orphaned_files.found.iter().map(|path| path.display().to_string()) {
            // One may carry the sandbox's name too.
            if !found.iter().any(|leftover| leftover.what == path) {
                found.push(leftover("file", path));
            }
        }
        found.extend(
            orphaned_files.unseen.into_iter().filter_map(|(place, error)| unseen(&place, error)),
        );
    }
    let kept = kept.display().to_string();
    found.retain(|leftover| leftover.what != kept);
    found
}

/// By the owner of its file: a name without one anybody may take.
fn is_own_socket(line: &str, identity: SandboxIdentity<'_>) -> bool {
    let path = line.split_whitespace().nth(7).filter(|path| path.starts_with('/'));
    let found = path.and_then(|path| fs::symlink_metadata(path).ok());
    found.is_some_and(|found| is_ours(&found, identity.user))
}

/// A place that could not be checked may hold something; one that does not exist holds nothing.
fn unseen(place: &Path, error: std::io::Error) -> Option<Leftover> {
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    let what = format!("{} could not be checked: {error}", place.display());
    (!missing).then(|| leftover("unseen", what))
}

/// Kills every process of the sandbox and waits until they are gone.
pub fn reap(identity: SandboxIdentity<'_>) {
    if fail_point("teardown.reap").is_err() {
        return;
    }
    // What it leaves is looked for below, and reported.
    let _ = identity.user.map(SessionUser::kill_all);
    let started = Instant::now();
    loop {
        let left = processes(identity);
        if left.is_empty() || started.elapsed() > GONE {
            return;
        }
        for (pid, _) in left {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // A process that is no child of ours cannot be waited for; looking again is the wait.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Process ids of each of these sandboxes, in their order: one look at the machine for all of them.
#[must_use]
pub fn processes_of(identities: &[SandboxIdentity<'_>]) -> Vec<Vec<i32>> {
    let marks: Vec<Mark> = identities.iter().map(|identity| Mark::of(*identity)).collect();
    let mut found = vec![Vec::new(); marks.len()];
    for pid in other_processes() {
        if let Some(of) = marks.iter().position(|mark| mark.command_of(pid).is_some()) {
            found[of].push(pid);
        }
    }
    found
}

/// Process id and command of every process of the sandbox, this one apart. Zombies are their parent's to
/// collect.
fn processes(identity: SandboxIdentity<'_>) -> Vec<(i32, String)> {
    let mark = Mark::of(identity);
    other_processes().filter_map(|pid| Some((pid, mark.command_of(pid)?))).collect()
}

fn other_processes() -> impl Iterator<Item = i32> {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let name = entry.file_name().into_string().ok().filter(|name| *name != own)?;
        name.parse().ok()
    })
}

/// What a sandbox's processes are known by: they are its user's or, of this process's user, carry its
/// name in their environment or, since Chromium writes over its own, were pointed into the sandbox's
/// folder. What another process says of itself is not read: it may be anything, of any length.
struct Mark {
    user: Option<SessionUser>,
    own_user: u32,
    variable: String,
    folder: String,
}

impl Mark {
    fn of(identity: SandboxIdentity<'_>) -> Self {
        Self {
            user: identity.user,
            own_user: nix::unistd::geteuid().as_raw(),
            variable: format!("{SANDBOX_ENV}={}", identity.name),
            folder: format!("/anteroom-{}/", identity.name),
        }
    }

    /// The command of a process that is the sandbox's.
    fn command_of(&self, pid: i32) -> Option<String> {
        let path = Path::new("/proc").join(pid.to_string());
        if self.user.is_some_and(|user| runs_as(pid, user.id())) {
            return Some(start_of(&path.join("comm")).trim_end().to_owned());
        }
        if !runs_as(pid, self.own_user) {
            return None;
        }
        let command = start_of(&path.join("cmdline")).replace('\0', " ");
        let carries = || {
            let environment = start_of(&path.join("environ"));
            environment.split('\0').any(|variable| variable == self.variable)
        };
        let is_of_sandbox = command.contains(&self.folder) || carries();
        is_of_sandbox.then(|| command.chars().take(200).collect())
    }
}

/// As much of a file of /proc as an honest process has there.
fn start_of(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(MOST_READ).read_to_end(&mut bytes));
    if read.is_err() {
        bytes.clear();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What is looked for in a folder.
struct Named<'a> {
    name: &'a str,
    kind: &'static str,
    user: Option<SessionUser>,
}

/// What somebody else has put under the sandbox's name is no leftover of the sandbox's.
fn entries_named(folder: &Path, named: &Named, depth: u32, found: &mut Vec<Leftover>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let is_ours = || entry.metadata().is_ok_and(|entry| is_ours(&entry, named.user));
        if entry.file_name().to_string_lossy().contains(named.name) {
            if is_ours() {
                found.push(leftover(named.kind, entry.path().display().to_string()));
            }
        } else if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            entries_named(&entry.path(), named, depth - 1, found);
        }
    }
}

fn leftover(kind: &str, what: String) -> Leftover {
    Leftover { kind: kind.to_owned(), what }
}

#[cfg(test)]
mod tests;
