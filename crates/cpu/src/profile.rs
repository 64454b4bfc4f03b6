//! CPUs by name, by Firecracker template, or as they were found.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::cpuid::CpuidDump;
use crate::feature::Feature;
use crate::template::{Standing, Template, TemplateError};

/// Files of named profiles; each profile in them is one of `features` or `template`.
const BUILT_IN: [&str; 2] =
    [include_str!("../profiles/psabi.toml"), include_str!("../profiles/firecracker.toml")];

/// A CPU, for the question which features it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CpuProfile {
    /// Its name, such as `x86-64-v3` or `T2`.
    pub name: String,
    /// What it is, for an end user.
    pub description: String,
    /// Where the facts are from.
    pub source: String,
    /// The facts.
    pub content: Content,
}

/// What is known of a CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// It has these features and no others.
    Features(BTreeSet<Feature>),
    /// It answers so to CPUID.
    Dump(CpuidDump),
    /// It is a host's CPU with these changes.
    Template(Template),
}

/// A profile that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// No profile is called that.
    #[error("there is no CPU profile {name:?}; use one of {}", known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The template is none.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The files in this crate are not what this code takes.
    #[error("the built-in CPU profiles cannot be read: {0}; repair crates/cpu/profiles")]
    BuiltIn(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    profile: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    description: String,
    source: String,
    /// Another profile of features, earlier in the file: its features too.
    above: Option<String>,
    features: Option<BTreeSet<Feature>>,
    template: Option<Template>,
}

impl CpuProfile {
    /// Each built-in profile: the levels of the x86-64 psABI and Firecracker's static templates.
    ///
    /// # Errors
    /// When the files in this crate are not sound, which a test rules out.
    pub fn built_in() -> Result<Vec<Self>, ProfileError> {
        let mut profiles: Vec<Self> = Vec::new();
        for text in BUILT_IN {
            let file: File =
                toml::from_str(text).map_err(|error| ProfileError::BuiltIn(error.to_string()))?;
            for entry in file.profile {
                let content = entry.content(&profiles).ok_or_else(|| {
                    ProfileError::BuiltIn(format!("{} is not one kind of profile", entry.name))
                })?;
                let Entry { name, description, source, .. } = entry;
                profiles.push(Self { name, description, source, content });
            }
        }
        Ok(profiles)
    }

    /// A built-in profile by its name; case does not count.
    ///
    /// # Errors
    /// When there is no profile of that name; the error lists those that exist.
    pub fn named(name: &str) -> Result<Self, ProfileError> {
        let profiles = Self::built_in()?;
        let found = profiles.iter().find(|profile| profile.name.eq_ignore_ascii_case(name));
        found.cloned().ok_or_else(|| ProfileError::Unknown {
            name: name.chars().take(80).collect(),
            known: profiles.into_iter().map(|profile| profile.name).collect(),
        })
    }

    /// A profile from Firecracker's custom CPU template JSON, which may be anyone's.
    ///
    /// # Errors
    /// When the text is too long or no such template.
    pub fn from_template_json(text: &str) -> Result<Self, ProfileError> {
        Ok(Self {
            name: "custom template".into(),
            description: "A host's CPU with a custom Firecracker template".into(),
            source: "the template's text".into(),
            content: Content::Template(Template::from_json(text)?),
        })
    }

    /// The CPU whose dump this is.
    #[must_use]
    pub fn of_host(dump: CpuidDump) -> Self {
        Self {
            name: "this host".into(),
            description: "The CPU of the machine it was read on".into(),
            source: "CPUID and XGETBV".into(),
            content: Content::Dump(dump),
        }
    }

    /// What it says of a feature, without a host at hand.
    #[must_use]
    pub fn standing(&self, feature: Feature) -> Standing {
        let has = match &self.content {
            Content::Features(features) => features.contains(&feature),
            Content::Dump(dump) => dump.has(feature),
            Content::Template(template) => return template.standing(feature),
        };
        if has { Standing::On } else { Standing::Off }
    }

