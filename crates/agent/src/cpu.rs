//! What the guest's processor says of itself. The host explains an illegal instruction by this, not
//! by what its own processor reports.

use anteroom_guest_protocol::GuestCpu;

/// Reads it.
pub fn read() -> GuestCpu {
    let dump = anteroom_cpu::this_machine();
    let leaves = dump.leaves().iter();
    let leaves = leaves.map(|is| [is.leaf, is.subleaf, is.eax, is.ebx, is.ecx, is.edx]).collect();
    GuestCpu { leaves, xcr0: dump.xcr0() }
}
