//! Firecracker's program: where it is, and whether it is new enough.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::one_line;

/// The oldest version that is used: 1.16.0 loses vsock over a restore, and earlier ones have holes that are
/// public (CVE-2026-5747, CVE-2026-1386).
pub const OLDEST: (u64, u64, u64) = (1, 16, 1);

/// Names the program where it is not on the PATH.
const PROGRAM_ENV: &str = "ANTEROOM_FIRECRACKER";

const PROGRAM: &str = "firecracker";

/// Firecracker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It is not on this machine.
    #[error(
        "Firecracker is not installed; put the program `firecracker` of a release on the PATH, or name it in {PROGRAM_ENV}"
    )]
    Missing,
    /// It does not run, or does not say its version.
    #[error("{} does not say its version: {said}", path.display())]
    NotFirecracker {
        /// The program.
        path: PathBuf,
        /// What it said, or why it did not run.
        said: String,
    },
    /// It is too old.
    #[error(
        "Firecracker {found} is too old: {}.{}.{} is the oldest that is used",
        OLDEST.0,
        OLDEST.1,
        OLDEST.2
    )]
    TooOld {
        /// Its version.
        found: String,
    },
}

/// A Firecracker that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The program.
    pub path: PathBuf,
    /// Its version, as it says it.
    pub version: String,
}

impl Installed {
    /// Looks for it: by `ANTEROOM_FIRECRACKER`, then on the PATH.
    ///
    /// # Errors
    /// When there is none, or one that cannot be used.
    pub fn find() -> Result<Self, ProgramError> {
        Self::at(&path().ok_or(ProgramError::Missing)?)
    }

    /// Asks the program there.
    ///
    /// # Errors
    /// When it is not Firecracker, or too old.
    pub fn at(path: &Path) -> Result<Self, ProgramError> {
        let not_firecracker =
            |said: &str| ProgramError::NotFirecracker { path: path.into(), said: one_line(said) };
        let output = Command::new(path)
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| not_firecracker(&error.to_string()))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let version = said.lines().find_map(|line| line.strip_prefix("Firecracker v"));
        let version = version
            .ok_or_else(|| not_firecracker(said.lines().next().unwrap_or("it printed nothing")))?;
        let version = version.trim().to_owned();
        check_version(&version)?;
        Ok(Self { path: path.to_path_buf(), version })
    }
}

fn path() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(PROGRAM_ENV).filter(|named| !named.is_empty()) {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(PROGRAM)).find(|file| file.is_file())
}

/// `1.16.1`, or `1.17.0-dev` of a build between two releases.
pub fn check_version(version: &str) -> Result<(), ProgramError> {
    let too_old = || ProgramError::TooOld { found: one_line(version) };
    let mut numbers = version.split(['.', '-']).map(str::parse::<u64>);
    let mut next = || numbers.next().and_then(Result::ok).ok_or_else(too_old);
    let found = (next()?, next()?, next()?);
    if found < OLDEST { Err(too_old()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_versions_are_refused() {
        for fit in ["1.16.1", "1.16.2", "1.17.0-dev", "2.0.0"] {
            assert!(check_version(fit).is_ok(), "{fit}");
        }
        for unfit in ["1.16.0", "1.15.9", "0.25.2", "1.16", "", "v1.17.0", "newest"] {
            assert!(check_version(unfit).is_err(), "{unfit}");
        }
        assert_eq!(
            check_version("1.9.1").unwrap_err().to_string(),
            "Firecracker 1.9.1 is too old: 1.16.1 is the oldest that is used"
        );
    }

    #[test]
    fn what_is_not_firecracker_is_said_to_be() {
        let error = Installed::at(Path::new("/bin/echo")).unwrap_err();
        let said = error.to_string();
        assert!(said.starts_with("/bin/echo does not say its version: echo (GNU"), "{said}");
    }
}