    /// The features of one standing.
    #[must_use]
    pub fn features(&self, standing: Standing) -> BTreeSet<Feature> {
        let all = Feature::ALL.iter().copied();
        all.filter(|&feature| self.standing(feature) == standing).collect()
    }

    /// What a guest with this profile sees on a host. A template changes the host's answers (see
    /// [`Template::apply`]), a set of features turns the others off and adds none, and a dump stays
    /// what it is.
    #[must_use]
    pub fn apply(&self, host: &CpuidDump) -> CpuidDump {
        match &self.content {
            Content::Dump(dump) => dump.clone(),
            Content::Template(template) => template.apply(host),
            Content::Features(features) => host.changed(host.xcr0(), |answer| {
                for feature in Feature::ALL {
                    let at = feature.location();
                    let asked = (at.leaf, at.subleaf) == (answer.leaf, answer.subleaf);
                    if asked && !features.contains(feature) {
                        *answer.register_mut(at.register) &= !(1 << at.bit);
                    }
                }
            }),
        }
    }

    /// This profile on a host: each feature is then on or off.
    #[must_use]
    pub fn on_host(&self, host: &CpuidDump) -> Self {
        Self {
            name: format!("{} on this host", self.name),
            content: Content::Dump(self.apply(host)),
            ..self.clone()
        }
    }
}

impl Entry {
    /// Its facts; `None` unless it has one kind of them.
    fn content(&self, earlier: &[CpuProfile]) -> Option<Content> {
        match (&self.features, &self.template, &self.above) {
            (Some(own), None, None) => Some(Content::Features(own.clone())),
            (Some(own), None, Some(above)) => {
                let base = earlier.iter().find(|profile| profile.name == *above)?;
                let Content::Features(features) = &base.content else { return None };
                Some(Content::Features(features.union(own).copied().collect()))
            }
            (None, Some(template), None) => Some(Content::Template(template.clone())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpuid::CpuidLeaf;

    #[test]
    fn psabi_levels_nest() {
        let level = |n| CpuProfile::named(&format!("x86-64-v{n}")).unwrap().features(Standing::On);
        for (n, count) in [(1, 8), (2, 15), (3, 25), (4, 30)] {
            assert_eq!(level(n).len(), count);
            assert!(n == 1 || level(n).is_superset(&level(n - 1)));
        }
        assert!(level(2).contains(&Feature::Sse4_2) && !level(2).contains(&Feature::Avx));
        assert!(level(3).contains(&Feature::Avx2) && !level(3).contains(&Feature::Aes));
        assert!(level(4).contains(&Feature::Avx512Vl) && !level(4).contains(&Feature::Avx512Vnni));
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        assert_eq!(CpuProfile::named("t2cl").unwrap().name, "T2CL");
        assert_eq!(
            CpuProfile::named("T3").unwrap_err().to_string(),
            "there is no CPU profile \"T3\"; use one of x86-64-v1, x86-64-v2, x86-64-v3, \
             x86-64-v4, T2, T2S, T2CL, T2A, C3"
        );
    }

    #[test]
    fn a_level_takes_features_off_a_host_and_adds_none() {
        let leaf = |leaf, ecx| CpuidLeaf { leaf, ecx, ..CpuidLeaf::default() };
        let bits = 1 << 20 | 1 << 26 | 1 << 27 | 1 << 28;
        let host = CpuidDump::new(vec![leaf(1, bits), leaf(0x8000_0001, 1 << 5)], 7).unwrap();
        let guest = CpuProfile::named("x86-64-v2").unwrap().on_host(&host);
        assert_eq!(guest.features(Standing::On), BTreeSet::from([Feature::Sse4_2]));
        assert_eq!(guest.standing(Feature::Popcnt), Standing::Off);
        assert_eq!(CpuProfile::of_host(host).standing(Feature::Avx), Standing::On);
    }
}
