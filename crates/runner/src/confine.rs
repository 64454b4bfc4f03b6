//! The runner gives up all that it does not need, before it reads the guest's first message.
//!
//! Afterwards it has no file to write but those that are open, starts no program, and is nobody's but
//! its session's. What it reads by path is what resolving a host's name takes.

use std::io;
use std::path::PathBuf;

use anteroom_confine::{
    Confinement, FileAccess, SessionUser, SystemCallError, boundaries_of, system_calls,
};
use anteroom_fail_point::fail_point;
use anteroom_session::{Accelerator, Boundaries, Confined};
use anteroom_vm::RunningSandbox;
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

/// This process or its sandbox's is not held as it must be.
#[derive(Debug, thiserror::Error)]
pub enum NotConfined {
    /// The system refused something.
    #[error("{operation} failed")]
    System {
        /// What was tried.
        operation: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A fail point.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// There are so many already; some of what follows holds one thread and those that it starts.
    #[error("the runner has {0} threads before it is confined")]
    Threads(usize),
    /// It was asked for.
    #[error("the kernel does not enforce the runner's rules of file access")]
    FilesOpen,
    /// The filter was not set.
    #[error(transparent)]
    NoFilter(#[from] SystemCallError),
    /// The kernel shows no filter.
    #[error("{whose} system calls are not filtered")]
    Unfiltered {
        /// The runner's or the VM's.
        whose: &'static str,
    },
    /// The kernel shows another user, or rights beside theirs.
    #[error(
        "{what} must run as the user {user} without capabilities, but runs as {}:{}",
        seen.uid,
        seen.gid
    )]
    OtherUser {
        /// Which process.
        what: &'static str,
        /// Who it must be.
        user: SessionUser,
        /// What holds it.
        seen: Box<Boundaries>,
    },
}

impl NotConfined {
    fn system<E: Into<io::Error>>(operation: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| Self::System { operation: operation.into(), source: source.into() }
    }
}

/// Confines this process for ever. Returns what confines it and the sandbox's process; `None` when the
/// latter is gone already.
///
/// # Errors
/// When a part that this machine offers fails, or the kernel says otherwise afterwards.
pub fn confine(
    confinement: &Confinement,
    sandbox: &RunningSandbox,
) -> Result<Option<Confined>, NotConfined> {
    fail_point("runner.confine")?;
    let threads = std::fs::read_dir("/proc/self/task");
    let threads = threads.map_err(NotConfined::system("counting the threads"))?.count();
    if threads != 1 {
        return Err(NotConfined::Threads(threads));
    }
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(NotConfined::system("forbidding core dumps"))?;
    bound_files();
    stay_in_memory();
    if let Some(user) = confinement.user {
        user.assume(&[]).map_err(NotConfined::system(format!("becoming the user {user}")))?;
    }
    let accelerator = sandbox.accelerator;
    let vm = sandbox.pid;
    // As its user, whom the kernel lets look, and before the rules, which forbid it.
    let sandbox = sandbox.boundaries();
    // Its memory is not for other processes of its user's to look at.
    prctl::set_dumpable(false).map_err(NotConfined::system("hiding the runner's memory"))?;
    let access = FileAccess {
        reads: READS.map(PathBuf::from).to_vec(),
        connects: true,
        // Its VM is held by rules of its own.
        signals: true,
        ..FileAccess::default()
    };
    let rules = access
        .rules()
        .map_err(io::Error::other)
        .map_err(NotConfined::system("making the rules of file access"))?;
    let holds_files =
        rules.restrict().map_err(NotConfined::system("limiting the access to files"))?;
    if !holds_files && confinement.host.landlock.is_available() {
        return Err(NotConfined::FilesOpen);
    }
    system_calls(vm)?;
    let runner = boundaries_of(std::process::id())
        .map_err(NotConfined::system("reading the runner's confinement"))?;
    check("the runner", &runner, confinement)?;
    if !runner.filters_system_calls {
        return Err(NotConfined::Unfiltered { whose: "the runner's" });
    }
    let sandbox = match sandbox {
        Err(error) if is_gone(&error) => return Ok(None),
        sandbox => sandbox
            .map_err(NotConfined::system("reading the confinement of the sandbox's process"))?,
    };
    check("the sandbox's process", &sandbox, confinement)?;
    // From its first instruction on; QEMU sets another filter after its set-up.
    let is_vmm = accelerator != Accelerator::None;
    if is_vmm && !sandbox.filters_system_calls {
        return Err(NotConfined::Unfiltered { whose: "the VM's" });
    }
    Ok(Some(Confined { sandbox, runner, missing: confinement.host.missing() }))
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// What was asked for is what there is.
fn check(
    what: &'static str,
    held: &Boundaries,
    confinement: &Confinement,
) -> Result<(), NotConfined> {
    let Some(user) = confinement.user else { return Ok(()) };
    let Boundaries { uid, gid, has_capabilities, .. } = held;
    if (*uid, *gid) == (user.id(), user.id()) && !has_capabilities {
        return Ok(());
    }
    Err(NotConfined::OtherUser { what, user, seen: Box::new(held.clone()) })
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
