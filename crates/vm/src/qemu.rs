//! QEMU microVMs.

mod accelerator;
mod command_line;
mod monitor;

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anteroom_confine::Limits;
use anteroom_fail_point::fail_point;
use anteroom_guest_protocol::SANDBOX_ENV;
use anteroom_session::DriverKind;
use command_fds::{CommandFdExt, FdMapping};
use nix::sys::memfd::{MFdFlags, memfd_create};

use self::command_line::{
    CONSOLE, INITRAMFS, KERNEL, LINK, MONITOR, ROOT_IMAGE, TRANSLATION_BUFFER_MIB, arguments,
};
use self::monitor::Monitor;
use crate::process::{Launch, RunningSandbox, stream};
use crate::spawn_confinement::SpawnConfinement;
use crate::{BootError, Driver, SandboxSpec, VmSpec};

pub use self::accelerator::{AcceleratorChoice, TCG_PROCESSOR, VmAccelerator};

const PROGRAM: &str = "qemu-system-x86_64";

/// Debian's package with it.
const PACKAGE: &str = "qemu-system-x86";

/// What QEMU may take beside the guest's memory, in MiB: a flood of what it keeps for the guest is an
/// end, not the machine's.
const OVERHEAD_MIB: u64 = 512;

/// Threads beside those of the guest's processors: emulation, and the disk's helpers, of which QEMU
/// makes up to 64.
const OTHER_THREADS: u64 = 128;

/// Processors' worth of time beside the guest's: the disk, the console, the display.
const OTHER_CPUS: u64 = 1;

/// A size that initramfs and memory are counted in.
const PAGE: usize = 4096;

/// The driver: a VM, and what QEMU alone understands.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// The VM.
    pub vm: VmSpec,
    /// What executes guest code.
    pub accelerator: VmAccelerator,
    /// The processor that the guest sees, as `-cpu` takes it; `None` for the usual one.
    pub cpu: Option<String>,
}

/// The error where it is not installed.
const NOT_INSTALLED: BootError = BootError::ProgramMissing { program: PROGRAM, package: PACKAGE };

impl Qemu {
    /// Whether QEMU is where [`Driver::boot`] will look for it.
    ///
    /// # Errors
    /// [`BootError::ProgramMissing`] when it is not.
    pub fn installed() -> Result<(), BootError> {
        Self::program().map(|_| ()).ok_or(NOT_INSTALLED)
    }

    /// Where QEMU is, by PATH; `None` when it is not installed.
    #[must_use]
    pub fn program() -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|folder| folder.join(PROGRAM)).find(|file| file.is_file())
    }

    /// QEMU's version, as QEMU prints it; `None` when it is not installed.
    #[must_use]
    pub fn version() -> Option<String> {
        let output = Command::new(PROGRAM).arg("--version").stdin(Stdio::null()).output().ok()?;
        String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
    }

    /// What QEMU may take of the machine.
    fn limits(&self) -> Limits {
        let translated = match self.accelerator {
            VmAccelerator::Tcg => u64::from(TRANSLATION_BUFFER_MIB),
            VmAccelerator::Kvm => 0,
        };
        let vcpus = u64::from(self.vm.vcpus);
        Limits {
            memory_bytes: (u64::from(self.vm.memory_mib) + translated + OVERHEAD_MIB) << 20,
            pids: vcpus + OTHER_THREADS,
            cpus: vcpus + OTHER_CPUS,
        }
    }
}

impl Driver for Qemu {
    fn kind(&self) -> DriverKind {
        DriverKind::Qemu
    }

    fn boot(&self, sandbox: &SandboxSpec) -> Result<RunningSandbox, BootError> {
        let SandboxSpec { name, confinement, console: console_file } = sandbox;
        let open = |path: &Path| {
            File::open(path).map_err(|source| BootError::File { path: path.to_path_buf(), source })
        };
        let (kernel, root_image) = (open(&self.vm.kernel)?, open(&self.vm.root_image)?);
        let initramfs = fail_point("qemu.initramfs")
            .and_then(|()| in_memory(&self.vm.initramfs))
            .map_err(BootError::system("keeping the initramfs in memory"))?;
        let (link, guest_link) =
            UnixStream::pair().map_err(BootError::system("making the guest link"))?;
        let (console, guest_console) =
            UnixStream::pair().map_err(BootError::system("making the console"))?;
        let (monitor, qemu_monitor) =
            UnixStream::pair().map_err(BootError::system("making the monitor"))?;
        let program = Self::program().ok_or(NOT_INSTALLED)?;
        let mut command = Command::new(&program);
        command
            .args(arguments(name, &self.vm, self.accelerator, self.cpu.as_deref()))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env(SANDBOX_ENV, name.as_str())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // QEMU's own complaints explain an early death: they go where the console goes.
            .stderr(Stdio::from(OwnedFd::from(
                guest_console.try_clone().map_err(BootError::system("making the console"))?,
            )));
        let mappings = [
            (OwnedFd::from(guest_link), LINK),
            (guest_console.into(), CONSOLE),
            (initramfs, INITRAMFS),
            (kernel.into(), KERNEL),
            (root_image.into(), ROOT_IMAGE),
            (qemu_monitor.into(), MONITOR),
        ];
        command
            .fd_mappings(
                mappings
                    .into_iter()
                    .map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd })
                    .collect(),
            )
            .map_err(|_| std::io::Error::other("two descriptors have one number"))
            .map_err(BootError::system("passing descriptors to QEMU"))?;
        let confined = SpawnConfinement::vmm(
            name,
            confinement,
            &program,
            vec![self.vm.kernel.clone()],
            self.accelerator == VmAccelerator::Kvm,
            &self.limits(),
        )?;
        let running = RunningSandbox::start(Launch {
            driver: self.kind(),
            accelerator: self.accelerator.into(),
            command,
            confined,
            link: link.into(),
            console: console.into(),
            console_file,
        })?;
        let monitor = stream(monitor.into()).map_err(BootError::system("opening the monitor"))?;
        Ok(running.inspected_by(Monitor::watch(monitor)))
    }
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
fn in_memory(initramfs: &[u8]) -> std::io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(c"anteroom-initramfs", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(initramfs)?;
    file.write_all(&[0; PAGE + 1][..clear_of_firmware(initramfs.len())])?;
    file.seek(SeekFrom::Start(0))?;
    // QEMU opens it anew, as another user.
    nix::sys::stat::fchmod(&file, nix::sys::stat::Mode::from_bits_truncate(0o444))?;
    debug_assert!(file.as_raw_fd() >= 0);
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use anteroom_confine::Confinement;

    use super::*;
    use crate::{ConsoleFile, SandboxName};

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

    #[test]
    fn a_missing_kernel_is_named() {
        let vm = VmSpec {
            kernel: "/nowhere/vmlinux".into(),
            initramfs: vec![],
            root_image: "/nowhere/root".into(),
            memory_mib: 128,
            vcpus: 1,
        };
        let sandbox = SandboxSpec {
            name: SandboxName::of_test(),
            confinement: Confinement::of_this_machine(None),
            console: ConsoleFile { path: "/nowhere/console".into(), limit: 1 },
        };
        let qemu = Qemu { vm, accelerator: VmAccelerator::Tcg, cpu: None };
        let error = qemu.boot(&sandbox).err().expect("there is no such kernel");
        assert_eq!(error.to_string(), "opening /nowhere/vmlinux failed");
    }
}
