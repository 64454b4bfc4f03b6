//! `manifest.json` of a template.

use serde::{Deserialize, Serialize};

use crate::made_for::TemplateFor;

/// Of the manifest's form, and of the digest's.
pub const VERSION: u32 = 2;
/// The largest state of a VM's devices, in bytes.
pub const MAX_STATE: u64 = 64 * 1024 * 1024;
/// The largest picture, in bytes.
pub const MAX_PICTURE: u64 = 8 * 1024 * 1024;
/// The largest manifest, in bytes.
pub const MAX_MANIFEST: u64 = 64 * 1024;

/// What a template is, as it was signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// All that has to be the same where it is used.
    pub made_for: TemplateFor,
    /// When it was made, in milliseconds since the Unix epoch.
    pub made_unix_ms: u64,
    /// What the guest waits for before it goes on, as it was given to the guest.
    pub wake_token: String,
    /// The guest's memory.
    pub memory: Recorded,
    /// The state of its devices.
    pub state: Recorded,
    /// What its screen shows.
    pub picture: Recorded,
}

/// What a file must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// Its length.
    pub bytes: u64,
    /// Lower-case hexadecimal SHA-256 over each block of 64 KiB that is not all zeros (its index as a
    /// little-endian `u64`, and its bytes) and the length as another: not what `sha256sum` prints.
    pub digest: String,
}

/// Why bytes are not a manifest that is understood here.
#[derive(Debug)]
pub(crate) enum NotUnderstood {
    Version(u32),
    Json(serde_json::Error),
}

impl Manifest {
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self, NotUnderstood> {
        /// All that other versions are sure to have.
        #[derive(Deserialize)]
        struct Any {
            version: u32,
        }
        let Any { version } = serde_json::from_slice(bytes).map_err(NotUnderstood::Json)?;
        if version != VERSION {
            return Err(NotUnderstood::Version(version));
        }
        serde_json::from_slice(bytes).map_err(NotUnderstood::Json)
    }
}

/// How long the memory of a template is, in bytes.
pub(crate) fn memory_bytes(made_for: &TemplateFor) -> u64 {
    u64::from(made_for.memory_mib) * 1024 * 1024
}
