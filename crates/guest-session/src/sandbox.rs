//! What boots: an image in a VM, or the agent on the host.

use std::fmt::Display;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anteroom_confine::Confinement;
use anteroom_guest_link::chain;
use anteroom_guest_protocol::{ScreenSize, ServiceSpec};
use anteroom_image::{ImageFiles, initramfs_with_agent};
use anteroom_session::{DriverKind, EndReason};
use anteroom_vm::{
    BootError, ConsoleFile, Driver, Host, PageSet, RunningSandbox, SandboxName, SandboxSpec,
    VmSpec, VmStart,
};
use serde::{Deserialize, Serialize};

use crate::log_files;
use crate::vmm::Vmm;

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
#[serde(tag = "boots", rename_all = "snake_case", deny_unknown_fields)]
pub enum DriverConfig {
    /// A golden image in a VM.
    Vm(VmConfig),
    /// The agent on this machine, no isolation.
    Host {
        /// The agent binary to run.
        agent: PathBuf,
        /// Folder for this sandbox's files, made here, removed by whoever configured it.
        runtime_dir: PathBuf,
    },
}

/// A VM: what every VMM needs of it, and which VMM boots it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmConfig {
    /// Folder of the golden image (one digest), whose files are passed beside.
    pub image_dir: PathBuf,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Guest processors.
    pub vcpus: u8,
    /// What boots it.
    pub vmm: Vmm,
    /// The template that it is a clone of, whose files are passed too; absent where it is powered on.
    pub clone_of: Option<CloneOf>,
}

/// A template, and what wakes its clones.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloneOf {
    /// The template's id.
    pub template: String,
    /// As its guest was frozen with.
    pub wake_token: String,
    /// What its desktop showed then: a PNG in base64.
    pub picture: String,
    /// Pages of its memory that it will change soon: made its own before it runs.
    pub ahead: PageSet,
}

/// The files of a template, sealed: clones of it share them.
#[derive(Clone, Debug)]
pub struct TemplateFiles {
    /// Guest memory.
    pub memory: Arc<OwnedFd>,
    /// State of processors and devices, as the VMM wrote it.
    pub state: Arc<OwnedFd>,
}

/// The files of a VM, opened and checked by whoever starts its runner, which opens none by a path.
#[derive(Clone, Debug)]
pub struct VmFiles {
    /// Those of its image.
    pub image: ImageFiles,
    /// Those of the template that it is a clone of.
    pub template: Option<TemplateFiles>,
}

impl DriverConfig {
    /// The driver.
    #[must_use]
    pub fn kind(&self) -> DriverKind {
        match self {
            Self::Vm(vm) => vm.vmm.kind(),
            Self::Host { .. } => DriverKind::Host,
        }
    }

    /// The template that its VM is a clone of.
    #[must_use]
    pub fn clone_of(&self) -> Option<&CloneOf> {
        match self {
            Self::Vm(vm) => vm.clone_of.as_ref(),
            Self::Host { .. } => None,
        }
    }

    /// The sandbox's processor, as a sentence names it.
    #[must_use]
    pub fn processor_name(&self) -> String {
        match self {
            Self::Vm(vm) => vm.vmm.processor_name(),
            Self::Host { .. } => "this machine's CPU".to_owned(),
        }
    }
}

impl SandboxConfig {
    /// Boots. `agent` gives the agent's program, for a VM; `files` are what a VM is made of. The guest may wait for
    /// [`start_guest`](crate::start_guest).
    ///
    /// # Errors
    /// When the driver cannot boot it; nothing is left of the attempt.
    pub async fn boot<E: Display>(
        &self,
        agent: impl FnOnce() -> Result<&'static [u8], E>,
        files: Option<VmFiles>,
    ) -> Result<RunningSandbox, EndReason> {
        let (driver, hold): (Box<dyn Driver>, _) = match &self.driver {
            DriverConfig::Vm(vm) => {
                let missing = |what: &str| not_started(format!("{what} was not passed"));
                let VmFiles { image, template } = files.ok_or_else(|| missing("its image"))?;
                let held = |error| not_started(format!("holding its image failed: {error}"));
                let hold = image.hold().map_err(held)?;
                let spec = match &vm.clone_of {
                    None => {
                        let agent = agent().map_err(not_started)?;
                        vm_spec(&image, agent, vm.memory_mib, vm.vcpus)?
                    }
                    Some(clone_of) => {
                        let TemplateFiles { memory, state } =
                            template.ok_or_else(|| missing("its template"))?;
                        let ahead = clone_of.ahead.clone();
                        let start = VmStart::Clone { memory, state, ahead };
                        // What a clone has read of its initramfs is in its memory.
                        spec_of(&image, Vec::new(), vm.memory_mib, vm.vcpus, start)
                    }
                };
                (vm.vmm.driver(spec), Some(hold))
            }
            DriverConfig::Host { agent, runtime_dir } => {
                let (agent, runtime_dir) = (agent.clone(), runtime_dir.clone());
                (Box::new(Host { agent, runtime_dir }), None)
            }
        };
        let sandbox = boot(&*driver, &self.name, &self.confinement, &self.log_dir).await?;
        // The image is held until this process ends: a runner that could lock could lock others out.
        std::mem::forget(hold);
        Ok(sandbox)
    }
}

/// Boots what a driver has; its console's log goes to a folder. Its guest may wait for
/// [`start_guest`](crate::start_guest).
///
/// # Errors
/// When it does not start; nothing is left of the attempt.
pub async fn boot(
    driver: &dyn Driver,
    name: &SandboxName,
    confinement: &Confinement,
    log_dir: &Path,
) -> Result<RunningSandbox, EndReason> {
    let sandbox = SandboxSpec {
        name: name.clone(),
        confinement: confinement.clone(),
        console: ConsoleFile { path: log_dir.join(log_files::CONSOLE), limit: CONSOLE_LIMIT },
    };
    driver.boot(&sandbox).await.map_err(|error| boot_failed(&error))
}

/// A VM of a checked image, with the agent as its first process.
///
/// # Errors
/// When a part of the image cannot be read.
pub fn vm_spec(
    image: &ImageFiles,
    agent: &[u8],
    memory_mib: u32,
    vcpus: u8,
) -> Result<VmSpec, EndReason> {
    let unread =
        |error: io::Error| not_started(format!("reading the image's modules failed: {error}"));
    let initramfs = initramfs_with_agent(&image.read_modules().map_err(unread)?, agent);
    Ok(spec_of(image, initramfs, memory_mib, vcpus, VmStart::PowerOn))
}

fn spec_of(
    image: &ImageFiles,
    initramfs: Vec<u8>,
    memory_mib: u32,
    vcpus: u8,
    start: VmStart,
) -> VmSpec {
    let (kernel, root_image) = (Arc::clone(&image.kernel), Arc::clone(&image.root));
    VmSpec { kernel, initramfs, root_image, memory_mib, vcpus, start }
}

fn not_started(cause: impl Display) -> EndReason {
    EndReason::SandboxNotStarted { cause: cause.to_string() }
}

pub(crate) fn boot_failed(error: &BootError) -> EndReason {
    not_started(chain(error))
}
