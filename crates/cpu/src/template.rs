//! Firecracker's custom CPU templates for x86-64: changes to what a host's CPUID answers.
//!
//! The format is that of docs/cpu_templates/schema.json in Firecracker's repository.

use serde::{Deserialize, Serialize};

use crate::bitmap::Bitmap;
use crate::cpuid::{CpuidDump, reaches};
use crate::feature::{Feature, Location, Register};

/// Longest template text that is read, in bytes. One that sets each register of a big CPU has some
/// 40,000.
pub const MAX_TEMPLATE_BYTES: usize = 256 * 1024;
const MAX_ENTRIES: usize = 1024;
const MAX_CHANGES: usize = 16;

/// What a template, or a profile, says of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The CPU has it not, on any host.
    Off,
    /// The CPU has it, on any host.
    On,
    /// The CPU has it where the host has.
    AsHost,
}

/// A CPU template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// KVM capabilities that Firecracker checks for besides its own (`"171"`) or not at all
    /// (`"!171"`). Kept, not interpreted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kvm_capabilities: Vec<String>,
    /// Changes to CPUID, in this order.
    #[serde(default)]
    pub cpuid_modifiers: Vec<LeafModifier>,
    /// Changes to model-specific registers. Kept, not interpreted.
    #[serde(default)]
    pub msr_modifiers: Vec<MsrModifier>,
}

/// Changes to the answer to one leaf and subleaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeafModifier {
    /// The leaf.
    #[serde(with = "prefixed")]
    pub leaf: u32,
    /// The subleaf.
    #[serde(with = "prefixed")]
    pub subleaf: u32,
    /// KVM's flags for the entry (`struct kvm_cpuid_entry2`): 1 where the subleaf counts.
    pub flags: u32,
    /// Changes to its registers, in this order.
    pub modifiers: Vec<RegisterModifier>,
}

/// A change to one register of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterModifier {
    /// The register that is changed.
    pub register: Register,
    /// The change.
    pub bitmap: Bitmap,
}

/// A change to a model-specific register, as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MsrModifier {
    /// Its number, such as `0x10a`.
    pub addr: String,
    /// The change, 64 digits of `0`, `1` and `x`.
    pub bitmap: String,
}

/// A text that is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Longer than [`MAX_TEMPLATE_BYTES`].
    #[error(
        "the CPU template has {0} bytes; the maximum is {MAX_TEMPLATE_BYTES}: leave out what it does not change"
    )]
    TooLong(usize),
    /// Not the format.
    #[error(
        "this is not a Firecracker CPU template for x86-64: {0}; see docs/cpu_templates/schema.json of Firecracker"
    )]
    Malformed(String),
    /// More entries than any CPU has leaves.
    #[error("the CPU template has {found} {what}; the maximum is {most}: merge or remove some")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many it has.
        found: usize,
        /// How many it may have.
        most: usize,
    },
}

impl Template {
    /// Reads Firecracker's JSON, from anyone.
    ///
    /// # Errors
    /// When it is too long, is not the format (a field that Firecracker's x86-64 templates have not
    /// counts as that) or has more entries than make sense.
    pub fn from_json(text: &str) -> Result<Self, TemplateError> {
        if text.len() > MAX_TEMPLATE_BYTES {
            return Err(TemplateError::TooLong(text.len()));
        }
        let template: Self = serde_json::from_str(text).map_err(|error| {
            // serde's words may quote the text; a sentence needs no more than its beginning.
            TemplateError::Malformed(error.to_string().chars().take(300).collect())
        })?;
        let changes = template.cpuid_modifiers.iter().map(|leaf| leaf.modifiers.len()).max();
        for (what, found, most) in [
            ("CPUID modifiers", template.cpuid_modifiers.len(), MAX_ENTRIES),
            ("MSR modifiers", template.msr_modifiers.len(), MAX_ENTRIES),
            ("KVM capabilities", template.kvm_capabilities.len(), MAX_ENTRIES),
            ("register modifiers in one leaf", changes.unwrap_or(0), MAX_CHANGES),
        ] {
            if found > most {
                return Err(TemplateError::TooMany { what, found, most });
            }
        }
        Ok(template)
    }

