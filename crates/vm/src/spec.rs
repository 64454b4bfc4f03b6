//! What is booted, whatever boots it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use anteroom_confine::Confinement;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};

use crate::own_pages::make_own;
use crate::{BootError, ConsoleFile, PageSet, SandboxName};

/// Nobody changes a file that has these any more.
const SEALS: SealFlag =
    SealFlag::F_SEAL_WRITE.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW);

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
    /// Uncompressed kernel (ELF), open for reading; a clone reads none.
    pub kernel: Arc<OwnedFd>,
    /// Complete: kernel modules and agent; a clone reads none.
    pub initramfs: Vec<u8>,
    /// Root file system, open for reading: shared by all VMs, never written.
    pub root_image: Arc<OwnedFd>,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Guest processors.
    pub vcpus: u8,
    /// How it begins.
    pub start: VmStart,
}

/// How a VM begins. Its files are memfds that its VMM opens anew by path, as another user perhaps: their
/// modes must let that user read and write.
#[derive(Clone, Debug)]
pub enum VmStart {
    /// Powered on, with memory of its own.
    PowerOn,
    /// Powered on, to be saved by [`RunningSandbox::save`](crate::RunningSandbox::save).
    ToBeSaved {
        /// Its memory, of [`VmSpec::memory_mib`]: QEMU shares it from the beginning, Firecracker writes it
        /// when it saves.
        memory: Arc<OwnedFd>,
        /// Empty; the state of its devices is written to it then.
        state: Arc<OwnedFd>,
    },
    /// Goes on where a saved one stopped, which had the same [`VmSpec`] and the same VMM. Its guest waits
    /// for [`RunningSandbox::start_guest`](crate::RunningSandbox::start_guest). Its clocks go on from when
    /// it was saved. With QEMU its kernel's random numbers are first those of every other clone, until
    /// somebody reseeds them; Firecracker has the kernel do that. With Firecracker its guest must listen
    /// for the host, whose connection to the template is reset.
    Clone {
        /// What a saved VM's memory was, sealed (`F_SEAL_WRITE`, `F_SEAL_SHRINK`, `F_SEAL_GROW`): what the
        /// guest writes is its VMM's own.
        memory: Arc<OwnedFd>,
        /// The state of its devices, sealed too.
        state: Arc<OwnedFd>,
        /// Pages of its memory that it will change soon, as another did: made its own before it runs.
        ahead: PageSet,
    },
}

impl VmStart {
    /// Whether it is another VM's memory that it begins with.
    pub(crate) fn is_clone(&self) -> bool {
        matches!(self, Self::Clone { .. })
    }

    /// Makes a clone's pages its own whose process is this, and whose processors do not run yet. It goes on
    /// without where that is refused.
    pub(crate) fn make_own_ahead(&self, pid: u32) {
        let Self::Clone { memory, ahead, .. } = self else { return };
        if ahead.is_empty() {
            return;
        }
        let began = Instant::now();
        match make_own(pid, memory, ahead) {
            Ok(pages) => tracing::debug!(pages, took = ?began.elapsed(), "pages were copied ahead"),
            Err(error) => tracing::warn!(
                "copying {} pages of the VM's memory before it runs failed: {error}; each is copied when \
                 the guest changes it",
                ahead.len()
            ),
        }
    }

    /// Its memory and state, where they are files.
    ///
    /// # Errors
    /// When it is a clone, and not both are sealed: what one clone wrote, all others would read.
    pub(crate) fn files(&self) -> Result<Option<[&OwnedFd; 2]>, BootError> {
        match self {
            Self::PowerOn => Ok(None),
            Self::ToBeSaved { memory, state } => Ok(Some([memory, state])),
            Self::Clone { memory, state, .. } => {
                for (file, what) in [(memory, "memory"), (state, "state")] {
                    // A file of another kind has no seals to ask for.
                    let seals = fcntl(file, FcntlArg::F_GET_SEALS).unwrap_or(0);
                    if !SealFlag::from_bits_retain(seals).contains(SEALS) {
                        return Err(BootError::Unsealed { what });
                    }
                }
                Ok(Some([memory, state]))
            }
        }
    }
}
