//! The runner gives up all that it does not need, before it reads the guest's first message.
//!
//! Afterwards it has no file to write but those that are open, starts no program, and is nobody's but
//! its session's. What it reads by path is what resolving a host's name takes.

use std::io;
use std::path::PathBuf;

use anteroom_confine::{Confinement, FileAccess, boundaries_of, system_calls};
use anteroom_fail_point::fail_point;
use anteroom_session::{Accelerator, Boundaries, Confined};
use anteroom_vm::RunningSandbox;
use anyhow::{Context, Result, ensure};
use nix::libc;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal};

/// What the C library reads to resolve a name.
const READS: [&str; 13] = [
    "/etc",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/nscd",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/lib",
    "/lib64",
    "/nix",
    "/gnu",
    "/proc",
];

/// More than any log of a session has.
const MOST_OF_A_FILE: u64 = 16 * 1024 * 1024;

/// Confines this process for ever. Returns what confines it and the sandbox's process; `None` when the
/// latter is gone already.
///
/// # Errors
/// When a part that this machine offers fails, or the kernel says otherwise afterwards.
pub fn confine(confinement: &Confinement, sandbox: &RunningSandbox) -> Result<Option<Confined>> {
    fail_point("runner.confine")?;
    let threads = std::fs::read_dir("/proc/self/task").context("counting the threads failed")?;
    let threads = threads.count();
    // Some of what follows holds one thread and those that it starts.
    ensure!(threads == 1, "the runner has {threads} threads before it is confined");
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("forbidding core dumps failed")?;
    bound_files();
    stay_in_memory();
    if let Some(user) = confinement.user {
        user.become_it(&[]).with_context(|| format!("becoming the user {user} failed"))?;
    }
    let accelerator = sandbox.accelerator;
    let vm = sandbox.pid;
    // As its user, whom the kernel lets look, and before the rules, which forbid it.
    let sandbox = sandbox.boundaries();
    // Its memory is not for other processes of its user's to look at.
    prctl::set_dumpable(false).context("hiding the runner's memory failed")?;
    let access = FileAccess {
        reads: READS.map(PathBuf::from).to_vec(),
        connects: true,
        // Its VM is held by rules of its own.
        signals: true,
        ..FileAccess::default()
    };
    let rules = access.rules().context("making the rules of file access failed")?;
    let holds_files = rules.restrict().context("limiting the access to files failed")?;
    ensure!(
        holds_files || !confinement.offered.landlock.is_given(),
        "the kernel does not enforce the runner's rules of file access"
    );
    system_calls(vm)?;
    let runner =
        boundaries_of(std::process::id()).context("reading the runner's confinement failed")?;
    check("the runner", &runner, confinement)?;
    ensure!(runner.filters_system_calls, "the runner's system calls are not filtered");
    let sandbox = match sandbox {
        Err(error) if is_gone(&error) => return Ok(None),
        sandbox => sandbox.context("reading the confinement of the sandbox's process failed")?,
    };
    check("the sandbox's process", &sandbox, confinement)?;
    // From its first instruction on; QEMU sets another filter after its set-up.
    let is_vmm = accelerator != Accelerator::None;
    ensure!(!is_vmm || sandbox.filters_system_calls, "the VM's system calls are not filtered");
    Ok(Some(Confined { sandbox, runner, missing: confinement.offered.missing() }))
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// What was asked for is what there is.
fn check(what: &str, held: &Boundaries, confinement: &Confinement) -> Result<()> {
    let Some(user) = confinement.user else { return Ok(()) };
    let Boundaries { uid, gid, has_capabilities, .. } = held;
    ensure!(
        (*uid, *gid) == (user.id(), user.id()) && !has_capabilities,
        "{what} must run as the user {user} without capabilities, but runs as {uid}:{gid}"
    );
    Ok(())
}

/// Bounds each file that is open, in bytes: a runner that is taken over must not fill the disk. More is an
/// error, not an end.
fn bound_files() {
    // SAFETY: the handler is the kernel's own.
    #[expect(unsafe_code, reason = "a signal's handler is the whole process's")]
    let _ = unsafe { nix::sys::signal::signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
    let _ = setrlimit(Resource::RLIMIT_FSIZE, MOST_OF_A_FILE, MOST_OF_A_FILE);
}

/// Keeps the end user's input out of the swap, where the limit allows it.
fn stay_in_memory() {
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    let is_unlimited =
        getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft == RLIM_INFINITY);
    if is_unlimited {
        // As it comes to be used, not all that is mapped.
        let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
        let _ = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault);
    }
}
