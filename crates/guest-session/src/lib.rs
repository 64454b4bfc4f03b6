//! A sandbox and the conversation with its guest, whatever it is booted for.
//!
//! A sandbox is booted as its [`SandboxConfig`] says; a [`Conversation`] goes from the first byte of
//! its link to services that are starting, and hands over the guest's messages; a [`DiagnosedEnd`] says why
//! it ended.
//! All that a guest says is hostile: it is paced ([`pace()`]), bounded, and ends with an
//! [`EndReason`](anteroom_session::EndReason) when it breaks the protocol or stops coming.
#![forbid(unsafe_code)]

mod control;
mod conversation;
mod end;
mod failure;
mod files;
mod freeze;
pub mod log_files;
mod own_sandbox;
mod pace;
mod paced_link;
mod sandbox;
mod service_log;
mod snapshot;
pub mod template;
mod vmm;

pub use anteroom_image::ImageFiles;
pub use control::{GuestMessages, GuestSender, unix_ms};
pub use conversation::{Conversation, Hello, LinkTask, entropy_base64};
pub use end::{DiagnosedEnd, start_guest, until_end};
pub use failure::{broken, kind, link_failed, violation};
pub use files::inject;
pub use freeze::FreezableLink;
pub use own_sandbox::{OwnSandbox, remove_recorded};
pub use pace::pace;
pub use sandbox::{
    CloneOf, DriverConfig, SandboxConfig, TemplateFiles, VmConfig, VmFiles, boot, vm_spec,
};
pub use service_log::ServiceLog;
pub use snapshot::{Photographer, SavedVm, Snapshot, SnapshotError};
pub use vmm::{Vmm, cpu_profile_name};
