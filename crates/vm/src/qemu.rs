//! QEMU microVMs.

mod accelerator;
mod command_line;
mod conversation;
mod migration;
mod monitor;
mod qmp;

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anteroom_confine::Limits;
use anteroom_fail_point::fail_point;
use anteroom_guest_protocol::SANDBOX_ENV;
use anteroom_session::DriverKind;

use self::command_line::{CONSOLE, LINK, LOAD, MONITOR, TRANSLATION_BUFFER_MIB, arguments};
use self::migration::{Loaded, Template, load};
use self::monitor::Monitor;
use crate::descriptors::{MEMORY, STATE, beginnings, opened_anew, pass, path_of};
use crate::driver::Booting;
use crate::process::{Launch, RunningSandbox, stream};
use crate::spawn_confinement::{SpawnConfinement, Vmm};
use crate::{BootError, Driver, SandboxSpec, VmSpec, VmStart};

pub use self::accelerator::{AcceleratorChoice, TCG_PROCESSOR, VmAccelerator};
pub use self::conversation::MonitorError;

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

impl Qemu {
    async fn start(&self, sandbox: &SandboxSpec) -> Result<RunningSandbox, BootError> {
        let SandboxSpec { name, confinement, console: console_file } = sandbox;
        let files = self.files()?;
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
        let sockets = [
            (OwnedFd::from(guest_link), LINK),
            (guest_console.into(), CONSOLE),
            (qemu_monitor.into(), MONITOR),
        ];
        pass(&mut command, files.into_iter().chain(sockets))
            .map_err(BootError::system("passing descriptors to QEMU"))?;
        let vmm = Vmm {
            program: &program,
            files: vec![path_of(self.vm.kernel.as_raw_fd()).into()],
            uses_kvm: self.accelerator == VmAccelerator::Kvm,
            sockets: None,
            limits: self.limits(),
        };
        let confined = SpawnConfinement::vmm(name, confinement, vmm)?;
        let running = RunningSandbox::start(Launch {
            driver: DriverKind::Qemu,
            accelerator: self.accelerator.into(),
            command,
            confined,
            console: console.into(),
            console_file,
        })?;
        let started = Instant::now();
        let monitor = stream(monitor.into()).map_err(BootError::system("opening the monitor"))?;
        let link = stream(link.into()).map_err(BootError::system("opening the guest link"))?;
        let monitor = Monitor::watch(monitor);
        let questions = monitor.questions();
        let mut running = running.linked_by(link.into()).inspected_by(monitor);
        match &self.vm.start {
            VmStart::PowerOn => Ok(running),
            VmStart::ToBeSaved { state, .. } => {
                let template = Template::new(questions, state)
                    .map_err(BootError::system("opening the file of the VM's state"))?;
                Ok(running.saved_by(template))
            }
            VmStart::Clone { .. } => match load(&questions, LOAD).await {
                Ok(()) => {
                    let vmm_start = started.elapsed();
                    self.vm.start.make_own_ahead(running.pid);
                    Ok(running.loaded_in(vmm_start).held_by(Loaded(questions)))
                }
                // Its end says more: some releases exit when they cannot load.
                Err(error) => {
                    Err(running.ended_in_place_of(error.into(), "QEMU", async || vec![]).await)
                }
            },
        }
    }

    /// What QEMU reads, each with its number there.
    fn files(&self) -> Result<Vec<(OwnedFd, RawFd)>, BootError> {
        fail_point("qemu.initramfs")
            .map_err(BootError::system("keeping the initramfs in memory"))?;
        let mut files = beginnings(&self.vm)?;
        if let Some([memory, state]) = self.vm.start.files()? {
            // QEMU opens the memory by path, but reads the state where this descriptor is.
            let failed = |source| BootError::system("opening the VM's memory and state")(source);
            files.push((memory.try_clone().map_err(failed)?, MEMORY));
            if self.vm.start.is_clone() {
                let state = opened_anew(state, OpenOptions::new().read(true)).map_err(failed)?;
                files.push((state, STATE));
            }
        }
        Ok(files)
    }
}

impl Driver for Qemu {
    fn kind(&self) -> DriverKind {
        DriverKind::Qemu
    }

    fn boot<'a>(&'a self, sandbox: &'a SandboxSpec) -> Booting<'a> {
        Box::pin(self.start(sandbox))
    }
}