    /// What a guest sees on this host, once its operating system has turned on what it is offered:
    /// OSXSAVE is XSAVE, whatever the template says of it (KVM sets it by the guest's CR4), and XCR0
    /// follows leaf 0xd. A leaf the host has not is passed over; see [`Template::missing_on`].
    #[must_use]
    pub fn apply(&self, host: &CpuidDump) -> CpuidDump {
        let states = [(Register::Eax, 0), (Register::Edx, 32)];
        let xcr0 = states.iter().fold(host.xcr0(), |xcr0, &(register, shift)| {
            let change = self.change(0xd, 0, register);
            let (filter, value) = (u64::from(change.filter()), u64::from(change.value()));
            xcr0 & !(filter << shift) | value << shift
        });
        let xsave = host.leaf(1, 0).is_some_and(|leaf| {
            self.change(1, 0, Register::Ecx).apply(leaf.ecx) & mask(Feature::Xsave) != 0
        });
        host.changed(if xsave { xcr0 } else { 0 }, |answer| {
            for register in [Register::Eax, Register::Ebx, Register::Ecx, Register::Edx] {
                let change = self.change(answer.leaf, answer.subleaf, register);
                let value = answer.register_mut(register);
                *value = change.apply(*value);
            }
            if answer.leaf == 1 {
                answer.ecx &= !mask(Feature::Osxsave);
                answer.ecx |= if xsave { mask(Feature::Osxsave) } else { 0 };
            }
        })
    }

    /// Leaves and subleaves that the template changes and the host has not: Firecracker refuses to
    /// start a machine then.
    #[must_use]
    pub fn missing_on(&self, host: &CpuidDump) -> Vec<(u32, u32)> {
        let changed = self.cpuid_modifiers.iter().map(|leaf| (leaf.leaf, leaf.subleaf));
        changed.filter(|&(leaf, subleaf)| host.leaf(leaf, subleaf).is_none()).collect()
    }

    /// What the template makes of a feature on any host.
    #[must_use]
    pub fn standing(&self, feature: Feature) -> Standing {
        // See `apply`: the bit in the template does not count.
        let feature = if feature == Feature::Osxsave { Feature::Xsave } else { feature };
        let needed = feature.xcr0_needed();
        let at = feature.location();
        // The largest that EAX can be: what is not set to something counts as on.
        let most = |leaf| Some(self.change(leaf, 0, Register::Eax).apply(u32::MAX));
        let xsave = self.bit(Feature::Xsave.location());
        let states = (0..32)
            .filter(|bit| needed >> bit & 1 == 1)
            .map(|bit| self.bit(Location { leaf: 0xd, subleaf: 0, register: Register::Eax, bit }));
        let parts: Vec<Standing> = std::iter::once(self.bit(at))
            .chain((needed != 0).then_some(xsave))
            .chain(states)
            .collect();
        if !reaches(at, most) || parts.contains(&Standing::Off) {
            Standing::Off
        } else if parts.contains(&Standing::AsHost) {
            Standing::AsHost
        } else {
            Standing::On
        }
    }

    fn bit(&self, at: Location) -> Standing {
        let change = self.change(at.leaf, at.subleaf, at.register);
        match (change.filter() >> at.bit & 1, change.value() >> at.bit & 1) {
            (0, _) => Standing::AsHost,
            (_, 0) => Standing::Off,
            _ => Standing::On,
        }
    }

    /// All changes to one register as one: a later one wins.
    fn change(&self, leaf: u32, subleaf: u32, register: Register) -> Bitmap {
        let leaves = self.cpuid_modifiers.iter();
        leaves
            .filter(|entry| (entry.leaf, entry.subleaf) == (leaf, subleaf))
            .flat_map(|entry| &entry.modifiers)
            .filter(|modifier| modifier.register == register)
            .fold(Bitmap::default(), |all, modifier| all.then(modifier.bitmap))
    }
}

fn mask(feature: Feature) -> u32 {
    1 << feature.location().bit
}

/// Numbers as Firecracker writes them: text that begins with `0x` (or `0b`).
mod prefixed {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(number: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{number:#x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = match (text.strip_prefix("0x"), text.strip_prefix("0b")) {
            (Some(digits), _) => u32::from_str_radix(digits, 16).ok(),
            (_, Some(digits)) => u32::from_str_radix(digits, 2).ok(),
            _ => None,
        };
        number.ok_or_else(|| {
            D::Error::custom(format!("{text:?} is not a 32-bit number with 0x or 0b"))
        })
    }
}
