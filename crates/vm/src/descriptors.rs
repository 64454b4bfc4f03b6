//! Descriptors that a VMM inherits, and opens by path.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::Command;

use command_fds::{CommandFdExt, FdMapping};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::{BootError, VmSpec};

/// Descriptors as every VMM sees them.
pub const INITRAMFS: RawFd = 12;
pub const KERNEL: RawFd = 13;
pub const ROOT_IMAGE: RawFd = 14;
pub const MEMORY: RawFd = 16;
pub const STATE: RawFd = 17;

/// A size that initramfs and memory are counted in.
const PAGE: usize = 4096;

/// The path of an inherited descriptor.
pub fn path_of(descriptor: RawFd) -> String {
    format!("/proc/self/fd/{descriptor}")
}

/// The same file, opened anew: at its beginning, and with an offset that nobody else moves.
pub fn opened_anew(file: &OwnedFd, how: &OpenOptions) -> io::Result<OwnedFd> {
    how.open(path_of(file.as_raw_fd())).map(OwnedFd::from)
}

/// What a VM begins with, each with its number: its image, and unless it is a clone, which has what it read
/// of them in its memory, kernel and initramfs.
pub fn beginnings(vm: &VmSpec) -> Result<Vec<(OwnedFd, RawFd)>, BootError> {
    let open = |file: &OwnedFd| {
        // A VMM's own: what it does to its descriptor, others do not see.
        let opened = opened_anew(file, OpenOptions::new().read(true));
        opened.map_err(BootError::system("opening the image's files"))
    };
    let mut files = Vec::new();
    if !vm.start.is_clone() {
        files.push((open(&vm.kernel)?, KERNEL));
        let initramfs = in_memory(&vm.initramfs)
            .map_err(BootError::system("keeping the initramfs in memory"))?;
        files.push((initramfs, INITRAMFS));
    }
    files.push((open(&vm.root_image)?, ROOT_IMAGE));
    Ok(files)
}

/// Passes descriptors to a command, each with its number there.
pub fn pass(
    command: &mut Command,
    descriptors: impl IntoIterator<Item = (OwnedFd, RawFd)>,
) -> io::Result<()> {
    let mappings = descriptors
        .into_iter()
        .map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd })
        .collect();
    command
        .fd_mappings(mappings)
        .map(drop)
        .map_err(|_| io::Error::other("two descriptors have one number"))
}

/// QEMU puts the initramfs at the first page that lets it end below the top of memory, where newer
/// SeaBIOS (Debian 13) keeps the ACPI tables: what is longer than a few hundred bytes in its last
/// page overwrites them, and the guest hangs silently. Zeros after an archive mean nothing to
/// the kernel; with one byte in the last page the rest of it is the tables'. How many zeros come after
/// so many bytes.
fn clear_of_firmware(length: usize) -> usize {
    length.next_multiple_of(PAGE) + 1 - length
}

/// An initramfs as a file that exists only as a descriptor.
pub fn in_memory(initramfs: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(c"anteroom-initramfs", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(initramfs)?;
    file.write_all(&[0; PAGE + 1][..clear_of_firmware(initramfs.len())])?;
    file.seek(SeekFrom::Start(0))?;
    // The VMM opens it anew, as another user.
    nix::sys::stat::fchmod(&file, nix::sys::stat::Mode::from_bits_truncate(0o444))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_opened_anew_is_read_from_its_beginning() {
        let shared = in_memory(b"state").unwrap();
        for _ in 0..2 {
            let own = opened_anew(&shared, OpenOptions::new().read(true)).unwrap();
            let mut text = [0; 5];
            std::io::Read::read_exact(&mut File::from(own), &mut text).unwrap();
            assert_eq!(&text, b"state");
        }
    }

    #[test]
    fn the_initramfs_leaves_the_last_page_to_the_firmware() {
        for length in [0, 1, 2, 4095, 4096, 4097, 10_000] {
            let initramfs = vec![7; length];
            let mut padded = Vec::new();
            let mut file = File::from(in_memory(&initramfs).unwrap());
            std::io::Read::read_to_end(&mut file, &mut padded).unwrap();
            assert_eq!(padded.len() % 4096, 1);
            assert!(padded.starts_with(&initramfs));
            assert!(padded[length..].iter().all(|byte| *byte == 0));
        }
    }
}
