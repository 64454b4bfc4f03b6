//! What an image is made of.

use std::collections::BTreeMap;

use anteroom_guest_protocol::ServiceSpec;
use serde::{Deserialize, Serialize};

use crate::recipe::ProgramSpec;

/// `manifest.json` of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Of this file.
    pub format: u32,
    /// The recipe's name.
    pub name: String,
    /// The recipe's digest.
    pub recipe_digest: String,
    /// Debian's suite.
    pub suite: String,
    /// The archive it was built from.
    pub mirror: String,
    /// Kernel release, `uname -r`.
    pub kernel: String,
    /// Seconds since the Unix epoch.
    pub created_at: u64,
    /// Milliseconds of each build step.
    pub build_ms: BTreeMap<String, u64>,
    /// File name → what it must be.
    pub files: BTreeMap<String, FileRecord>,
    /// Every installed package.
    pub packages: Vec<PackageRecord>,
    /// What runs in its sandboxes beside the sandbox's own services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceSpec>,
    /// Programs that must run in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<ProgramSpec>,
    /// What was verified of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verifications: Vec<VerificationRef>,
}

/// What a file must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Lower-case hexadecimal.
    pub sha256: String,
    /// Length.
    pub bytes: u64,
}

/// An installed package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageRecord {
    /// Debian's name.
    pub name: String,
    /// Debian's version.
    pub version: String,
}

impl PackageRecord {
    /// The installed packages of dpkg's status file.
    #[must_use]
    pub fn from_dpkg_status(status: &str) -> Vec<Self> {
        status
            .split("\n\n")
            .filter_map(|stanza| {
                let field = |name: &str| {
                    stanza
                        .lines()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                        .map(str::to_owned)
                };
                let installed = field("Status")?.ends_with(" installed");
                installed.then_some(Self { name: field("Package")?, version: field("Version")? })
            })
            .collect()
    }
}

/// A record, as the manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerificationRef {
    /// For which processor.
    pub cpu: Processor,
    /// Whether all went well.
    pub verdict: Verdict,
    /// The record's file, beside the manifest.
    pub record: String,
    /// Lower-case hexadecimal SHA-256 of that file.
    pub sha256: String,
}

/// A processor as a guest is given it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processor {
    /// The CPU profile's name.
    pub profile: String,
    /// The same as a VMM is given it.
    #[serde(flatten)]
    pub model: CpuModel,
}

/// A processor in the terms of one VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CpuModel {
    /// What follows `-cpu`, as `Nehalem-v1`.
    Qemu(String),
    /// A custom CPU template in JSON; empty for this machine's own processor.
    Firecracker(String),
}

impl CpuModel {
    /// As its VMM takes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Qemu(model) | Self::Firecracker(model) => model,
        }
    }
}

/// Whether something went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It did.
    Passed,
    /// It did not.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_packages_are_listed() {
        let status = "Package: a\nStatus: install ok installed\nVersion: 1:2-3\n\n\
                      Package: b\nStatus: deinstall ok config-files\nVersion: 1\n";
        assert_eq!(
            PackageRecord::from_dpkg_status(status),
            [PackageRecord { name: "a".into(), version: "1:2-3".into() }]
        );
    }
}
