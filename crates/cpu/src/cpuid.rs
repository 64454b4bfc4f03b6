//! What one CPU answers to CPUID, and which features follow from it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::feature::{Feature, Location, Register};

/// Most leaves that a dump may have; CPUs of today answer some 60.
pub const MAX_LEAVES: usize = 256;

/// CPUID's answer to one leaf and subleaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuidLeaf {
    /// EAX on the way in.
    pub leaf: u32,
    /// ECX on the way in; 0 where the leaf ignores it.
    pub subleaf: u32,
    /// EAX of the answer.
    pub eax: u32,
    /// EBX of the answer.
    pub ebx: u32,
    /// ECX of the answer.
    pub ecx: u32,
    /// EDX of the answer.
    pub edx: u32,
}

impl CpuidLeaf {
    /// One register of the answer.
    #[must_use]
    pub fn register(&self, register: Register) -> u32 {
        match register {
            Register::Eax => self.eax,
            Register::Ebx => self.ebx,
            Register::Ecx => self.ecx,
            Register::Edx => self.edx,
        }
    }

    /// One register of the answer, to change.
    pub fn register_mut(&mut self, register: Register) -> &mut u32 {
        match register {
            Register::Eax => &mut self.eax,
            Register::Ebx => &mut self.ebx,
            Register::Ecx => &mut self.ecx,
            Register::Edx => &mut self.edx,
        }
    }
}

/// What a CPU answers to CPUID, with the XCR0 that its operating system has set. A leaf that is not
/// in it counts as zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Parts")]
pub struct CpuidDump {
    leaves: Vec<CpuidLeaf>,
    xcr0: u64,
}

/// A dump as it is written, not checked yet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    leaves: Vec<CpuidLeaf>,
    xcr0: u64,
}

/// Leaves that make no dump.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DumpError {
    /// More than [`MAX_LEAVES`].
    #[error(
        "the CPUID dump has {0} leaves; at most {MAX_LEAVES} are allowed: leave out those that report no feature"
    )]
    TooMany(usize),
    /// The same question twice.
    #[error("the CPUID dump has leaf {leaf:#x} subleaf {subleaf:#x} twice; keep one of the two")]
    Twice {
        /// The leaf.
        leaf: u32,
        /// The subleaf.
        subleaf: u32,
    },
}

impl TryFrom<Parts> for CpuidDump {
    type Error = DumpError;

    fn try_from(parts: Parts) -> Result<Self, DumpError> {
        Self::new(parts.leaves, parts.xcr0)
    }
}

impl CpuidDump {
    /// A dump of these leaves, in any order. `xcr0` is what XGETBV gives for register 0; 0 where the
    /// operating system has not turned XSAVE on.
    ///
    /// # Errors
    /// When there are more than [`MAX_LEAVES`], or a leaf and subleaf stands twice.
    pub fn new(mut leaves: Vec<CpuidLeaf>, xcr0: u64) -> Result<Self, DumpError> {
        if leaves.len() > MAX_LEAVES {
            return Err(DumpError::TooMany(leaves.len()));
        }
        leaves.sort_by_key(|leaf| (leaf.leaf, leaf.subleaf));
        for pair in leaves.windows(2) {
            let [one, next] = pair else { continue };
            if (one.leaf, one.subleaf) == (next.leaf, next.subleaf) {
                return Err(DumpError::Twice { leaf: one.leaf, subleaf: one.subleaf });
            }
        }
        Ok(Self { leaves, xcr0 })
    }

    /// The leaves, by leaf and subleaf.
    #[must_use]
    pub fn leaves(&self) -> &[CpuidLeaf] {
        &self.leaves
    }

    /// The states that the operating system lets programs use (XCR0).
    #[must_use]
    pub fn xcr0(&self) -> u64 {
        self.xcr0
    }

    /// The answer to one leaf and subleaf.
    #[must_use]
    pub fn leaf(&self, leaf: u32, subleaf: u32) -> Option<&CpuidLeaf> {
        self.leaves.iter().find(|entry| (entry.leaf, entry.subleaf) == (leaf, subleaf))
    }

    /// Whether a program may use the feature: CPUID reports it and, where its registers need it,
    /// the operating system has turned XSAVE and their bits of XCR0 on.
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        let needed = feature.xcr0_needed();
        self.bit(feature.location())
            && (needed == 0
                || (self.bit(Feature::Osxsave.location()) && self.xcr0 & needed == needed))
    }

    /// Each feature that a program may use.
    #[must_use]
    pub fn features(&self) -> BTreeSet<Feature> {
        Feature::ALL.iter().copied().filter(|&feature| self.has(feature)).collect()
    }

    /// The same with each answer passed through `change`, and another XCR0.
    pub(crate) fn changed(&self, xcr0: u64, change: impl Fn(&mut CpuidLeaf)) -> Self {
        let mut leaves = self.leaves.clone();
        for leaf in &mut leaves {
            // What was asked stays, whatever is made of the answer.
            let (asked, sub) = (leaf.leaf, leaf.subleaf);
            change(leaf);
            (leaf.leaf, leaf.subleaf) = (asked, sub);
        }
        Self { leaves, xcr0 }
    }

    fn bit(&self, at: Location) -> bool {
        let eax = |leaf| self.leaf(leaf, 0).map(|entry| entry.eax);
        reaches(at, eax)
            && self
                .leaf(at.leaf, at.subleaf)
                .is_some_and(|entry| entry.register(at.register) >> at.bit & 1 == 1)
    }
}

