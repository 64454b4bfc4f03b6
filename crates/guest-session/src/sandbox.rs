//! What boots: an image in a VM, or the agent on the host.

use std::fmt::Display;
use std::io;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

use anteroom_confine::Confinement;
use anteroom_guest_link::chain;
use anteroom_guest_protocol::{ScreenSize, ServiceSpec};
use anteroom_image::{Image, ImageError, ImageHold, Processor, initramfs_with_agent};
use anteroom_session::{DriverKind, EndReason};
use anteroom_vm::{
    BootError, Driver, Host, HostSpec, Qemu, RunningVm, SandboxName, VmAccelerator, VmSpec,
};
use serde::{Deserialize, Serialize};

/// Bytes of console that are kept.
const CONSOLE_LIMIT: u64 = 1024 * 1024;

/// What boots, and what runs in it whoever signs in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxConfig {
    /// What its processes, files and cgroup carry.
    pub name: SandboxName,
    /// What boots it.
    pub driver: DriverConfig,
    /// What holds its processes, and whoever speaks with its guest.
    pub confinement: Confinement,
    /// Folder for console and logs (exists, bounded files, kept after the end).
    pub log_dir: PathBuf,
    /// Desktop size.
    pub screen: ScreenSize,
    /// Services beside the desktop's own.
    pub services: Vec<ServiceSpec>,
}

/// A driver, and what it alone has to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "driver", rename_all = "snake_case", deny_unknown_fields)]
pub enum DriverConfig {
    /// A QEMU microVM.
    Qemu {
        /// Folder of the golden image (one digest).
        image_dir: PathBuf,
        /// Where verification stamps are kept.
        cache_dir: PathBuf,
        /// What executes its code.
        accelerator: VmAccelerator,
        /// Guest memory in MiB.
        memory_mib: u32,
        /// Guest processors.
        vcpus: u8,
        /// What each of them is; `None` for the usual one.
        cpu: Option<Processor>,
    },
    /// The agent on this machine, no isolation.
    Host {
        /// The agent binary to run.
        agent: PathBuf,
        /// Folder for this sandbox's files, made here, removed by whoever configured it.
        runtime_dir: PathBuf,
    },
}

impl DriverConfig {
    /// The driver.
    #[must_use]
    pub fn kind(&self) -> DriverKind {
        match self {
            Self::Qemu { .. } => DriverKind::Qemu,
            Self::Host { .. } => DriverKind::Host,
        }
    }

    /// The sandbox's processor, as a sentence names it.
    #[must_use]
    pub fn processor_name(&self) -> String {
        match self {
            Self::Qemu { cpu: Some(cpu), .. } => cpu_profile_name(cpu),
            Self::Qemu { accelerator: VmAccelerator::Tcg, .. } => {
                format!("this VM's CPU ({})", anteroom_vm::TCG_PROCESSOR)
            }
            Self::Qemu { .. } => "this VM's CPU".to_owned(),
            Self::Host { .. } => "this machine's CPU".to_owned(),
        }
    }
}

/// A VM's processor that was chosen, as a sentence names it.
#[must_use]
pub fn cpu_profile_name(cpu: &Processor) -> String {
    format!("this VM's CPU profile {}", cpu.profile)
}

/// A sandbox that runs, and what keeps its image from being removed.
pub struct Sandbox {
    /// What runs.
    pub vm: RunningVm,
    /// Released by this process's end: a runner that could lock could lock others out.
    _hold: Option<ManuallyDrop<ImageHold>>,
}

