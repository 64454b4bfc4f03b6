//! What a desktop costs that nobody touches, and what a session writes to disk: read from /proc.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::demo::TTL_SECONDS;
use crate::identity::new_identity;
use crate::processor_time::Reading;
use crate::provider::OpenIdProvider;
use crate::server::Server;
use anteroom_testkit::end_user;
use anteroom_testkit::processes::{self, Role};

/// The session's processes: its runner and its VMM.
pub struct Processes {
    runner: u32,
    vmm: u32,
}

impl Processes {
    /// Finds them by the session's mark in their environment.
    pub fn of_session(id: &str) -> Result<Self> {
        let found = processes::with_roles(id)?;
        let one = |role: Role| {
            let process = found.iter().find(|(of, _)| *of == role);
            process.map(|(_, pid)| *pid).with_context(|| format!("no {} is running", role.name()))
        };
        Ok(Self { runner: one(Role::Runner)?, vmm: one(Role::Vmm)? })
    }

    /// The runner's processor time so far.
    pub fn read(&self) -> Result<Reading> {
        Reading::of([self.runner])
    }

    /// Bytes that each has written to disk so far, the size of the session's logs, and the files
    /// besides them that one has open for writing. A page of a log counts anew for the runner when
    /// it is written to after the kernel brought it to the disk, so its bytes may exceed the logs'.
    pub fn written(&self, logs: &Path) -> Result<Value> {
        let bytes = |pid: u32| -> Result<u64> {
            let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
            let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
            Ok(line.context("no write_bytes in /proc/PID/io")?.parse()?)
        };
        let logged: u64 = fs::read_dir(logs)?
            .flatten()
            .filter_map(|entry| entry.metadata().ok())
            // A file takes whole pages.
            .map(|file| file.len().div_ceil(4096) * 4096)
            .sum();
        let mut files = files_open_for_writing(self.runner)?;
        files.extend(files_open_for_writing(self.vmm)?);
        files.retain(|file| !file.starts_with(logs));
        Ok(json!({
            "vmm": bytes(self.vmm)?,
            "runner": bytes(self.runner)?,
            "logs": logged,
            "files_besides_logs": files,
        }))
    }
}

/// Files on a disk that a process may write to now; those in memory (memfd) are none.
fn files_open_for_writing(pid: u32) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let (Ok(target), Ok(file)) = (fs::read_link(entry.path()), fs::metadata(entry.path()))
        else {
            continue;
        };
        let number = entry.file_name();
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", number.to_string_lossy()))?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default();
        // O_WRONLY is 1, O_RDWR 2 (open(2)); proc(5) writes them in octal.
        let for_writing = u32::from_str_radix(flags.trim(), 8).is_ok_and(|flags| flags & 3 != 0);
        if file.is_file() && for_writing && !target.to_string_lossy().starts_with("/memfd:") {
            files.push(target);
        }
    }
    Ok(files)
}

/// A sign-in with a pause of `seconds` in which nobody touches the desktop.
pub fn bench(anteroom: &Path, seconds: u64) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("xtask-bench-").tempdir()?;
    let provider = OpenIdProvider::start(folder.path())?;
    let mut server = Server::start(anteroom, folder.path(), &provider, "qemu", &[])?;
    let identity = new_identity(folder.path())?;
    let session = server.start_session(&identity.recipient, TTL_SECONDS)?;
    let logs = folder.path().join("state/logs").join(&session.id);
    let (mut begin, mut end, mut written) = (None, None, None);
    let plan = end_user::Plan { idle_seconds: seconds, ..end_user::Plan::default() };
    let seen = end_user::play(&plan, &session, |event| {
        let processes = || Processes::of_session(&session.id);
        match event {
            "idle_begins" => begin = Some(processes().and_then(|found| found.read())),
            "idle_ends" => end = Some(processes().and_then(|found| found.read())),
            // The last moment at which the processes are there for sure.
            "typed" => written = Some(processes().and_then(|found| found.written(&logs))),
            _ => {}
        }
    })?;
    server.wait_until_torn_down(&session.id, Duration::from_secs(60))?;
    server.stop()?;
    let (begin, end) = (begin.context("no pause")??, end.context("no pause")??);
    println!(
        "{}",
        serde_json::json!({
            "idle_seconds": seconds,
            "frames": seen.idle_frames,
            "runner_cores": (begin.share_until(&end) * 10_000.0).round() / 10_000.0,
            "disk_written_bytes": written.context("nobody typed")??,
        })
    );
    Ok(())
}
