//! Templates: saved VMs that sessions are cloned from, which is a warm start. A template is the
//! memory of a guest, the state of its devices, a picture of its screen, and a manifest signed with a key of this machine.
//!
//! ```text
//! <image>/templates/<id>/memory          the guest's memory, a sparse file
//!                        state           its devices, as the VMM writes and reads them
//!                        picture.png     what its screen shows
//!                        manifest.json   what it was made for, and the digests of these
//!                        manifest.sig    Ed25519 over the manifest, 64 bytes
//! ```
//!
//! [`load`] copies memory and state into sealed memory and verifies what it copied. From then on nothing on
//! the disk is trusted: the kernel refuses every change of that memory, whoever opens it, so a clone
//! can map it private, and nothing is hashed when a session starts. The signature says that a
//! template was made on this machine, not that it is the last one: who can write to an image's folder
//! can put an older one back.
#![forbid(unsafe_code)]

/// In an image's folder: where its templates are.
pub const FOLDER: &str = "templates";

mod copy;
mod digest;
mod error;
mod folder;
mod load;
mod machine_key;
mod made_for;
mod manifest;
mod sealed;
mod store;

pub use error::TemplateError;
pub use load::{Loaded, load, without_zeros};
pub use machine_key::{MachineKey, MachineKeyError};
pub use made_for::{Difference, TemplateFor};
pub use manifest::{MAX_MANIFEST, MAX_PICTURE, MAX_STATE, Manifest, Recorded, VERSION};
pub use sealed::in_memory;
pub use store::{Saved, Summary, bytes_to_load, list, remove, write};
