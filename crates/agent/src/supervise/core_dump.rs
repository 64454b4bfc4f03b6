//! A crashing process' core dump, read for its evidence and discarded: it never reaches a disk.
//!
//! The kernel starts this binary for each dump (core(5), `core_pattern` with a pipe) and holds the
//! process until it has ended. Started so, it reads the head of the dump and what /proc shows, and
//! hands the [`Fault`] to the running agent by a socket that only root may write to.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Read;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anteroom_crash::{core_file, elf, glibc};
use anteroom_guest_protocol::{Fault, MAX_EVIDENCE_TEXT, MAX_INSTRUCTION};
use anyhow::{Context, Result};
use object::ReadCache;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;

use crate::redact::redact;

/// The first argument of a run by the kernel.
pub const ARGUMENT: &str = "--core";

const SOCKET: &str = "/run/anteroom/core.sock";

/// Dumps that are looked at at once; the kernel drops more.
const AT_ONCE: &str = "16";

/// Faults that wait to be asked for.
const MAX_WAITING: usize = 64;

/// The largest report, in bytes.
const MAX_REPORT: u64 = 64 * 1024;

/// How long a look at a dump may take, in seconds; then the process is let go.
const LOOK_SECONDS: libc::c_uint = 10;

/// How long a report may take to arrive once it is begun.
const REPORT: Duration = Duration::from_secs(2);

/// How long after a death its fault may come. It was handed over before the process was gone, and
/// where many die at once, on a busy machine, it waits until the agent comes to it.
const LATE: Duration = Duration::from_secs(8);

/// One dump, as it is handed over.
#[derive(Serialize, Deserialize)]
struct Report {
    pid: i32,
    group: i32,
    fault: Fault,
}

/// Faults by process. Cheap to clone.
#[derive(Clone, Default)]
pub struct CoreDumps(Rc<Inner>);

#[derive(Default)]
struct Inner {
    faults: RefCell<HashMap<i32, Fault>>,
    came: Notify,
}

/// Who receives faults: process, its group, and the fault.
pub type OnFault = Box<dyn Fn(i32, i32, &Fault)>;

impl CoreDumps {
    /// Has the kernel bring dumps here, and calls `on_fault` for each.
    pub fn receive(&self, agent: &Path, on_fault: OnFault) -> Result<()> {
        let _ = std::fs::remove_file(SOCKET);
        let listener = tokio::net::UnixListener::bind(SOCKET)
            .with_context(|| format!("listening on {SOCKET} failed"))?;
        std::fs::set_permissions(SOCKET, std::fs::Permissions::from_mode(0o600))?;
        std::fs::write("/proc/sys/kernel/core_pipe_limit", AT_ONCE)
            .context("having the kernel wait for core dumps failed")?;
        let pattern = format!("|{} {ARGUMENT} %P", agent.display());
        std::fs::write("/proc/sys/kernel/core_pattern", pattern)
            .context("having the kernel bring core dumps failed")?;
        let inner = self.0.clone();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut json = Vec::new();
                let mut stream = stream.take(MAX_REPORT);
                // Only root can write here, and it writes at once.
                let _ = tokio::time::timeout(REPORT, stream.read_to_end(&mut json)).await;
                let Ok(report) = serde_json::from_slice::<Report>(&json) else { continue };
                on_fault(report.pid, report.group, &report.fault);
                let mut faults = inner.faults.borrow_mut();
                if faults.len() >= MAX_WAITING {
                    // Of processes that nobody asks for: children of services.
                    faults.clear();
                }
                faults.insert(report.pid, report.fault);
                inner.came.notify_waiters();
            }
        });
        Ok(())
    }

    /// The fault of a process that the kernel says it dumped.
    pub async fn of(&self, pid: i32) -> Option<Fault> {
        let wait = async {
            loop {
                let came = self.0.came.notified();
                if let Some(fault) = self.0.faults.borrow_mut().remove(&pid) {
                    return fault;
                }
                came.await;
            }
        };
        tokio::time::timeout(LATE, wait).await.ok()
    }
}

