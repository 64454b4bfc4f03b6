//! QEMU microVMs.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anteroom_confine::{Confinement, Limits};
use anteroom_fail_point::fail_point;
use anteroom_guest_protocol::VIRTIO_PORT_NAME;
use anteroom_session::Accelerator;
use command_fds::{CommandFdExt, FdMapping};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use crate::console::ConsoleFile;
use crate::counter::counter_khz;
use crate::hold::Hold;
use crate::kvm_probe::{KvmProbe, probe_kvm};
use crate::process::RunningVm;
use crate::{BootError, Driver, SESSION_ENV, SandboxName};

const PROGRAM: &str = "qemu-system-x86_64";

/// Debian's package with it.
const PACKAGE: &str = "qemu-system-x86";

/// Memory for translated code under emulation, in MiB. A browser's hot code fits; more only makes
/// the process grow.
const TRANSLATION_BUFFER_MIB: u32 = 512;

/// Descriptors as QEMU sees them.
const LINK: RawFd = 10;
const CONSOLE: RawFd = 11;
const INITRAMFS: RawFd = 12;
const KERNEL: RawFd = 13;
const ROOT_IMAGE: RawFd = 14;
const MONITOR: RawFd = 15;

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
    /// Where the serial console goes.
    pub console_log: PathBuf,
    /// Largest size of that file in bytes.
    pub console_log_limit: u64,
    /// What holds the VMM.
    pub confinement: Confinement,
}

/// What QEMU may take beside the guest's memory, in MiB: a flood of what it keeps for the guest is an
/// end, not the machine's.
const OVERHEAD_MIB: u64 = 512;

/// Threads beside those of the guest's processors: emulation, and the disk's helpers, of which QEMU
/// makes up to 64.
const OTHER_THREADS: u64 = 128;

/// Processors' worth of time beside the guest's: the disk, the console, the display.
const OTHER_CPUS: u64 = 1;

/// The processor that an emulated guest sees unless said otherwise. It has AVX2 and no TSX; `max` and
/// `EPYC` hang at TSC calibration.
pub const TCG_PROCESSOR: &str = "Haswell-noTSX";

/// What executes a VM's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmAccelerator {
    /// The processor itself.
    Kvm,
    /// QEMU's emulation.
    Tcg,
}

/// What may execute guest code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceleratorChoice {
    /// KVM if a probe shows that it works, else emulation.
    Auto,
    /// KVM or failure.
    Kvm,
    /// Emulation.
    Tcg,
}

impl AcceleratorChoice {
    /// Probes KVM where that matters; takes up to a second.
    ///
    /// # Errors
    /// When KVM was demanded and does not work.
    pub fn resolve(self) -> Result<VmAccelerator, BootError> {
        if self == Self::Tcg {
            return Ok(VmAccelerator::Tcg);
        }
        match (probe_kvm(), self) {
            (KvmProbe::Usable { .. }, _) => Ok(VmAccelerator::Kvm),
            (KvmProbe::Unusable { why }, Self::Kvm) => Err(BootError::NoKvm { why }),
            (KvmProbe::Unusable { .. }, _) => Ok(VmAccelerator::Tcg),
        }
    }
}

impl From<VmAccelerator> for Accelerator {
    fn from(accelerator: VmAccelerator) -> Self {
        match accelerator {
            VmAccelerator::Kvm => Self::Kvm,
            VmAccelerator::Tcg => Self::Tcg,
        }
    }
}

/// The driver, and what QEMU alone understands.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// What executes guest code.
    pub accelerator: VmAccelerator,
    /// The processor that the guest sees, as `-cpu` takes it; `None` for the usual one.
    pub cpu: Option<String>,
}

impl Qemu {
    /// Whether QEMU is where [`Driver::boot`] will look for it.
    ///
    /// # Errors
    /// [`BootError::ProgramMissing`] when it is not.
    pub fn installed() -> Result<(), BootError> {
        qemu_program().map(|_| ()).ok_or(NOT_INSTALLED)
    }
}

/// The error where it is not.
const NOT_INSTALLED: BootError = BootError::ProgramMissing { program: PROGRAM, package: PACKAGE };

/// Where QEMU is, by PATH; `None` when it is not installed.
#[must_use]
pub fn qemu_program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(PROGRAM)).find(|file| file.is_file())
}

