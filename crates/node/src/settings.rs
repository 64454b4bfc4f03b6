//! What the operator chose for this machine.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anteroom_confine::HostCapabilities;
use anteroom_guest_protocol::ServiceSpec;
use anteroom_guest_session::Vmm;
use anteroom_image::{NotVerified, Processor};
use anteroom_session::{Accelerator, DriverKind};

use super::templates::TemplateSettings;

/// How this machine runs sessions.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Where media comes in.
    pub media_listen: SocketAddr,
    /// Addresses of the media port that viewers can reach; empty: the bound one.
    pub advertise: Vec<SocketAddr>,
    /// The state folder, in which each session has a folder of logs.
    pub state_dir: PathBuf,
    /// Golden images.
    pub images_dir: PathBuf,
    /// What may be recomputed.
    pub cache_dir: PathBuf,
    /// How sandboxes are booted.
    pub driver: DriverChoice,
    /// Services of every sandbox beside those of its image.
    pub services: Vec<ServiceSpec>,
    /// Variables of a runner's environment that say how it logs.
    pub runner_environment: Vec<(&'static str, OsString)>,
    /// What this machine offers to hold sessions with.
    pub host: HostCapabilities,
    /// Memory that sessions, templates and waiting clones may take together; what is free at the start if not given.
    pub memory_budget_bytes: Option<u64>,
    /// What templates are used with; none where every VM is powered on.
    pub templates: Option<TemplateSettings>,
    /// Clones of each template that wait for a sign-in.
    pub waiting_clones: usize,
}

/// How sandboxes are booted.
#[derive(Clone, Debug)]
pub enum DriverChoice {
    /// VMs of golden images.
    Vm(VmChoice),
    /// The agent on this host.
    Host {
        /// The agent binary.
        agent: PathBuf,
        /// What it takes.
        size: HostSize,
    },
}

/// What a sandbox of the host driver takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostSize {
    /// A desktop with a browser.
    Desktop,
    /// A program that plays a guest, in tests.
    Program,
}

/// What VMs are booted.
#[derive(Clone, Debug)]
pub struct VmChoice {
    /// What boots them.
    pub vmm: Vmm,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Guest processors.
    pub vcpus: u8,
    /// Images must be verified for the processor in one of these forms; none if they need not be.
    pub verified_for: Vec<Processor>,
}

impl VmChoice {
    /// Whether the image in a folder may be booted.
    ///
    /// # Errors
    /// Why not, by the first form of the processor.
    pub fn check_verified(&self, image_dir: &Path) -> Result<(), NotVerified> {
        let mut refused = None;
        for cpu in &self.verified_for {
            match anteroom_image::verified_for(image_dir, cpu) {
                Ok(_) => return Ok(()),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        refused.map_or(Ok(()), Err)
    }
}

impl DriverChoice {
    /// The driver.
    pub fn kind(&self) -> DriverKind {
        match self {
            Self::Vm(vm) => vm.vmm.kind(),
            Self::Host { .. } => DriverKind::Host,
        }
    }

    /// The program that boots VMs; `None` where none does, or it is not installed.
    pub fn program(&self) -> Option<PathBuf> {
        match self {
            Self::Vm(vm) => vm.vmm.program(),
            Self::Host { .. } => None,
        }
    }

    /// What executes the code in its sandboxes.
    pub fn accelerator(&self) -> Accelerator {
        match self {
            Self::Vm(vm) => vm.vmm.accelerator(),
            Self::Host { .. } => Accelerator::None,
        }
    }
}

impl NodeSettings {
    /// A sentence for each of these images that no session could be started with.
    pub fn unfit_images<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let DriverChoice::Vm(vm) = &self.driver else { return Vec::new() };
        let unfit = |name: &str| {
            let image = anteroom_image::find(&self.images_dir, name).ok()?;
            vm.check_verified(&image.dir).err().map(|error| error.to_string())
        };
        names.into_iter().filter_map(unfit).collect()
    }
}
