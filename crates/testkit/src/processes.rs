//! A session's processes, as /proc shows them.

use std::fs;

use anyhow::{Context, Result};

/// Process id and command line of each that carries the session's mark in its environment, or was pointed
/// into the session's folder.
///
/// # Errors
/// When /proc cannot be read.
pub fn of_session(id: &str) -> Result<Vec<(u32, String)>> {
    let mark = format!("ANTEROOM_SANDBOX={id}");
    let folder = format!("/anteroom-{id}/");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let is_marked =
            read("environ").split(|byte| *byte == 0).any(|part| part == mark.as_bytes());
        if is_marked || command.contains(&folder) {
            found.push((pid, command));
        }
    }
    Ok(found)
}

/// What a process of a session is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Carries and codes the picture, on the host.
    Runner,
    /// Where it runs on the host, without a VM.
    Agent,
    /// The same.
    XServer,
    /// QEMU.
    Vmm,
}

impl Role {
    /// As figures name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Runner => "runner",
            Self::Agent => "agent",
            Self::XServer => "x",
            Self::Vmm => "vmm",
        }
    }

    fn of(command: &str) -> Option<Self> {
        match command {
            command if command.ends_with(" session ") => Some(Self::Runner),
            command if command.contains("--host-driver") => Some(Self::Agent),
            command if command.contains("Xvnc") || command.contains("Xtigervnc") => {
                Some(Self::XServer)
            }
            command if command.contains("qemu-system") => Some(Self::Vmm),
            _ => None,
        }
    }
}

/// The processes of a session that have a role.
///
/// # Errors
/// When /proc cannot be read.
pub fn with_roles(id: &str) -> Result<Vec<(Role, u32)>> {
    let found = of_session(id)?;
    Ok(found.iter().filter_map(|(pid, command)| Some((Role::of(command)?, *pid))).collect())
}

/// The fields of /proc/PID/stat after the name: the first is field 3 of proc(5).
///
/// # Errors
/// When the process is gone.
pub fn stat_after_name(pid: u32) -> Result<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').context("/proc/PID/stat has no name")?.1;
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}