/// QEMU's version, as QEMU prints it; `None` when it is not installed.
#[must_use]
pub fn qemu_version() -> Option<String> {
    let output = Command::new(PROGRAM).arg("--version").stdin(Stdio::null()).output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

impl Driver for Qemu {
    type Spec = VmSpec;

    fn boot(&self, name: &SandboxName, mut spec: VmSpec) -> Result<RunningVm, BootError> {
        let open = |path: &Path| {
            File::open(path).map_err(|source| BootError::File { path: path.to_path_buf(), source })
        };
        let (kernel, root_image) = (open(&spec.kernel)?, open(&spec.root_image)?);
        keep_clear_of_firmware(&mut spec.initramfs);
        let initramfs = fail_point("qemu.initramfs")
            .and_then(|()| in_memory(&spec.initramfs))
            .map_err(BootError::system("keeping the initramfs in memory"))?;
        let (link, guest_link) =
            UnixStream::pair().map_err(BootError::system("making the guest link"))?;
        let (console, guest_console) =
            UnixStream::pair().map_err(BootError::system("making the console"))?;
        let (monitor, qemu_monitor) =
            UnixStream::pair().map_err(BootError::system("making the monitor"))?;
        let program = qemu_program().ok_or(NOT_INSTALLED)?;
        let mut command = Command::new(&program);
        command
            .args(arguments(name, &spec, self))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env(SESSION_ENV, name.as_str())
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
        let file = ConsoleFile { path: spec.console_log.clone(), limit: spec.console_log_limit };
        let hold = Hold::vmm(
            name,
            &spec.confinement,
            &program,
            vec![spec.kernel.clone()],
            self.accelerator == VmAccelerator::Kvm,
            &limits(&spec, self.accelerator),
        )?;
        let accelerator = self.accelerator.into();
        RunningVm::start(command, hold, accelerator, link.into(), console.into(), &file)?
            .with_monitor(monitor.into())
    }
}

/// What QEMU may take of the machine.
fn limits(spec: &VmSpec, accelerator: VmAccelerator) -> Limits {
    let translated = match accelerator {
        VmAccelerator::Tcg => u64::from(TRANSLATION_BUFFER_MIB),
        VmAccelerator::Kvm => 0,
    };
    let vcpus = u64::from(spec.vcpus);
    Limits {
        memory_bytes: (u64::from(spec.memory_mib) + translated + OVERHEAD_MIB) << 20,
        pids: vcpus + OTHER_THREADS,
        cpus: vcpus + OTHER_CPUS,
    }
}

fn arguments(name: &SandboxName, spec: &VmSpec, qemu: &Qemu) -> Vec<String> {
    let (acceleration, cpu) = match qemu.accelerator {
        VmAccelerator::Kvm => ("kvm".to_owned(), "host"),
        VmAccelerator::Tcg => {
            (format!("tcg,thread=multi,tb-size={TRANSLATION_BUFFER_MIB}"), TCG_PROCESSOR)
        }
    };
    let cpu = qemu.cpu.as_deref().unwrap_or(cpu);
    let arguments = [
        "-name",
        &format!("anteroom-{name}"),
        "-machine",
        // The guest's memory holds a credential in clear for a moment.
        "microvm,acpi=on,pit=on,pic=on,rtc=on,dump-guest-core=off",
        "-accel",
        &acceleration,
        "-cpu",
        cpu,
        "-smp",
        &spec.vcpus.to_string(),
        "-m",
        &format!("{}M", spec.memory_mib),
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        // After start QEMU makes no process and changes no user.
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-kernel",
        &format!("/proc/self/fd/{KERNEL}"),
        "-initrd",
        &format!("/proc/self/fd/{INITRAMFS}"),
        "-append",
        &kernel_line(qemu.accelerator),
        "-add-fd",
        &format!("fd={ROOT_IMAGE},set=1"),
        "-drive",
        "if=none,id=root,file=/dev/fdset/1,format=raw,readonly=on,file.locking=off",
        "-device",
        "virtio-blk-device,drive=root",
        "-device",
        "virtio-rng-device",
        "-chardev",
        &format!("socket,id=console,fd={CONSOLE}"),
        "-serial",
        "chardev:console",
        "-chardev",
        &format!("socket,id=monitor,fd={MONITOR}"),
        "-mon",
        "chardev=monitor,mode=control",
        "-chardev",
        &format!("socket,id=link,fd={LINK}"),
        "-device",
        "virtio-serial-device",
        "-device",
        &format!("virtserialport,chardev=link,name={VIRTIO_PORT_NAME}"),
    ];
    arguments.map(str::to_owned).to_vec()
}

/// Emulated guests hang while they calibrate the TSC on a busy host (3 boots of 5): they are given
/// its rate instead, and take their time from it.
fn kernel_line(accelerator: VmAccelerator) -> String {
    let common = "console=ttyS0 panic=-1 reboot=t quiet";
    if accelerator == VmAccelerator::Kvm {
        return common.to_owned();
    }
    // Mitigations guard against the guest's own programs; under emulation they only cost.
    let emulated = format!("{common} mitigations=off no_timer_check");
    match counter_khz() {
        Some(khz) => format!("{emulated} tsc_early_khz={khz} tsc=reliable"),
        None => emulated,
    }
}

/// QEMU puts the initramfs at the first page that lets it end below the top of memory, where newer
/// SeaBIOS (Debian 13) keeps the ACPI tables: what is longer than a few hundred bytes in its last
/// page overwrites them, and the guest hangs silently. Zeros after an archive mean nothing to
/// the kernel; with one byte in the last page the rest of it is the tables'.
fn keep_clear_of_firmware(initramfs: &mut Vec<u8>) {
    const PAGE: usize = 4096;
    let pages = initramfs.len().next_multiple_of(PAGE);
    initramfs.resize(pages + 1, 0);
}

/// A file that exists only as a descriptor.
fn in_memory(content: &[u8]) -> std::io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(c"anteroom-initramfs", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content)?;
    file.seek(SeekFrom::Start(0))?;
    // QEMU opens it anew, as another user.
    nix::sys::stat::fchmod(&file, nix::sys::stat::Mode::from_bits_truncate(0o444))?;
    debug_assert!(file.as_raw_fd() >= 0);
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMULATED: Qemu = Qemu { accelerator: VmAccelerator::Tcg, cpu: None };

    #[test]
    fn the_command_line_has_no_network_card_and_a_read_only_disk() {
        let spec = VmSpec {
            kernel: "/k".into(),
            initramfs: vec![],
            root_image: "/r".into(),
            memory_mib: 2048,
            vcpus: 2,
            console_log: "/c".into(),
            console_log_limit: 1,
            confinement: Confinement::of_this_machine(None),
        };
        let line = arguments(&SandboxName::of_test(), &spec, &EMULATED).join(" ");
        assert!(line.contains("readonly=on") && line.contains("-nodefaults"));
        assert!(!line.contains("net") || line.matches("net").count() == 0, "{line}");
        assert!(line.contains("spawn=deny"));
    }

    /// The rate that an emulated guest is given, in kHz.
    fn reported_khz() -> u64 {
        let line = kernel_line(VmAccelerator::Tcg);
        let reported = line.split(' ').find_map(|word| word.strip_prefix("tsc_early_khz="));
        reported.expect("the counter counts").parse().expect("a number")
    }

    /// Prints the rate that a guest would get; started by the next test where /proc/cpuinfo is another.
    #[test]
    fn report_the_rate() {
        println!("reported {} kHz", reported_khz());
    }

    #[test]
    fn what_cpuinfo_says_of_the_clock_rate_is_no_matter() {
        let folder = tempfile::tempdir().unwrap();
        let here = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        for false_mhz in ["800.000", "4200.000"] {
            let changed: Vec<String> = here
                .lines()
                .map(|line| match line.split_once(':') {
                    Some((key, _)) if key.starts_with("cpu MHz") => format!("{key}: {false_mhz}"),
                    _ => line.to_owned(),
                })
                .collect();
            let cpuinfo = folder.path().join("cpuinfo");
            std::fs::write(&cpuinfo, changed.join("\n")).unwrap();
            let mut own_mounts = Command::new("unshare");
            if !nix::unistd::geteuid().is_root() {
                own_mounts.args(["--user", "--map-root-user"]);
            }
            let script = r#"mount --bind "$0" /proc/cpuinfo && grep -m1 "cpu MHz" /proc/cpuinfo \
                && exec "$1" --exact qemu::tests::report_the_rate --nocapture"#;
            own_mounts.args(["--mount", "sh", "-c", script]).arg(&cpuinfo);
            let output = own_mounts.arg(std::env::current_exe().unwrap()).output().unwrap();
            let said = String::from_utf8(output.stdout).unwrap();
            assert!(said.contains(false_mhz), "{said}{}", String::from_utf8_lossy(&output.stderr));
            let reported = said.split("reported ").nth(1).unwrap().split(' ').next().unwrap();
            let (reported, here): (u64, u64) = (reported.parse().unwrap(), reported_khz());
            assert!(
                reported.abs_diff(here) < here / 100,
                "{reported} kHz, not {here}: {false_mhz}"
            );
        }
    }

    #[test]
    fn the_initramfs_leaves_the_last_page_to_the_firmware() {
        for length in [0, 1, 2, 4095, 4096, 4097, 10_000] {
            let mut padded = vec![7; length];
            keep_clear_of_firmware(&mut padded);
            assert_eq!(padded.len() % 4096, 1);
            assert!(padded.len() >= length && padded[length..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_missing_kernel_is_named() {
        let spec = VmSpec {
            kernel: "/nowhere/vmlinux".into(),
            initramfs: vec![],
            root_image: "/nowhere/root".into(),
            memory_mib: 128,
            vcpus: 1,
            console_log: "/nowhere/console".into(),
            console_log_limit: 1,
            confinement: Confinement::of_this_machine(None),
        };
        let error =
            EMULATED.boot(&SandboxName::of_test(), spec).err().expect("there is no such kernel");
        assert_eq!(error.to_string(), "opening /nowhere/vmlinux failed");
    }
}
