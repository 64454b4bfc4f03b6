//! What the guest's processor says of itself. The host explains an illegal instruction by this, not
//! by its own processor's word.

use std::arch::x86_64::{__cpuid_count, _xgetbv};

use anteroom_guest_protocol::GuestCpu;

/// CPUID leaves with features in them (Intel SDM volume 2A, AMD APM volume 3).
const LEAVES: [(u32, u32); 10] = [
    (0, 0),
    (1, 0),
    (7, 0),
    (7, 1),
    (0xd, 0),
    (0xd, 1),
    (0x1e, 0),
    (0x8000_0000, 0),
    (0x8000_0001, 0),
    (0x8000_0008, 0),
];

/// Bit of leaf 1's ECX: the kernel has turned XSAVE on, so XCR0 can be read.
const OSXSAVE: u32 = 1 << 27;

/// Reads it.
pub fn read() -> GuestCpu {
    let basic = __cpuid_count(0, 0).eax;
    let extended = __cpuid_count(0x8000_0000, 0).eax;
    let known = |leaf: u32| leaf <= if leaf < 0x8000_0000 { basic } else { extended };
    let leaves: Vec<[u32; 6]> = LEAVES
        .into_iter()
        .filter(|(leaf, _)| known(*leaf))
        .map(|(leaf, subleaf)| {
            let is = __cpuid_count(leaf, subleaf);
            [leaf, subleaf, is.eax, is.ebx, is.ecx, is.edx]
        })
        .collect();
    let has_xcr0 = leaves.iter().any(|leaf| leaf[0] == 1 && leaf[4] & OSXSAVE != 0);
    GuestCpu { leaves, xcr0: if has_xcr0 { xcr0() } else { 0 } }
}

fn xcr0() -> u64 {
    // SAFETY: asked only where the kernel has turned XSAVE on, as the instruction demands.
    #[expect(unsafe_code, reason = "the compiler cannot know that this processor has XSAVE")]
    unsafe {
        _xgetbv(0)
    }
}