impl Sandbox {
    /// Checks the image, where there is one, and boots. `agent` gives the agent's program, for a VM.
    ///
    /// # Errors
    /// When the image is refused or the driver cannot boot it; nothing is left of the attempt.
    pub async fn boot<E: Display>(
        config: &SandboxConfig,
        agent: impl FnOnce() -> Result<&'static [u8], E>,
    ) -> Result<Self, EndReason> {
        match &config.driver {
            DriverConfig::Qemu { image_dir, cache_dir, accelerator, memory_mib, vcpus, cpu } => {
                let image = open_image(image_dir.clone(), cache_dir.clone()).await?;
                let hold = image.hold().map_err(refused)?;
                let cpu = cpu.as_ref().map(|cpu| cpu.qemu.clone());
                let vm = ImageVm {
                    image: &image,
                    agent: agent().map_err(not_started)?,
                    name: &config.name,
                    confinement: &config.confinement,
                    log_dir: &config.log_dir,
                    memory_mib: *memory_mib,
                    vcpus: *vcpus,
                    accelerator: *accelerator,
                    cpu,
                };
                Ok(Self { vm: vm.boot()?, _hold: Some(ManuallyDrop::new(hold)) })
            }
            DriverConfig::Host { agent, runtime_dir } => {
                let spec = HostSpec {
                    agent: agent.clone(),
                    confinement: config.confinement.clone(),
                    runtime_dir: runtime_dir.clone(),
                    console_log: console_log(&config.log_dir),
                    console_log_limit: CONSOLE_LIMIT,
                };
                let vm = Host.boot(&config.name, spec).map_err(|error| boot_failed(&error))?;
                Ok(Self { vm, _hold: None })
            }
        }
    }
}

/// A VM that boots an image, with the agent as its first process and its console in a folder.
pub struct ImageVm<'a> {
    /// The image, checked.
    pub image: &'a Image,
    /// The agent's program.
    pub agent: &'a [u8],
    /// What its processes and cgroup carry.
    pub name: &'a SandboxName,
    /// What holds its process.
    pub confinement: &'a Confinement,
    /// Folder for the console's log.
    pub log_dir: &'a Path,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Guest processors.
    pub vcpus: u8,
    /// What executes its code.
    pub accelerator: VmAccelerator,
    /// What each processor is, in QEMU's words; `None` for the usual one.
    pub cpu: Option<String>,
}

impl ImageVm<'_> {
    /// Boots it.
    ///
    /// # Errors
    /// When a part of it cannot be read or the VMM does not start.
    pub fn boot(self) -> Result<RunningVm, EndReason> {
        let modules = self.image.modules();
        let unread = |error: io::Error| {
            not_started(format!("reading {} failed: {error}", modules.display()))
        };
        let spec = VmSpec {
            kernel: self.image.kernel(),
            initramfs: initramfs_with_agent(&std::fs::read(&modules).map_err(unread)?, self.agent),
            root_image: self.image.root(),
            memory_mib: self.memory_mib,
            vcpus: self.vcpus,
            console_log: console_log(self.log_dir),
            console_log_limit: CONSOLE_LIMIT,
            confinement: self.confinement.clone(),
        };
        let qemu = Qemu { accelerator: self.accelerator, cpu: self.cpu };
        qemu.boot(self.name, spec).map_err(|error| boot_failed(&error))
    }
}

fn not_started(cause: impl Display) -> EndReason {
    EndReason::VmNotStarted { cause: cause.to_string() }
}

fn boot_failed(error: &BootError) -> EndReason {
    not_started(chain(error))
}

fn refused(error: ImageError) -> EndReason {
    EndReason::ImageRefused { cause: chain(&error) }
}

fn console_log(log_dir: &Path) -> PathBuf {
    log_dir.join("console.log")
}

/// The first time an image is opened it is hashed, for seconds, in which a runner must still send its
/// heartbeat. By a thread that is gone afterwards: a runner is to be confined as a whole.
async fn open_image(dir: PathBuf, cache: PathBuf) -> Result<Image, EndReason> {
    let failed = |error: &dyn Display| not_started(format!("checking the image failed: {error}"));
    let (sender, opened) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("image".to_owned())
        .spawn(move || {
            let _ = sender.send(Image::open(&dir, &cache));
        })
        .map_err(|error| failed(&error))?;
    let image = opened.await.map_err(|_| failed(&"its thread ended"))?;
    thread.join().map_err(|_| failed(&"its thread panicked"))?;
    image.map_err(refused)
}
