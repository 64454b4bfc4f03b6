//! What executes a VM's code under QEMU: the processor by KVM, or QEMU's emulation (TCG).

use anteroom_session::Accelerator;
use serde::{Deserialize, Serialize};

use crate::BootError;
use crate::kvm_probe::{KvmProbe, probe_kvm};

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
