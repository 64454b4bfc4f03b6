//! What a session will take of this machine, from what those before it took; pure.

use std::collections::HashMap;

use anteroom_node_protocol::Demand;

use super::settings::{DriverChoice, HostSize};

const MIB: u64 = 1 << 20;

/// What a clone changes of its template, until one was measured to its end. Seen with the demo's: 70 to
/// 88 MiB when its page is there, 105 to 117 when its credential is sealed.
const FIRST_CLONE: u64 = 384 * MIB;

/// The least that is reserved for a clone: one that ended early took little.
const LEAST_CLONE: u64 = 192 * MIB;

/// A session's logs: the console's, each service's and the runner's are bounded.
const DISK: u64 = 64 * MIB;

/// Threads of a VMM (its cgroup allows some more than its processors) and a runner; with the `host` driver
/// those of a desktop.
const PIDS: u64 = 256;

/// What the sessions of this machine take.
#[derive(Debug)]
pub struct Demands {
    booted_bytes: u64,
    disk_bytes: u64,
    pids: u64,
    first_clone_bytes: u64,
    /// By template.
    clones: HashMap<String, Clones>,
}

/// What the clones of a template took.
#[derive(Clone, Copy, Debug, Default)]
struct Clones {
    most_bytes: u64,
    /// Whether one was measured while its desktop was in use, and has ended: one that runs may still take more,
    /// and one that nobody could use took nearly nothing.
    was_used: bool,
}

impl Demands {
    /// Nobody was measured yet.
    pub fn of(driver: &DriverChoice) -> Self {
        let beside = beside_bytes(driver);
        let booted_bytes = match driver {
            DriverChoice::Vm(vm) => u64::from(vm.memory_mib) * MIB + beside,
            DriverChoice::Host { .. } => beside,
        };
        let first_clone_bytes = booted_bytes.min(FIRST_CLONE + beside);
        let (disk_bytes, pids) = match driver {
            DriverChoice::Host { size: HostSize::Program, .. } => (DISK / 32, PIDS / 32),
            DriverChoice::Vm(_) | DriverChoice::Host { .. } => (DISK, PIDS),
        };
        Self { booted_bytes, disk_bytes, pids, first_clone_bytes, clones: HashMap::new() }
    }

    /// Of a session whose VM is booted, or is a clone of this template.
    pub fn of_session(&self, template: Option<&str>) -> Demand {
        let memory_bytes = template.map_or(self.booted_bytes, |template| self.of_clone(template));
        Demand { memory_bytes, disk_bytes: self.disk_bytes, pids: self.pids }
    }

    fn of_clone(&self, template: &str) -> u64 {
        let clones = self.clones.get(template).copied().unwrap_or_default();
        let expected = clones.most_bytes.saturating_add(clones.most_bytes / 4);
        let least = if clones.was_used { LEAST_CLONE } else { self.first_clone_bytes };
        expected.max(least).min(self.booted_bytes)
    }

    /// A clone of this template takes so much now.
    pub fn measured(&mut self, template: &str, private_bytes: u64) {
        let clones = self.clones.entry(template.to_owned()).or_default();
        clones.most_bytes = clones.most_bytes.max(private_bytes);
    }

    /// One that was measured while its desktop was in use has ended.
    pub fn used(&mut self, template: &str) {
        if let Some(clones) = self.clones.get_mut(template) {
            clones.was_used = true;
        }
    }
}

/// What runs a sandbox takes beside the guest's memory, rounded up.
fn beside_bytes(driver: &DriverChoice) -> u64 {
    use anteroom_guest_session::Vmm;
    use anteroom_vm::VmAccelerator;
    match driver {
        DriverChoice::Vm(vm) => match vm.vmm {
            // Its translation buffer of 512 MiB too, which there is only where guest code is translated.
            Vmm::Qemu { accelerator: VmAccelerator::Tcg, .. } => 768 * MIB,
            // Itself, runner and encoder.
            Vmm::Qemu { accelerator: VmAccelerator::Kvm, .. } | Vmm::Firecracker { .. } => {
                256 * MIB
            }
        },
        // X, a browser and what a page needs.
        DriverChoice::Host { size: HostSize::Desktop, .. } => 1024 * MIB,
        DriverChoice::Host { size: HostSize::Program, .. } => 64 * MIB,
    }
}

#[cfg(test)]
mod tests {
    use anteroom_guest_session::Vmm;
    use anteroom_vm::VmAccelerator;

    use super::*;
    use crate::settings::VmChoice;

    fn demands() -> Demands {
        demands_of(VmAccelerator::Tcg)
    }

    fn demands_of(accelerator: VmAccelerator) -> Demands {
        let vmm = Vmm::Qemu { accelerator, cpu: None };
        let vm = VmChoice { vmm, memory_mib: 2048, vcpus: 2, verified_for: Vec::new() };
        Demands::of(&DriverChoice::Vm(vm))
    }

    fn clone_mib(demands: &Demands) -> u64 {
        demands.of_session(Some("t")).memory_bytes / MIB
    }

    #[test]
    fn a_clone_is_expected_to_take_what_the_greatest_before_it_took_and_a_quarter() {
        let mut demands = demands();
        assert_eq!(demands.of_session(None).memory_bytes, 2816 * MIB);
        assert_eq!(clone_mib(&demands), 1152);
        // It has just begun, and will take more.
        demands.measured("t", 40 * MIB);
        assert_eq!(clone_mib(&demands), 1152);
        demands.measured("t", 400 * MIB);
        demands.measured("t", 300 * MIB);
        demands.used("t");
        assert_eq!(clone_mib(&demands), 500);
        assert_eq!(demands.of_session(Some("other")).memory_bytes, 1152 * MIB);
        // It cannot take more than a VM has.
        demands.measured("t", 5000 * MIB);
        assert_eq!(clone_mib(&demands), 2816);
        assert_eq!(demands.of_session(None).memory_bytes, 2816 * MIB);
    }

    #[test]
    fn with_kvm_nothing_is_reserved_for_translated_code() {
        let translating = demands().of_session(None).memory_bytes;
        let demands = demands_of(VmAccelerator::Kvm);
        assert_eq!(translating - demands.of_session(None).memory_bytes, 512 * MIB);
        assert_eq!(clone_mib(&demands), 640);
    }

    #[test]
    fn one_that_took_little_does_not_promise_that_clones_take_nothing() {
        let mut demands = demands();
        // It was never measured.
        demands.used("t");
        assert_eq!(clone_mib(&demands), 1152);
        demands.measured("t", 40 * MIB);
        assert_eq!(clone_mib(&demands), 1152);
        demands.used("t");
        assert_eq!(clone_mib(&demands), 192);
    }
}
