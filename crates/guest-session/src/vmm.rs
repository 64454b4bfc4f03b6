//! Which VMM boots a VM, and what that one alone has to know.

use std::path::PathBuf;

use anteroom_image::Processor;
use anteroom_session::{Accelerator, DriverKind};
use anteroom_vm::{BootError, Driver, Qemu, TCG_PROCESSOR, VmAccelerator, VmSpec};
use serde::{Deserialize, Serialize};

/// A VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "vmm", rename_all = "snake_case", deny_unknown_fields)]
pub enum Vmm {
    /// QEMU's microVMs.
    Qemu {
        /// What executes guest code.
        accelerator: VmAccelerator,
        /// What each of the guest's processors is; `None` for the usual one.
        cpu: Option<Processor>,
    },
}

impl Vmm {
    /// The driver that boots with it.
    #[must_use]
    pub fn kind(&self) -> DriverKind {
        match self {
            Self::Qemu { .. } => DriverKind::Qemu,
        }
    }

    /// What executes guest code.
    #[must_use]
    pub fn accelerator(&self) -> Accelerator {
        match self {
            Self::Qemu { accelerator, .. } => (*accelerator).into(),
        }
    }

    /// The program; `None` when it is not installed.
    #[must_use]
    pub fn program(&self) -> Option<PathBuf> {
        match self {
            Self::Qemu { .. } => Qemu::program(),
        }
    }

    /// Whether it is installed.
    ///
    /// # Errors
    /// [`BootError::ProgramMissing`] when it is not.
    pub fn installed(&self) -> Result<(), BootError> {
        match self {
            Self::Qemu { .. } => Qemu::installed(),
        }
    }

    /// The driver of a VM.
    #[must_use]
    pub fn driver(&self, vm: VmSpec) -> Box<dyn Driver> {
        match self {
            Self::Qemu { accelerator, cpu } => {
                let cpu = cpu.as_ref().map(|cpu| cpu.qemu.clone());
                Box::new(Qemu { vm, accelerator: *accelerator, cpu })
            }
        }
    }

    /// The guest's processor, as a sentence names it.
    #[must_use]
    pub fn processor_name(&self) -> String {
        match self {
            Self::Qemu { cpu: Some(cpu), .. } => cpu_profile_name(cpu),
            Self::Qemu { accelerator: VmAccelerator::Tcg, cpu: None } => {
                format!("this VM's CPU ({TCG_PROCESSOR})")
            }
            Self::Qemu { accelerator: VmAccelerator::Kvm, cpu: None } => "this VM's CPU".to_owned(),
        }
    }
}

/// A VM's processor that was chosen, as a sentence names it.
#[must_use]
pub fn cpu_profile_name(cpu: &Processor) -> String {
    format!("this VM's CPU profile {}", cpu.profile)
}
