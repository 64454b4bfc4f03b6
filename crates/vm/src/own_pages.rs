//! Pages that a clone will change, made its own before it runs.
//!
//! A clone's memory is its template's, mapped privately: the first write to each page makes its VMM wait for
//! a copy. Where there is time before, the copies can be made then. Nothing that the guest has is changed: a
//! byte of each page is read and written back.
//!
//! Nobody else may write there meanwhile. The guest's processors do not run; devices touch the guest's memory
//! for its processors, and both VMMs' go on with their queues only once those run; what could come from outside,
//! the link and the console, is in the hands of whoever calls this.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

use crate::mapped::addresses;
use crate::page_set::PageSet;

/// Pages that one system call takes; the kernel takes up to 1024.
const AT_ONCE: usize = 512;

/// Makes these pages of the file its own in a process that maps it privately, and stands. How many they are.
///
/// # Errors
/// When this process may not, or the other is gone.
pub fn make_own(pid: u32, file: &impl AsFd, pages: &PageSet) -> io::Result<usize> {
    let process = Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?);
    let addresses = addresses(pid, file, pages)?;
    for some in addresses.chunks(AT_ONCE) {
        let there: Vec<RemoteIoVec> =
            some.iter().map(|base| RemoteIoVec { base: *base, len: 1 }).collect();
        let mut bytes = [0; AT_ONCE];
        let bytes = &mut bytes[..some.len()];
        whole(process_vm_readv(process, &mut [IoSliceMut::new(bytes)], &there)?, some)?;
        whole(process_vm_writev(process, &[IoSlice::new(bytes)], &there)?, some)?;
    }
    Ok(addresses.len())
}

/// The kernel stops at the first that it cannot take.
fn whole(taken: usize, of: &[usize]) -> io::Result<()> {
    if taken == of.len() { Ok(()) } else { Err(Errno::EFAULT.into()) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::fs::FileExt;
    use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

    use memmap2::MmapOptions;
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;
    use crate::mapped::changed_pages;
    use crate::page_set::PAGE;

    const PAGES: usize = 600;
    const BYTES: usize = 4096;

    /// Page N is full of its number.
    fn sealed() -> File {
        let file = File::from(memfd_create("pages", MFdFlags::MFD_ALLOW_SEALING).unwrap());
        for page in 0..PAGES {
            let content = u32::try_from(page).unwrap().to_ne_bytes().repeat(BYTES / 4);
            file.write_all_at(&content, page as u64 * PAGE).unwrap();
        }
        fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)).unwrap();
        file
    }

    /// Maps its standard input privately, changes page 1, and answers each line with a sum of what it sees.
    /// Started by the test below.
    #[test]
    fn map_and_wait() {
        let Some(path) = std::env::var_os("ANTEROOM_TEST_MAPS") else { return };
        let file = File::options().read(true).open(path).unwrap();
        // SAFETY: the file is sealed.
        #[expect(unsafe_code, reason = "mapping a file")]
        let mut memory = unsafe { MmapOptions::new().map_copy(&file) }.unwrap();
        memory[BYTES] = 77;
        println!("mapped");
        for line in std::io::stdin().lines() {
            line.unwrap();
            let sum: u64 = memory.iter().map(|byte| u64::from(*byte)).sum();
            println!("sum {sum}");
        }
    }

    struct Process {
        child: Child,
        asks: ChildStdin,
        says: BufReader<ChildStdout>,
    }

    impl Process {
        fn mapping(file: &File) -> Self {
            let path = format!("/proc/{}/fd/{}", std::process::id(), {
                use std::os::fd::AsRawFd;
                file.as_raw_fd()
            });
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "own_pages::tests::map_and_wait", "--nocapture"])
                .env("ANTEROOM_TEST_MAPS", path)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let (asks, says) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            let mut process = Self { child, asks, says: BufReader::new(says) };
            process.until("mapped");
            process
        }

        /// The rest of the next line that has this in it.
        fn until(&mut self, what: &str) -> String {
            let mut line = String::new();
            while self.says.read_line(&mut line).unwrap() > 0 {
                if let Some((_, rest)) = line.split_once(what) {
                    return rest.trim().to_owned();
                }
                line.clear();
            }
            panic!("it ended");
        }

        fn sum(&mut self) -> u64 {
            self.asks.write_all(b"\n").unwrap();
            self.until("sum ").parse().unwrap()
        }

        fn pid(&self) -> u32 {
            self.child.id()
        }
    }

    impl Drop for Process {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn content(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; PAGES * BYTES];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn pages_are_a_process_own_with_what_they_had_and_the_file_is_as_it_was() {
        let file = sealed();
        let before = content(&file);
        let mut process = Process::mapping(&file);
        let pid = process.pid();
        let changed = changed_pages(pid, &file).unwrap();
        assert_eq!(changed, PageSet::of([1]));
        let sum = process.sum();
        // What the file does not have is not looked for.
        let all = u32::try_from(PAGES).unwrap();
        let ahead = PageSet::of((0..all).filter(|page| page % 7 != 3).chain(all..all + 40));
        let made = make_own(pid, &file, &ahead).unwrap();
        assert_eq!(made, ahead.len() - 40);
        let own = PageSet::of((0..all).filter(|page| page % 7 != 3));
        assert_eq!(changed_pages(pid, &file).unwrap(), own);
        assert_eq!(process.sum(), sum);
        assert!(content(&file) == before, "the file was changed");
    }

    #[test]
    fn nobody_s_pages_are_made_own_in_a_process_that_does_not_map_the_file() {
        let (file, other) = (sealed(), sealed());
        let process = Process::mapping(&file);
        assert_eq!(make_own(process.pid(), &other, &PageSet::of([1, 2])).unwrap(), 0);
        assert_eq!(changed_pages(process.pid(), &other).unwrap(), PageSet::default());
        assert!(make_own(i32::MAX.unsigned_abs(), &file, &PageSet::of([1])).is_err());
    }
}
