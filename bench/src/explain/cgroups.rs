//! What the kernel does to a session by its cgroup.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The hierarchy of cgroup v2, and in it the folder of all sessions' cgroups.
const HIERARCHY: &str = "/sys/fs/cgroup";
const SESSIONS: &str = "/sys/fs/cgroup/anteroom";

/// Less than any VM has taken.
const LITTLE_MEMORY: &str = "16777216";

/// Whether this machine has cgroup v2 alone, and lets us make cgroups.
pub fn are_usable() -> bool {
    let controllers = fs::read_to_string(Path::new(HIERARCHY).join("cgroup.controllers"));
    controllers.is_ok_and(|all| all.contains("memory")) && nix::unistd::geteuid().is_root()
}

/// Lowers the limit of a session's VM, which the kernel kills then: nothing of it can be written
/// anywhere else.
pub fn take_memory(session: &str) -> Result<()> {
    set(&Path::new(SESSIONS).join(session).join("memory.max"), LITTLE_MEMORY)
}

/// While it is there, the kernel makes no cgroup for a session.
pub struct Refusal;

impl Refusal {
    /// From now on.
    pub fn begin() -> Result<Self> {
        fs::create_dir_all(SESSIONS).with_context(|| format!("making {SESSIONS} failed"))?;
        let refusal = Self;
        set(&descendants(), "0")?;
        Ok(refusal)
    }
}

impl Drop for Refusal {
    fn drop(&mut self) {
        let _ = set(&descendants(), "max");
        // Other sessions' are in it, or it goes.
        let _ = fs::remove_dir(SESSIONS);
    }
}

fn descendants() -> std::path::PathBuf {
    Path::new(SESSIONS).join("cgroup.max.descendants")
}

fn set(file: &Path, value: &str) -> Result<()> {
    fs::write(file, value).with_context(|| format!("setting {} failed", file.display()))
}
