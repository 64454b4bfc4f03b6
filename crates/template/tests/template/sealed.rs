//! What is loaded cannot be changed by whoever has it, and can be used as VMMs use it.

#![allow(unsafe_code, reason = "mapping memory is")]

use std::fs::File;
use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, FdFlag, SealFlag, fallocate, fcntl};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::support::{Image, MIB, content, memory};

#[test]
fn the_kernel_refuses_each_change() {
    let image = Image::new();
    image.write();
    let loaded = image.load().unwrap();
    for (name, fd) in [("memory", loaded.memory), ("state", loaded.state)] {
        let file = File::from(fd);
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        let link = std::fs::read_link(&own).unwrap();
        assert_eq!(link.to_str().unwrap(), format!("/memfd:anteroom-template-{name} (deleted)"));
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o666);
        let flags = FdFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
        let before = content(&file);
        // As QEMU does.
        let again = File::options().read(true).write(true).open(&own).unwrap();
        for file in [&file, &again] {
            let refused = |result: std::io::Result<()>| {
                assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
            };
            refused(file.write_all_at(b"x", 0));
            refused(file.set_len(1));
            refused(file.set_len(4 * MIB as u64));
            let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            for mode in [punch, FallocateFlags::FALLOC_FL_ZERO_RANGE] {
                assert!(fallocate(file, mode, 0, 4096).is_err());
            }
            let seal = FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK);
            assert_eq!(fcntl(file, seal), Err(Errno::EPERM));
            let length = NonZeroUsize::new(4096).unwrap();
            let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
            // SAFETY: a new mapping, which nothing points into.
            let shared = unsafe { mmap(None, length, both, MapFlags::MAP_SHARED, file.as_fd(), 0) };
            assert_eq!(shared.unwrap_err(), Errno::EPERM);
        }
        assert!(content(&file) == before);
    }
}

#[test]
fn a_private_mapping_is_written_and_the_template_stays() {
    let image = Image::new();
    image.write();
    let file = File::from(image.load().unwrap().memory);
    let again = format!("/proc/self/fd/{}", file.as_raw_fd());
    let again = File::options().read(true).write(true).open(again).unwrap();
    let length = NonZeroUsize::new(2 * MIB).unwrap();
    let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping of the file's length, used in this block alone.
    unsafe {
        let mapped = mmap(None, length, both, MapFlags::MAP_PRIVATE, &again, 0).unwrap();
        let bytes = std::slice::from_raw_parts_mut(mapped.cast::<u8>().as_ptr(), length.get());
        assert!(bytes == content(&memory()));
        bytes.fill(0xff);
        munmap(mapped, length.get()).unwrap();
    }
    assert!(content(&file) == content(&memory()));
}
