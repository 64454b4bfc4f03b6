//! A profile in the words of a virtual machine monitor.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::bitmap::Bitmap;
use crate::feature::{Feature, Location, Register};
use crate::profile::{Content, CpuProfile};
use crate::template::Standing;
use crate::template::{LeafModifier, RegisterModifier, Template};

/// Features that QEMU 7.2's own emulation (TCG) has: what its CPU model `max` reports there.
const EMULATED: &[Feature] = &[
    Feature::Fpu,
    Feature::Cmpxchg8b,
    Feature::Cmov,
    Feature::Mmx,
    Feature::Fxsr,
    Feature::Syscall,
    Feature::Sse,
    Feature::Sse2,
    Feature::Sse3,
    Feature::Ssse3,
    Feature::Sse4_1,
    Feature::Sse4_2,
    Feature::Sse4a,
    Feature::Popcnt,
    Feature::Cmpxchg16b,
    Feature::LahfSahf,
    Feature::Rdtscp,
    Feature::ThreeDNow,
    Feature::ThreeDNowExt,
    Feature::Pclmulqdq,
    Feature::Aes,
    Feature::Movbe,
    Feature::Rdrand,
    Feature::Xsave,
    Feature::Xsaveopt,
    Feature::Avx,
    Feature::F16c,
    Feature::Fma,
    Feature::Avx2,
    Feature::Vaes,
    Feature::Bmi1,
    Feature::Bmi2,
    Feature::Lzcnt,
    Feature::Adx,
    Feature::Fsgsbase,
    Feature::Erms,
    Feature::Clflushopt,
    Feature::Clwb,
];

/// A profile for QEMU 7.2's emulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuCpu {
    /// What goes behind `-cpu`.
    pub cpu: String,
    /// Features of the profile that the emulation has not, so that the guest has them not either.
    pub not_emulated: Vec<Feature>,
    /// Features that the guest has although the profile has them not, since it does not boot without.
    pub besides: Vec<Feature>,
}

/// A profile that cannot be converted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// Some features are as on a host, and no host is given.
    #[error(
        "the CPU profile {name} leaves features to its host ({count}, the first is {first}); say which host, with CpuProfile::on_host"
    )]
    NeedsHost {
        /// The profile's name.
        name: String,
        /// One such feature.
        first: Feature,
        /// How many there are.
        count: usize,
    },
}

/// The `-cpu` of QEMU 7.2 under TCG that has, of all features known here, those of the profile.
///
/// Each one is said with `+` or `-`, whatever the model beneath has. What else that model has (SMEP,
/// NX, …) stays. The models are ones that the guest kernel boots on: with `max` and `EPYC` it hangs
/// at TSC calibration.
///
/// Instructions of a feature that is off fault in the guest (34 were tried, on the levels 1 to 3), with
/// three exceptions in QEMU 7.2: LZCNT runs as BSR, as on a real CPU without it; PREFETCHW always
/// runs; and RDSEED runs wherever RDRAND does.
///
/// # Errors
/// When the profile leaves features to a host.
pub fn qemu_cpu_model(profile: &CpuProfile) -> Result<QemuCpu, ConvertError> {
    let open = profile.features(Standing::AsHost);
    if let Some(&first) = open.first() {
        return Err(ConvertError::NeedsHost {
            name: profile.name.clone(),
            first,
            count: open.len(),
        });
    }
    let features = profile.features(Standing::On);
    // A 6.1 kernel hangs in early boot on Haswell-noTSX,-xsaveopt (4 boots of 4; with it none).
    let besides: Vec<Feature> = [Feature::Xsaveopt]
        .into_iter()
        .filter(|feature| features.contains(&Feature::Xsave) && !features.contains(feature))
        .collect();
    // What each model has that TCG has not, and would warn of, is taken away here. (Nehalem-v2, which
    // "Nehalem" means, has SPEC_CTRL.)
    let mut cpu = String::from(if features.contains(&Feature::Avx) {
        "Haswell-noTSX,-pcid,-x2apic,-tsc-deadline"
    } else if features.contains(&Feature::Sse4_2) {
        "Nehalem-v1"
    } else {
        "qemu64"
    });
    let mut not_emulated = Vec::new();
    for feature in Feature::ALL {
        let wanted = features.contains(feature);
        let emulated = EMULATED.contains(feature);
        if let Some(flag) = feature.qemu_flag() {
            let on = wanted && emulated || besides.contains(feature);
            cpu.push_str(if on { ",+" } else { ",-" });
            cpu.push_str(flag);
        }
        // OSXSAVE comes with the guest's operating system.
        if wanted && !emulated && *feature != Feature::Osxsave {
            not_emulated.push(*feature);
        }
    }
    Ok(QemuCpu { cpu, not_emulated, besides })
}

/// The profile as Firecracker's custom CPU template (JSON, for `PUT /cpu-config`).
///
/// A profile that is a template stays that template. Of any other, the features that it has not are
/// turned off, and those it has are left as on the host, since a bit turned on gives no CPU an
/// instruction; the register states of AVX, AVX-512 and AMX go with them, so that the instructions
/// themselves fault. Where the profile has nothing of leaf 7 subleaf 1, leaf 7 is said to end before
/// it: Firecracker refuses a template that changes a subleaf the host has not.
#[must_use]
pub fn firecracker_template(profile: &CpuProfile) -> Value {
    let template = match &profile.content {
        Content::Template(template) => template.clone(),
        Content::Features(_) | Content::Dump(_) => without(&profile.features(Standing::On)),
    };
    // Text, numbers and lists become JSON whatever is in them.
    serde_json::to_value(template).unwrap_or_default()
}

/// A template that turns off all but these features.
fn without(features: &BTreeSet<Feature>) -> Template {
    let places = || Feature::ALL.iter().map(|feature| (feature, feature.location()));
    let second = |at: Location| (at.leaf, at.subleaf) == (7, 1);
    let ends_early = !places().any(|(feature, at)| second(at) && features.contains(feature));
    let mut off: BTreeMap<(u32, u32, Register), u32> = BTreeMap::new();
    for (feature, at) in places() {
        let dropped = !features.contains(feature) && *feature != Feature::Osxsave;
        if dropped && !(ends_early && second(at)) {
            *off.entry((at.leaf, at.subleaf, at.register)).or_default() |= 1 << at.bit;
        }
    }
    if ends_early {
        off.insert((7, 0, Register::Eax), u32::MAX);
    }
    for (feature, states) in
        [(Feature::Avx, 0x4), (Feature::Avx512F, 0xe0), (Feature::AmxTile, 0x6_0000)]
    {
        if !features.contains(&feature) {
            *off.entry((0xd, 0, Register::Eax)).or_default() |= states;
        }
    }
    let mut template = Template::default();
    for ((leaf, subleaf, register), filter) in off {
        let change = RegisterModifier { register, bitmap: Bitmap::new(filter, 0) };
        match template.cpuid_modifiers.last_mut() {
            Some(last) if (last.leaf, last.subleaf) == (leaf, subleaf) => {
                last.modifiers.push(change);
            }
            _ => template.cpuid_modifiers.push(LeafModifier {
                leaf,
                subleaf,
                // Of the leaves that report features, these answer by subleaf.
                flags: u32::from([0x7, 0xd].contains(&leaf)),
                modifiers: vec![change],
            }),
        }
    }
    template
}
