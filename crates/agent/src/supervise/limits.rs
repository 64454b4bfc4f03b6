//! Memory and process limits of a service, by a control group of its own (cgroup v2) in the guest.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

const ROOT: &str = "/sys/fs/cgroup";

/// What a service and its children may use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Memory in MiB.
    pub memory_mib: Option<u32>,
    /// Processes and threads.
    pub max_processes: Option<u32>,
}

impl Limits {
    /// Has a command start in a group of its own, which has these limits; in none where there are none.
    ///
    /// # Errors
    /// When the kernel has no control groups, as on a host where they are not ours to change.
    pub fn apply(self, service: &str, command: &mut Command) -> Result<()> {
        if self.memory_mib.is_none() && self.max_processes.is_none() {
            return Ok(());
        }
        let group = group(service);
        self.make(&group)?;
        // Opened here: the kernel goes by who opened it, and the child is another user by then.
        let mut processes = File::options()
            .write(true)
            .open(group.join("cgroup.procs"))
            .with_context(|| format!("entering the control group {} failed", group.display()))?;
        // SAFETY: a write to an open descriptor is async-signal-safe.
        #[expect(unsafe_code, reason = "pre_exec runs between fork and exec")]
        unsafe {
            command.pre_exec(move || processes.write_all(b"0"));
        }
        Ok(())
    }

    fn make(self, group: &Path) -> Result<()> {
        std::fs::create_dir_all(group)
            .with_context(|| format!("making the control group {} failed", group.display()))?;
        let set = |file: &str, value: String| {
            std::fs::write(group.join(file), &value).with_context(|| {
                format!("limiting {} to {value} failed", group.join(file).display())
            })
        };
        if let Some(mebibytes) = self.memory_mib {
            set("memory.max", (u64::from(mebibytes) * 1024 * 1024).to_string())?;
            // Not all kernels count swap.
            let _ = std::fs::write(group.join("memory.swap.max"), "0");
        }
        if let Some(most) = self.max_processes {
            set("pids.max", most.to_string())?;
        }
        Ok(())
    }
}

/// Limit and peak of a service's memory in bytes, where it has a group.
pub fn memory(service: &str) -> (Option<u64>, Option<u64>) {
    let read = |file: &str| {
        std::fs::read_to_string(group(service).join(file)).ok()?.trim().parse::<u64>().ok()
    };
    (read("memory.max"), read("memory.peak"))
}

fn group(service: &str) -> PathBuf {
    PathBuf::from(format!("{ROOT}/service-{service}"))
}
