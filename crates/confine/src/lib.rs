//! What holds a session's processes, so that they reach neither the machine nor another session.
//!
//! [`HostCapabilities`] says what this machine lets us do, by trying it. [`Confinement`] is what one session
//! gets of it: a [`SessionUser`], an [`Enclosure`] of mounts and namespaces, a [`Cgroup`]. A process
//! that lives on confines itself by [`FileAccess`] and [`system_calls`]; a VMM is refused [`VmmCalls`].
//! [`boundaries_of`] reads from the kernel what confines a process, so what is reported is what was read.

mod account;
mod cgroup;
mod enclosure;
mod file_access;
mod host_capability;
mod process_stat;
mod seen;
mod syscalls;
mod system;
mod user;
mod vmm_calls;

pub use account::Account;
pub use cgroup::{Cgroup, Limits, killed_for_memory};
pub use enclosure::Enclosure;
pub use file_access::{FileAccess, Rules, kernel_limits_files};
pub use host_capability::{Confinement, HostCapabilities, HostCapability};
pub use process_stat::ProcessStat;
pub use seen::{ThreadFilters, boundaries_of, filters_of_threads, runs_as};
pub use syscalls::{SystemCallError, system_calls};
pub use system::parts_of;
pub use user::{SessionUser, processes_of};
pub use vmm_calls::{VmmCalls, VmmSockets};

use std::path::PathBuf;

/// Something that was to hold a process could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {} failed", path.display())]
pub struct ConfineError {
    /// What was tried.
    pub operation: &'static str,
    /// With what.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: std::io::Error,
}
