//! What a process may open, by Landlock: for itself and all its children, and never more again.

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope,
};

/// The newest form of Landlock that is made use of; an older kernel holds what it knows of it.
const NEWEST: ABI = ABI::V6;

/// What a process may reach.
#[derive(Clone, Debug, Default)]
pub struct FileAccess {
    /// Files, and folders with all below, that it reads.
    pub reads: Vec<PathBuf>,
    /// Those that it also runs programs and libraries from.
    pub runs: Vec<PathBuf>,
    /// Files that it reads and writes.
    pub writes: Vec<PathBuf>,
    /// Folders that it makes sockets in, and removes them from.
    pub makes_sockets: Vec<PathBuf>,
    /// Whether it connects to others by TCP.
    pub connects: bool,
    /// Whether it signals processes that are not held by the same rules.
    pub signals: bool,
}

impl FileAccess {
    /// The rules, to be put in force by [`Rules::restrict`], after a fork perhaps. Paths that are not there are
    /// left out.
    ///
    /// # Errors
    /// When the kernel refuses them; one without Landlock does not, and holds nothing.
    pub fn rules(&self) -> Result<Rules, RulesetError> {
        let files = AccessFs::from_all(NEWEST);
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(files)?
            .handle_access(AccessNet::BindTcp)?
            .scope(Scope::AbstractUnixSocket)?;
        if !self.connects {
            ruleset = ruleset.handle_access(AccessNet::ConnectTcp)?;
        }
        if !self.signals {
            ruleset = ruleset.scope(Scope::Signal)?;
        }
        let mut created = ruleset.create()?;
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let kinds = [
            (&self.reads, read),
            (&self.runs, read | AccessFs::Execute),
            (&self.writes, AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev),
            (&self.makes_sockets, read | AccessFs::MakeSock | AccessFs::RemoveFile),
        ];
        for (paths, access) in kinds {
            for path in paths {
                created = allow(created, path, access)?;
            }
        }
        Ok(Rules(created))
    }
}

/// Rules that are not in force yet.
#[derive(Debug)]
pub struct Rules(RulesetCreated);

impl Rules {
    /// Puts them in force for this thread, which also gives up new privileges; whether the kernel holds
    /// them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn restrict(self) -> io::Result<bool> {
        let restricted: Result<RestrictionStatus, _> = self.0.restrict_self();
        let status = restricted.map_err(|error| io::Error::other(error.to_string()))?;
        Ok(status.ruleset != RulesetStatus::NotEnforced)
    }
}

fn allow(
    created: RulesetCreated,
    path: &Path,
    access: landlock::BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let Ok(fd) = PathFd::new(path) else { return Ok(created) };
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
    created.add_rule(PathBeneath::new(fd, access))
}

/// Whether this kernel has Landlock.
#[must_use]
pub fn kernel_limits_files() -> bool {
    let strict = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    strict.handle_access(AccessFs::Execute).and_then(Ruleset::create).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a thread of its own, which takes the rules along into its end.
    #[test]
    fn a_thread_opens_what_it_may_and_nothing_else() {
        if !kernel_limits_files() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, "x").unwrap();
            path
        };
        let (open, closed, written) = (place("open"), place("closed"), place("written"));
        let access = FileAccess {
            reads: vec![open.clone(), "/nowhere".into()],
            writes: vec![written.clone()],
            ..FileAccess::default()
        };
        std::thread::spawn(move || {
            assert!(access.rules().unwrap().restrict().unwrap());
            assert!(std::fs::read(&open).is_ok());
            assert!(std::fs::read(&closed).is_err());
            assert!(std::fs::write(&open, "y").is_err());
            assert!(std::fs::OpenOptions::new().write(true).open(&written).is_ok());
        })
        .join()
        .unwrap();
    }
}
