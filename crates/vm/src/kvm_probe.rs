//! Whether KVM really works here: guest code is run against a clock.
//!
//! `/dev/kvm` can exist, open and create VMs and still be useless: some nested hosts emulate every
//! guest instruction at a few million a second, and a stock kernel never boots on them.

use std::time::{Duration, Instant};

use anteroom_fail_point::fail_point;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit};

/// What the probe saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvmProbe {
    /// Guest code ran at a processor's speed.
    Usable {
        /// Million instructions a second.
        mips: u64,
    },
    /// It did not, or there is no KVM.
    Unusable {
        /// Evidence, one sentence.
        why: String,
    },
}

/// Turns of the guest's loop, two instructions each: a millisecond on hardware, under a second where
/// each is emulated, so the probe always ends by itself.
const TURNS: u32 = 1_000_000;

/// Slower than this, a guest is better emulated outright. Nested hosts that emulate each instruction have
/// been seen at 3; KVM on an emulated processor, which boots a guest in seconds, at 52 to 138; hardware
/// in the thousands.
const LEAST_MIPS: u64 = 20;

const MEMORY: usize = 0x1000;
const ENTRY: u64 = 0x1000;

/// Runs a small loop in a throw-away VM.
#[must_use]
pub fn probe_kvm() -> KvmProbe {
    match run_loop() {
        Ok(took) => {
            let instructions = u64::from(TURNS) * 2;
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
            judged(instructions / micros)
        }
        Err(why) => KvmProbe::Unusable { why },
    }
}

/// A test may take any KVM by the fail point: there is none in what users run.
fn judged(mips: u64) -> KvmProbe {
    if mips >= LEAST_MIPS || fail_point("kvm.least_speed").is_err() {
        return KvmProbe::Usable { mips };
    }
    let why = format!(
        "/dev/kvm runs guest code at {mips} million instructions a second, as an emulator does"
    );
    KvmProbe::Unusable { why }
}

fn run_loop() -> Result<Duration, String> {
    let failed =
        |what: &'static str| move |error: kvm_ioctls::Error| format!("{what} failed: {error}");
    let kvm = Kvm::new().map_err(failed("opening /dev/kvm"))?;
    let vm = kvm.create_vm().map_err(failed("creating a VM with /dev/kvm"))?;
    // mov ecx, TURNS; dec ecx; jnz back; hlt — 16-bit code with operand-size prefixes.
    let mut code = vec![0x66, 0xb9];
    code.extend(TURNS.to_le_bytes());
    code.extend([0x66, 0x49, 0x75, 0xfc, 0xf4]);
    let mut memory =
        memmap2::MmapMut::map_anon(MEMORY).map_err(|e| format!("allocating memory failed: {e}"))?;
    memory[..code.len()].copy_from_slice(&code);
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: ENTRY,
        memory_size: MEMORY as u64,
        userspace_addr: memory.as_mut_ptr() as u64,
    };
    // SAFETY: the mapping is this long, outlives the VM (dropped after it), and nothing else uses it.
    #[expect(unsafe_code, reason = "KVM takes memory by its address")]
    unsafe { vm.set_user_memory_region(region) }.map_err(failed("giving memory to the VM"))?;
    let mut vcpu = vm.create_vcpu(0).map_err(failed("creating a processor"))?;
    let mut special = vcpu.get_sregs().map_err(failed("reading its registers"))?;
    special.cs.base = 0;
    special.cs.selector = 0;
    vcpu.set_sregs(&special).map_err(failed("setting its registers"))?;
    let mut registers = vcpu.get_regs().map_err(failed("reading its registers"))?;
    registers.rip = ENTRY;
    registers.rflags = 2;
    vcpu.set_regs(&registers).map_err(failed("setting its registers"))?;
    let started = Instant::now();
    let outcome = match vcpu.run() {
        Ok(VcpuExit::Hlt) => Ok(started.elapsed()),
        Ok(other) => {
            Err(format!("the probe's VM stopped with {other:?} instead of running its loop"))
        }
        Err(error) => Err(format!("running the probe's VM failed: {error}")),
    };
    drop(vcpu);
    drop(vm);
    drop(memory);
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kvm_as_slow_as_an_emulator_is_not_usable() {
        assert_eq!(judged(LEAST_MIPS), KvmProbe::Usable { mips: LEAST_MIPS });
        let KvmProbe::Unusable { why } = judged(LEAST_MIPS - 1) else { panic!("it is used") };
        assert!(why.contains("at 19 million instructions a second"), "{why}");
    }

    #[test]
    fn the_probe_ends_and_says_what_it_saw() {
        match probe_kvm() {
            KvmProbe::Usable { mips } => assert!(mips >= LEAST_MIPS),
            KvmProbe::Unusable { why } => assert!(!why.is_empty()),
        }
    }
}
