//! The sandbox of a command, of which no controller keeps a record: it is written down beside its logs before it is
//! there, so that a later command removes what is left where this one was killed.

use std::io;
use std::path::Path;

use anteroom_confine::{Confinement, SessionUser};
use anteroom_session::SessionId;
use anteroom_vm::{
    NotRemoved, RemoveError, SandboxIdentity, SandboxName, remove_left, remove_runtime_dir,
};
use serde::{Deserialize, Serialize};

use crate::vmm::Vmm;

/// In the folder of its logs.
const RECORD: &str = "sandbox.json";

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    name: SandboxName,
    user: Option<SessionUser>,
}

/// A sandbox that a command boots for itself.
#[derive(Debug)]
pub struct OwnSandbox {
    /// Unique, as a session's is.
    pub name: SandboxName,
    /// All that this machine offers.
    pub confinement: Confinement,
}

impl OwnSandbox {
    /// One that this VMM is to boot, written down in the folder of its logs.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn record(vmm: &Vmm, log_dir: &Path) -> io::Result<Self> {
        let confinement = Confinement::of_this_machine(vmm.program().as_deref());
        let name: SandboxName =
            SessionId::generate().to_string().parse().expect("an id names a sandbox");
        let record = Record { name: name.clone(), user: confinement.user };
        std::fs::write(log_dir.join(RECORD), serde_json::to_vec(&record)?)?;
        Ok(Self { name, confinement })
    }

    /// Removes what it left, once it has ended.
    ///
    /// # Errors
    /// When something of it cannot be removed.
    pub fn remove(&self) -> Result<(), RemoveError> {
        remove_runtime_dir(&self.name.runtime_dir(), self.confinement.user)
    }
}

/// Removes what is left of the sandbox whose logs are in this folder, whose command is gone: its processes ended with
/// that. Where nothing is written down, there was none.
///
/// # Errors
/// When something of it cannot be removed.
pub fn remove_recorded(log_dir: &Path) -> Result<(), NotRemoved> {
    let record = std::fs::read(log_dir.join(RECORD)).ok();
    let record = record.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let Some(Record { name, user }) = record else { return Ok(()) };
    remove_left(SandboxIdentity { name: &name, user }, Some(&name.runtime_dir()))
}

#[cfg(test)]
mod tests {
    use anteroom_vm::VmAccelerator;

    use super::*;

    #[test]
    fn what_a_killed_command_left_is_found_by_the_folder_of_its_logs() {
        let logs = tempfile::tempdir().unwrap();
        remove_recorded(logs.path()).unwrap();
        let vmm = Vmm::Qemu { accelerator: VmAccelerator::Tcg, cpu: None };
        let OwnSandbox { name, .. } = OwnSandbox::record(&vmm, logs.path()).unwrap();
        let left = name.runtime_dir();
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("api"), "").unwrap();
        remove_recorded(logs.path()).unwrap();
        assert!(!left.exists());
        // It is gone already; or it was not written whole, before there was anything.
        remove_recorded(logs.path()).unwrap();
        std::fs::write(logs.path().join(RECORD), "{").unwrap();
        remove_recorded(logs.path()).unwrap();
    }
}
