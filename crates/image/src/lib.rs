//! Golden images: a recipe becomes a root file system, a kernel and an initramfs, each recorded by
//! its digest and checked before every use.
//!
//! ```text
//! <images>/<name>/<recipe digest>/root.erofs     read-only root, shared by all VMs
//!                                 vmlinux        kernel, unpacked
//!                                 modules.cpio   initramfs: kernel modules and their order
//!                                 manifest.json  digests, packages, kernel, times
//!                                 verified-*.json  what was verified of it, for which processor
//! ```
#![forbid(unsafe_code)]

mod build;
mod cpio;
mod hash;
mod kernel;
mod manifest;
mod opened;
mod recipe;
mod store;
mod verification;

pub use build::{
    BUILD_MIB, BuildError, BuildOptions, BuildStep, Built, Progress, build, free_mib, missing_tools,
};
pub use cpio::{initramfs_with_agent, initramfs_with_program};
pub use kernel::{KernelError, modules_initramfs};
pub use manifest::{
    CpuModel, FileRecord, Manifest, PackageRecord, Processor, Verdict, VerificationRef,
};
pub use opened::{Image, ImageFiles, ImageHold, ImageStamp};
pub use recipe::{CopiedFile, ProgramSpec, Recipe, RecipeError, check_services};
pub use store::{ImageError, ImageSummary, find, list, remove};
pub use verification::{
    BeyondFeature, Component, Finding, Inventory, NotVerified, Reached, Verification, verified_for,
};
