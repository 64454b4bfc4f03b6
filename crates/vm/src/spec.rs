//! What is booted, whatever boots it.

use std::path::PathBuf;

use anteroom_confine::Confinement;

use crate::{ConsoleFile, SandboxName};

/// What every driver has to know of a sandbox.
#[derive(Clone, Debug)]
pub struct SandboxSpec {
    /// What its processes, files and cgroup carry.
    pub name: SandboxName,
    /// What holds its process.
    pub confinement: Confinement,
    /// Where its console, or its output, goes.
    pub console: ConsoleFile,
}

/// What every VMM has to know of a VM.
#[derive(Clone, Debug)]
pub struct VmSpec {
    /// Uncompressed kernel (ELF).
    pub kernel: PathBuf,
    /// Complete: kernel modules and agent.
    pub initramfs: Vec<u8>,
    /// Root file system, shared by all VMs, never written.
    pub root_image: PathBuf,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Guest processors.
    pub vcpus: u8,
}
