//! Memory and process limits of a service, by a control group of its own (cgroup v2) in the guest.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anteroom_guest_protocol::ServiceSpec;
use anyhow::{Context, Result};

const ROOT: &str = "/sys/fs/cgroup";

/// A service's group.
pub struct Limits(Option<PathBuf>);

impl Limits {
    /// Makes the group that a service asks for; none where it asks for none.
    ///
    /// # Errors
    /// When the kernel has no control groups, as on a host where they are not ours to change.
    pub fn of(spec: &ServiceSpec) -> Result<Self> {
        if spec.memory_mib.is_none() && spec.max_processes.is_none() {
            return Ok(Self(None));
        }
        let group = group(&spec.name);
        std::fs::create_dir_all(&group)
            .with_context(|| format!("making the control group {} failed", group.display()))?;
        let set = |file: &str, value: String| {
            std::fs::write(group.join(file), &value).with_context(|| {
                format!("limiting {} to {value} failed", group.join(file).display())
            })
        };
        if let Some(mebibytes) = spec.memory_mib {
            set("memory.max", (u64::from(mebibytes) * 1024 * 1024).to_string())?;
            // Not all kernels count swap.
            let _ = std::fs::write(group.join("memory.swap.max"), "0");
        }
        if let Some(most) = spec.max_processes {
            set("pids.max", most.to_string())?;
        }
        Ok(Self(Some(group)))
    }

    /// Has the command begin its life in the group.
    pub fn apply(&self, command: &mut Command) -> Result<()> {
        let Some(group) = &self.0 else { return Ok(()) };
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