/// Whether a program that asks first how far CPUID goes comes to this place: leaf 0 and leaf
/// 0x80000000 give the largest leaf of their range in EAX, leaf 7 the largest subleaf. `eax` gives
/// EAX of a leaf's subleaf 0, or `None` where nothing is known of it.
pub(crate) fn reaches(at: Location, eax: impl Fn(u32) -> Option<u32>) -> bool {
    let range = at.leaf & 0xffff_0000;
    let leaf_there = eax(range).is_none_or(|largest| at.leaf <= largest);
    let subleaf_there =
        at.leaf != 7 || at.subleaf == 0 || eax(7).is_none_or(|largest| at.subleaf <= largest);
    leaf_there && subleaf_there
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEATURES_AVX: u32 = 1 << 28 | 1 << 26;
    const OSXSAVE: u32 = 1 << 27;

    fn dump(leaves: &[CpuidLeaf], xcr0: u64) -> CpuidDump {
        CpuidDump::new(leaves.to_vec(), xcr0).unwrap()
    }

    #[test]
    fn avx_needs_the_operating_system() {
        let leaf = |ecx| CpuidLeaf { leaf: 1, ecx, ..CpuidLeaf::default() };
        assert!(dump(&[leaf(FEATURES_AVX | OSXSAVE)], 0x7).has(Feature::Avx));
        assert!(!dump(&[leaf(FEATURES_AVX | OSXSAVE)], 0x3).has(Feature::Avx));
        assert!(!dump(&[leaf(FEATURES_AVX)], 0x7).has(Feature::Avx));
        assert!(!dump(&[leaf(OSXSAVE)], 0x7).has(Feature::Avx));
        assert!(dump(&[leaf(FEATURES_AVX)], 0).has(Feature::Xsave));
    }

    #[test]
    fn what_lies_behind_the_last_leaf_is_not_there() {
        let seven = CpuidLeaf { leaf: 7, eax: 0, ebx: 1 << 8, ..CpuidLeaf::default() };
        let more = CpuidLeaf { leaf: 7, subleaf: 1, eax: 1 << 7, ..CpuidLeaf::default() };
        let last = |eax| CpuidLeaf { leaf: 0, eax, ..CpuidLeaf::default() };
        assert!(dump(&[last(7), seven], 0).has(Feature::Bmi2));
        assert!(!dump(&[last(6), seven], 0).has(Feature::Bmi2));
        assert!(!dump(&[seven, more], 0).has(Feature::Cmpccxadd));
        assert!(dump(&[CpuidLeaf { eax: 1, ..seven }, more], 0).has(Feature::Cmpccxadd));
        let extended = CpuidLeaf { leaf: 0x8000_0001, ecx: 1, ..CpuidLeaf::default() };
        let last = CpuidLeaf { leaf: 0x8000_0000, eax: 0x8000_0000, ..CpuidLeaf::default() };
        assert!(dump(&[extended], 0).has(Feature::LahfSahf));
        assert!(!dump(&[last, extended], 0).has(Feature::LahfSahf));
    }

    #[test]
    fn a_dump_is_bounded_and_says_each_leaf_once() {
        let leaves = |n: u32| (0..n).map(|leaf| CpuidLeaf { leaf, ..CpuidLeaf::default() });
        assert!(CpuidDump::new(leaves(256).collect(), 0).is_ok());
        assert_eq!(CpuidDump::new(leaves(257).collect(), 0), Err(DumpError::TooMany(257)));
        let twice = leaves(3).chain(leaves(1)).collect();
        assert_eq!(CpuidDump::new(twice, 0), Err(DumpError::Twice { leaf: 0, subleaf: 0 }));
        let sound = dump(&leaves(2).collect::<Vec<_>>(), 7);
        let json = serde_json::to_value(&sound).unwrap();
        assert_eq!(serde_json::from_value::<CpuidDump>(json).unwrap(), sound);
        let many = serde_json::json!({ "leaves": leaves(257).collect::<Vec<_>>(), "xcr0": 0 });
        assert!(serde_json::from_value::<CpuidDump>(many).is_err());
    }
}
