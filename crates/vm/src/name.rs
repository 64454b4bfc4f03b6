//! The name that a sandbox's processes, files and cgroup carry.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name, in bytes.
const MAX_LEN: usize = 64;

/// What a sandbox is called on its host: 1 to 64 of `a-z 0-9 -`. It is one part of a path, an
/// environment variable's value and an argument of the VMM, and one sandbox's alone: what carries it is
/// found and removed by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SandboxName(String);

/// A text that names no sandbox.
#[derive(Debug, thiserror::Error)]
#[error("a sandbox's name must be 1 to {MAX_LEN} lower-case letters, digits and hyphens")]
pub struct InvalidName;

impl SandboxName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Folder of the sandbox's files on its host, where its driver needs one. It follows from the name
    /// alone, so that it is found after a restart.
    #[must_use]
    pub fn runtime_dir(&self) -> PathBuf {
        Path::new("/tmp").join(format!("anteroom-{self}"))
    }
}

impl fmt::Display for SandboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SandboxName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for SandboxName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        let is_known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let is_name = (1..=MAX_LEN).contains(&text.len()) && text.bytes().all(is_known);
        if is_name { Ok(Self(text)) } else { Err(InvalidName) }
    }
}

impl From<SandboxName> for String {
    fn from(name: SandboxName) -> Self {
        name.0
    }
}

#[cfg(test)]
impl SandboxName {
    /// One that no other test has.
    pub(crate) fn of_test() -> Self {
        Self(anteroom_session::SessionId::generate().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_of_a_path_and_one_argument() {
        assert!("0192-ab".parse::<SandboxName>().is_ok());
        for bad in ["", "..", "a/b", "a,b", "a b", "A", "a\0", &"a".repeat(65)] {
            assert!(bad.parse::<SandboxName>().is_err(), "{bad:?}");
        }
    }
}
