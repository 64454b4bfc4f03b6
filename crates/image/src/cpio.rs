//! Initramfs archives: cpio in the "newc" format (Linux, Documentation/driver-api/early-userspace/
//! buffer-format.rst). The kernel unpacks concatenated archives one after the other.

/// Writes one archive.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

impl Archive {
    pub(crate) fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, &[], (0, 0));
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(path, REGULAR | mode, content, (0, 0));
    }

    pub(crate) fn character_device(&mut self, path: &str, device: (u32, u32)) {
        self.entry(path, CHARACTER_DEVICE | 0o600, &[], device);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8], device: (u32, u32)) {
        self.entries += 1;
        let length = u32::try_from(content.len()).expect("initramfs files are far below 4 GiB");
        let name_length = u32::try_from(path.len() + 1).expect("paths are short");
        let (links, major, minor) = (1, device.0, device.1);
        // inode, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor,
        // namesize, check
        let fields =
            [self.entries, mode, 0, 0, links, 0, length, 0, 0, major, minor, name_length, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

/// The image's initramfs with the agent as `/init` behind it, ready for a VMM.
#[must_use]
pub fn initramfs_with_agent(base: &[u8], agent: &[u8]) -> Vec<u8> {
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "sys", "newroot"] {
        archive.directory(folder);
    }
    // The kernel opens it for PID 1 before anything is mounted.
    archive.character_device("dev/console", (5, 1));
    archive.file("init", 0o755, agent);
    let mut bytes = base.to_vec();
    bytes.extend(archive.finish());
    bytes
}

/// `initramfs` and one more file, executable, at `path`.
#[must_use]
pub fn initramfs_with_program(mut initramfs: Vec<u8>, path: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.file(path, 0o755, content);
    initramfs.extend(archive.finish());
    initramfs
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// Held to GNU cpio's reading of the format.
    #[test]
    fn cpio_reads_what_is_written() {
        let mut archive = Archive::default();
        archive.directory("lib");
        archive.file("lib/a.ko", 0o644, b"12345");
        let bytes = initramfs_with_agent(&[], b"agent");
        for (bytes, names) in [
            (archive.finish(), "lib\nlib/a.ko\n"),
            (bytes, "dev\nproc\nsys\nnewroot\ndev/console\ninit\n"),
        ] {
            let Ok(mut child) = Command::new("cpio")
                .args(["-it", "--quiet"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
            else {
                // Not on every machine; the real boot in the end-to-end tests reads it too.
                return;
            };
            child.stdin.take().unwrap().write_all(&bytes).unwrap();
            let output = child.wait_with_output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), names);
        }
    }
}
