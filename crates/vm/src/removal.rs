//! Removing what a sandbox has left outside of its processes.

use std::path::Path;

use anteroom_confine::{Cgroup, ConfineError};

use crate::leftovers::SandboxIdentity;
use crate::{RemoveError, remove_runtime_dir};

/// Something of a sandbox is still there.
#[derive(Debug, thiserror::Error)]
pub enum NotRemoved {
    /// A file.
    #[error(transparent)]
    File(#[from] RemoveError),
    /// Its cgroup.
    #[error(transparent)]
    Cgroup(#[from] ConfineError),
}

/// Removes a sandbox's folder, where its driver makes one, and its cgroup. Its processes have ended.
///
/// # Errors
/// When something of it cannot be removed; the rest is removed all the same.
pub fn remove_left(
    identity: SandboxIdentity<'_>,
    runtime_dir: Option<&Path>,
) -> Result<(), NotRemoved> {
    let folder = runtime_dir.map(|dir| remove_runtime_dir(dir, identity.user));
    // Whatever became of the folder.
    let cgroup = Cgroup::remove_named(identity.name.as_str());
    folder.transpose()?;
    Ok(cgroup?)
}
