//! Sandbox drivers: how a session's sandbox is booted, watched and ended.
//!
//! [`Driver::boot`] gives a [`RunningSandbox`]: a process, and a byte stream to the agent in it. `qemu`
//! and `firecracker` make microVMs, `host` runs the agent on this machine with no isolation. Console,
//! kernel, initramfs and image are inherited descriptors; QEMU's sockets too, and Firecracker's are in
//! its own file tree. A VM that was started for it can be saved, and others go on where it stopped
//! ([`VmStart`]).

mod clone_start;
mod console;
mod counter;
mod descriptors;
mod driver;
mod firecracker;
mod held;
mod host;
mod inspect;
mod ipc;
mod kvm_probe;
mod leftovers;
mod link;
mod mapped;
mod name;
mod orphaned_files;
mod own_pages;
mod page_set;
mod process;
mod qemu;
mod removal;
mod save;
mod spawn_confinement;
mod spawn_step;
mod spec;

use std::path::PathBuf;

use anteroom_session::ProcessExit;

pub use clone_start::CloneStart;
pub use console::{ConsoleFile, ConsoleLog};
pub use counter::counter_khz;
pub use driver::{Booting, Driver};
pub use firecracker::{ApiError, Firecracker, Installed, OLDEST, ProgramError};
pub use host::{Host, RemoveError, remove_runtime_dir};
pub use inspect::{Inspect, Inspected};
pub use kvm_probe::{KvmProbe, probe_kvm};
pub use leftovers::{SandboxIdentity, leftovers, processes_of, reap};
pub use link::LinkStream;
pub use mapped::changed_pages;
pub use name::{InvalidName, SandboxName};
pub use orphaned_files::remove_orphaned_files;
pub use page_set::{NotASet, PageSet};
pub use process::{Ending, OutOfMemory, RunningSandbox, SandboxEnd};
pub use qemu::{AcceleratorChoice, MonitorError, Qemu, TCG_PROCESSOR, VmAccelerator};
pub use removal::{NotRemoved, remove_left};
pub use spec::{SandboxSpec, VmSpec, VmStart};

/// A sandbox could not be booted.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The program is not installed.
    #[error("{program} is not installed; install it with `apt-get install {package}`")]
    ProgramMissing {
        /// What was looked for.
        program: &'static str,
        /// Debian's package.
        package: &'static str,
    },
    /// A file of the image or the agent cannot be opened.
    #[error("opening {} failed", path.display())]
    File {
        /// The file, by its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// KVM was demanded.
    #[error(
        "KVM was requested and cannot be used: {why}; start with --accelerator auto or tcg to emulate"
    )]
    NoKvm {
        /// What the probe saw.
        why: String,
    },
    /// Firecracker cannot be used.
    #[error(transparent)]
    Firecracker(#[from] ProgramError),
    /// Firecracker did not do what it was asked.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// What a clone begins with can be changed.
    #[error("the {what} of a saved VM is not sealed, so that one clone could change another")]
    Unsealed {
        /// Its memory, or its state.
        what: &'static str,
    },
    /// QEMU did not do what it was asked.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    /// The VMM's process ended before its guest ran.
    #[error("{vmm} ended before it had set up the VM: it {exit}{}", last_lines(said))]
    VmmEnded {
        /// The program.
        vmm: &'static str,
        /// How it ended.
        exit: ProcessExit,
        /// The last lines of its log.
        said: Vec<String>,
    },
    /// A thread of the VMM may make any system call.
    #[error(
        "the thread {thread} of Firecracker does not filter its system calls; install a release of \
         Firecracker, built with its filters"
    )]
    Unfiltered {
        /// The thread's name.
        thread: String,
    },
    /// What is to hold the VM's process cannot be made.
    #[error(transparent)]
    NotHeld(#[from] anteroom_confine::ConfineError),
    /// Something of the operating system failed.
    #[error("{operation} failed")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A VM could not be saved. Its guest may be stopped.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// It was started otherwise.
    #[error("the VM cannot be saved: it was not started to be saved")]
    NotToBeSaved,
    /// It can be done once.
    #[error("the VM cannot be saved again: it was saved already, or that failed")]
    Again,
    /// QEMU did not do what it was asked.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    /// Firecracker did not do what it was asked.
    #[error(transparent)]
    Api(#[from] ApiError),
}

fn last_lines(said: &[String]) -> String {
    if said.is_empty() { String::new() } else { format!("; its last lines: {}", said.join(" | ")) }
}

impl BootError {
    pub(crate) fn system<E: Into<std::io::Error>>(
        operation: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::System { operation, source: source.into() }
    }
}
