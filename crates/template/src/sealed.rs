//! Memory that nobody can change any more.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, Mode, SealFlags, fchmod, fcntl_add_seals, memfd_create};

/// An empty file in memory, which a VMM of another user may open too; `name` is seen in /proc alone.
///
/// # Errors
/// When the system gives none.
pub fn in_memory(name: &str) -> io::Result<File> {
    let made = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    // A VMM opens it anew as its own user, and QEMU for writing also what it maps private.
    fchmod(&made, Mode::from_raw_mode(0o666))?;
    Ok(made.into())
}

/// From here on the kernel refuses every change of its bytes and its length, and other seals.
pub(crate) fn seal(file: File) -> io::Result<OwnedFd> {
    let all = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, all)?;
    Ok(file.into())
}
