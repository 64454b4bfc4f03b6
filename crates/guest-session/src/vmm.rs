//! Which VMM boots a VM, and what that one alone has to know.

use std::path::PathBuf;

use anteroom_image::Processor;
use anteroom_session::{Accelerator, DriverKind};
use anteroom_vm::{
    BootError, Driver, Firecracker, Installed, Qemu, TCG_PROCESSOR, VmAccelerator, VmSpec,
};
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
    /// Firecracker's microVMs.
    Firecracker {
        /// The program.
        program: PathBuf,
        /// What each of the guest's processors is.
        cpu: Processor,
    },
}

impl Vmm {
    /// The driver that boots with it.
    #[must_use]
    pub fn kind(&self) -> DriverKind {
        match self {
            Self::Qemu { .. } => DriverKind::Qemu,
            Self::Firecracker { .. } => DriverKind::Firecracker,
        }
    }

    /// What executes guest code.
    #[must_use]
    pub fn accelerator(&self) -> Accelerator {
        match self {
            Self::Qemu { accelerator, .. } => (*accelerator).into(),
            Self::Firecracker { .. } => Accelerator::Kvm,
        }
    }

    /// The program; `None` when it is not installed.
    #[must_use]
    pub fn program(&self) -> Option<PathBuf> {
        match self {
            Self::Qemu { .. } => Qemu::program(),
            Self::Firecracker { program, .. } => Some(program.clone()),
        }
    }

    /// The program with its version; `None` when it does not say.
    #[must_use]
    pub fn version(&self) -> Option<String> {
        match self {
            Self::Qemu { .. } => Qemu::version(),
            Self::Firecracker { program, .. } => {
                Some(format!("Firecracker {}", Installed::at(program).ok()?.version))
            }
        }
    }

    /// The guest's processor, as the VMM is given it.
    #[must_use]
    pub fn processor_model(&self) -> String {
        match self {
            Self::Qemu { cpu: Some(Processor { model, .. }), .. }
            | Self::Firecracker { cpu: Processor { model, .. }, .. } => model.as_str().to_owned(),
            Self::Qemu { cpu: None, .. } => "the usual one".to_owned(),
        }
    }

    /// Whether it is installed.
    ///
    /// # Errors
    /// [`BootError::ProgramMissing`] or [`BootError::Firecracker`] when it is not.
    pub fn installed(&self) -> Result<(), BootError> {
        match self {
            Self::Qemu { .. } => Qemu::installed(),
            Self::Firecracker { program, .. } => Firecracker::installed(program),
        }
    }

    /// The driver of a VM.
    #[must_use]
    pub fn driver(&self, vm: VmSpec) -> Box<dyn Driver> {
        match self {
            Self::Qemu { accelerator, cpu } => {
                let cpu = cpu.as_ref().map(|cpu| cpu.model.as_str().to_owned());
                Box::new(Qemu { vm, accelerator: *accelerator, cpu })
            }
            Self::Firecracker { program, cpu } => {
                let template = cpu.model.as_str();
                let cpu_template = (!template.is_empty()).then(|| template.to_owned());
                Box::new(Firecracker { vm, program: program.clone(), cpu_template })
            }
        }
    }

    /// The guest's processor, as a sentence names it.
    #[must_use]
    pub fn processor_name(&self) -> String {
        match self {
            Self::Qemu { cpu: Some(Processor { profile, .. }), .. }
            | Self::Firecracker { cpu: Processor { profile, .. }, .. } => cpu_profile_name(profile),
            Self::Qemu { accelerator: VmAccelerator::Tcg, cpu: None } => {
                format!("this VM's CPU ({TCG_PROCESSOR})")
            }
            Self::Qemu { accelerator: VmAccelerator::Kvm, cpu: None } => "this VM's CPU".to_owned(),
        }
    }
}

/// A VM's processor that was chosen, as a sentence names it.
#[must_use]
pub fn cpu_profile_name(profile: &str) -> String {
    format!("this VM's CPU profile {profile}")
}