/// A run by the kernel: standard input is the dump of process `pid`.
pub fn look(pid: &str) -> ExitCode {
    nix::unistd::alarm::set(LOOK_SECONDS);
    let Ok(pid) = pid.parse::<i32>() else { return ExitCode::FAILURE };
    let mut head = Vec::new();
    let read = std::io::stdin().take(core_file::HEAD as u64).read_to_end(&mut head);
    let sent = read.map_err(anyhow::Error::from).and_then(|_| hand_over(pid, &head));
    match sent {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The kernel's log is the only place left to report to, and the console shows it.
            let _ = std::fs::write(
                "/dev/kmsg",
                format!("anteroom-agent: core dump of {pid}: {error:#}\n"),
            );
            ExitCode::FAILURE
        }
    }
}

fn hand_over(pid: i32, head: &[u8]) -> Result<()> {
    let mut core = core_file::read(head)?;
    let proc = PathBuf::from(format!("/proc/{pid}"));
    match instruction(&proc, core.fault.instruction_pointer) {
        Ok(bytes) => core.set_instruction(&bytes),
        Err(error) => core.fault.unseen.push(format!("the instruction: {error}")),
    }
    find_last_message(&proc, &mut core);
    let mut fault = core.fault;
    if let Ok(program) = std::fs::read_link(proc.join("exe")) {
        fault.program = program.to_string_lossy().chars().take(MAX_EVIDENCE_TEXT).collect();
    }
    if let Ok(name) = std::fs::read_to_string(proc.join("comm")) {
        fault.thread = name.trim().to_owned();
    }
    name_code(&proc, &mut fault);
    let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid)))
        .map_or(0, nix::unistd::Pid::as_raw);
    let stream = UnixStream::connect(SOCKET).context("reaching the agent failed")?;
    serde_json::to_writer(&stream, &Report { pid, group, fault })
        .context("reporting to the agent failed")
}

/// What its C library aborted with: a child's output is not known to be its own, and a program may
/// have closed it.
fn find_last_message(proc: &Path, core: &mut core_file::Core) {
    let Some((path, base)) = core.aborting_library() else { return };
    let library = proc.join("root").join(path.trim_start_matches('/'));
    let found = std::fs::File::open(library)
        .and_then(|library| Ok((library, std::fs::File::open(proc.join("mem"))?)))
        .map_err(|_| "its C library or its memory could not be opened")
        .and_then(|(library, memory)| {
            glibc::last_message(&ReadCache::new(library), base, |address, length| {
                let mut bytes = vec![0; length];
                let read = memory.read_at(&mut bytes, address).ok()?;
                bytes.truncate(read);
                Some(bytes)
            })
        });
    match found {
        Ok(message) => core.fault.last_message = message.map(|text| redact(&text)),
        Err(why) => core.fault.unseen.push(format!("glibc's last message: {why}")),
    }
}

/// Code is not in a dump: it is read while the kernel holds the process.
fn instruction(proc: &Path, at: u64) -> std::io::Result<Vec<u8>> {
    let memory = std::fs::File::open(proc.join("mem"))?;
    // An instruction may be the last of its mapping.
    let mut error = None;
    for length in (1..=MAX_INSTRUCTION).rev() {
        let mut bytes = vec![0; length];
        match memory.read_exact_at(&mut bytes, at) {
            Ok(()) => return Ok(bytes),
            Err(found) => error = Some(found),
        }
    }
    Err(error.unwrap_or_else(|| std::io::ErrorKind::UnexpectedEof.into()))
}

/// Build id and symbol, from the file that the code is of.
fn name_code(proc: &Path, fault: &mut Fault) {
    let Some(mapping) = fault.code_mapping.as_mut().filter(|m| m.path.starts_with('/')) else {
        return;
    };
    // As the process sees it: it may have a root of its own.
    let path = proc.join("root").join(mapping.path.trim_start_matches('/'));
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) => {
            fault
                .unseen
                .push(format!("build id and symbol: {} cannot be read: {error}", mapping.path));
            return;
        }
    };
    let data = ReadCache::new(file);
    let offset = fault.instruction_pointer - mapping.start + mapping.file_offset;
    mapping.build_id = elf::facts(&data).ok().and_then(|facts| facts.build_id);
    fault.symbol = elf::symbol_at(&data, offset);
}
