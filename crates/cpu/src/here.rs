//! The processor that this runs on.

use std::arch::x86_64::{__cpuid_count, _xgetbv};

use crate::cpuid::{CpuidDump, CpuidLeaf};

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

/// What this processor answers to CPUID, and its XCR0.
#[must_use]
pub fn this_machine() -> CpuidDump {
    let basic = __cpuid_count(0, 0).eax;
    let extended = __cpuid_count(0x8000_0000, 0).eax;
    let known = |leaf: u32| leaf <= if leaf < 0x8000_0000 { basic } else { extended };
    let leaves: Vec<CpuidLeaf> = LEAVES
        .into_iter()
        .filter(|(leaf, _)| known(*leaf))
        .map(|(leaf, subleaf)| {
            let is = __cpuid_count(leaf, subleaf);
            CpuidLeaf { leaf, subleaf, eax: is.eax, ebx: is.ebx, ecx: is.ecx, edx: is.edx }
        })
        .collect();
    let has_xcr0 = leaves.iter().any(|leaf| leaf.leaf == 1 && leaf.ecx & OSXSAVE != 0);
    // Ten leaves, each once: no dump that could be refused.
    CpuidDump::new(leaves, if has_xcr0 { xcr0() } else { 0 }).unwrap_or_default()
}

fn xcr0() -> u64 {
    // SAFETY: asked only where the kernel has turned XSAVE on, as the instruction demands.
    #[expect(unsafe_code, reason = "the compiler cannot know that this processor has XSAVE")]
    unsafe {
        _xgetbv(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feature::Feature;

    #[test]
    fn this_machine_has_what_each_x86_64_has() {
        let here = this_machine();
        for feature in [Feature::Sse2, Feature::Cmov, Feature::Fxsr] {
            assert!(here.has(feature), "{feature}");
        }
        assert_eq!(here.has(Feature::Avx2), std::arch::is_x86_feature_detected!("avx2"));
    }
}
