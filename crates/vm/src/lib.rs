//! Sandbox drivers: how a session's sandbox is booted, watched and ended.
//!
//! [`Driver::boot`] gives a [`RunningSandbox`]: a process, and a byte stream to the agent in it. `qemu`
//! makes a microVM, `host` runs the agent on this machine with no isolation. Neither leaves a path in
//! the file system: sockets, console and initramfs are inherited descriptors.

mod console;
mod counter;
mod driver;
mod host;
mod inspect;
mod ipc;
mod kvm_probe;
mod leftovers;
mod name;
mod orphaned_files;
mod process;
mod qemu;
mod spawn_confinement;
mod spec;

use std::path::PathBuf;

pub use console::{ConsoleFile, ConsoleLog};
pub use counter::counter_khz;
pub use driver::Driver;
pub use host::{Host, RemoveError, remove_runtime_dir};
pub use inspect::{Inspect, Inspected};
pub use kvm_probe::{KvmProbe, probe_kvm};
pub use leftovers::{SandboxIdentity, leftovers, reap};
pub use name::{InvalidName, SandboxName};
pub use orphaned_files::remove_orphaned_files;
pub use process::{Ending, OutOfMemory, RunningSandbox, SandboxEnd};
pub use qemu::{AcceleratorChoice, Qemu, TCG_PROCESSOR, VmAccelerator};
pub use spec::{SandboxSpec, VmSpec};

/// The byte stream to the agent.
pub type LinkStream = tokio::net::UnixStream;

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

impl BootError {
    pub(crate) fn system<E: Into<std::io::Error>>(
        operation: &'static str,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::System { operation, source: source.into() }
    }
}
