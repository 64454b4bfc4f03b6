//! Instruction set features, and where CPUID reports each.
//!
//! Places and XCR0 bits are those of the Intel SDM (vol. 2A, CPUID; vol. 1, ch. 13) and, for leaf
//! 0x80000001, of the AMD APM (vol. 3, appendix E).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A register that CPUID answers in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Register {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

/// The one bit of CPUID that reports a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// CPUID's EAX on the way in.
    pub leaf: u32,
    /// CPUID's ECX on the way in; 0 where the leaf ignores it.
    pub subleaf: u32,
    /// The register of the answer.
    pub register: Register,
    /// The bit in it, 0 to 31.
    pub bit: u8,
}

/// A text that names no feature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a known CPU feature; write it like SSE4.2, avx2 or AVX512_VNNI")]
pub struct UnknownFeature(pub String);

/// What XCR0 must have on: the SSE and AVX registers.
const YMM: u64 = 0x6;
/// As [`YMM`], with AVX-512's mask registers and its upper halves.
const ZMM: u64 = 0xe6;
/// AMX's tile configuration and tile data.
const TILES: u64 = 0x6_0000;

macro_rules! features {
    ($($variant:ident $name:literal $qemu:expr, $leaf:literal $subleaf:literal $register:ident $bit:literal $xcr0:expr;)*) => {
        /// An instruction set feature that programs find out about by CPUID, or trip over. As text
        /// (`Display`, serde) it is [`Feature::name`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Feature {
            $(#[doc = concat!($name, ".")] $variant,)*
        }

        impl Feature {
            /// Each feature, in the order of its place in CPUID.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// As people write it, such as `SSE4.2` or `AVX-512F`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// As QEMU 7.2 spells it behind a `+` in `-cpu`; `None` where that QEMU has no flag.
            #[must_use]
            pub fn qemu_flag(self) -> Option<&'static str> {
                match self { $(Self::$variant => $qemu,)* }
            }

            /// Where CPUID reports it.
            #[must_use]
            pub fn location(self) -> Location {
                match self { $(Self::$variant => Location {
                    leaf: $leaf, subleaf: $subleaf, register: Register::$register, bit: $bit,
                },)* }
            }

            /// Bits of XCR0 that the operating system must have on for the instructions to work;
            /// 0 for those that keep no state of their own. (Linux also wants to be asked by
            /// `arch_prctl` before a process may use AMX; no bit says that.)
            #[must_use]
            pub fn xcr0_needed(self) -> u64 {
                match self { $(Self::$variant => $xcr0,)* }
            }
        }
    };
}

features! {
    // Variant        name               QEMU flag                   leaf subleaf register bit XCR0
    Sse3              "SSE3"             Some("sse3"),               0x1 0 Ecx 0 0;
    Pclmulqdq         "PCLMULQDQ"        Some("pclmulqdq"),          0x1 0 Ecx 1 0;
    Ssse3             "SSSE3"            Some("ssse3"),              0x1 0 Ecx 9 0;
    Fma               "FMA"              Some("fma"),                0x1 0 Ecx 12 YMM;
    Cmpxchg16b        "CMPXCHG16B"       Some("cx16"),               0x1 0 Ecx 13 0;
    Sse4_1            "SSE4.1"           Some("sse4.1"),             0x1 0 Ecx 19 0;
    Sse4_2            "SSE4.2"           Some("sse4.2"),             0x1 0 Ecx 20 0;
    Movbe             "MOVBE"            Some("movbe"),              0x1 0 Ecx 22 0;
    Popcnt            "POPCNT"           Some("popcnt"),             0x1 0 Ecx 23 0;
    Aes               "AES"              Some("aes"),                0x1 0 Ecx 25 0;
    Xsave             "XSAVE"            Some("xsave"),              0x1 0 Ecx 26 0;
    // Not of the CPU alone: it mirrors CR4.OSXSAVE, which the operating system sets.
    Osxsave           "OSXSAVE"          None,                       0x1 0 Ecx 27 0;
    Avx               "AVX"              Some("avx"),                0x1 0 Ecx 28 YMM;
    F16c              "F16C"             Some("f16c"),               0x1 0 Ecx 29 YMM;
    Rdrand            "RDRAND"           Some("rdrand"),             0x1 0 Ecx 30 0;
    Fpu               "FPU"              Some("fpu"),                0x1 0 Edx 0 0;
    Cmpxchg8b         "CMPXCHG8B"        Some("cx8"),                0x1 0 Edx 8 0;
    Cmov              "CMOV"             Some("cmov"),               0x1 0 Edx 15 0;
    Mmx               "MMX"              Some("mmx"),                0x1 0 Edx 23 0;
    Fxsr              "FXSR"             Some("fxsr"),               0x1 0 Edx 24 0;
    Sse               "SSE"              Some("sse"),                0x1 0 Edx 25 0;
    Sse2              "SSE2"             Some("sse2"),               0x1 0 Edx 26 0;
    Fsgsbase          "FSGSBASE"         Some("fsgsbase"),           0x7 0 Ebx 0 0;
    Bmi1              "BMI1"             Some("bmi1"),               0x7 0 Ebx 3 0;
    Hle               "HLE"              Some("hle"),                0x7 0 Ebx 4 0;
    Avx2              "AVX2"             Some("avx2"),               0x7 0 Ebx 5 YMM;
    Bmi2              "BMI2"             Some("bmi2"),               0x7 0 Ebx 8 0;
    Erms              "ERMS"             Some("erms"),               0x7 0 Ebx 9 0;
    Invpcid           "INVPCID"          Some("invpcid"),            0x7 0 Ebx 10 0;
    Rtm               "RTM"              Some("rtm"),                0x7 0 Ebx 11 0;
    Avx512F           "AVX-512F"         Some("avx512f"),            0x7 0 Ebx 16 ZMM;
    Avx512Dq          "AVX-512DQ"        Some("avx512dq"),           0x7 0 Ebx 17 ZMM;
    Rdseed            "RDSEED"           Some("rdseed"),             0x7 0 Ebx 18 0;
    Adx               "ADX"              Some("adx"),                0x7 0 Ebx 19 0;
    Avx512Ifma        "AVX-512 IFMA"     Some("avx512ifma"),         0x7 0 Ebx 21 ZMM;
    Clflushopt        "CLFLUSHOPT"       Some("clflushopt"),         0x7 0 Ebx 23 0;
    Clwb              "CLWB"             Some("clwb"),               0x7 0 Ebx 24 0;
    Avx512Cd          "AVX-512CD"        Some("avx512cd"),           0x7 0 Ebx 28 ZMM;
    Sha               "SHA"              Some("sha-ni"),             0x7 0 Ebx 29 0;
    Avx512Bw          "AVX-512BW"        Some("avx512bw"),           0x7 0 Ebx 30 ZMM;
    Avx512Vl          "AVX-512VL"        Some("avx512vl"),           0x7 0 Ebx 31 ZMM;
    Avx512Vbmi        "AVX-512 VBMI"     Some("avx512vbmi"),         0x7 0 Ecx 1 ZMM;
    Waitpkg           "WAITPKG"          Some("waitpkg"),            0x7 0 Ecx 5 0;
    Avx512Vbmi2       "AVX-512 VBMI2"    Some("avx512vbmi2"),        0x7 0 Ecx 6 ZMM;
    Gfni              "GFNI"             Some("gfni"),               0x7 0 Ecx 8 0;
    Vaes              "VAES"             Some("vaes"),               0x7 0 Ecx 9 YMM;
    Vpclmulqdq        "VPCLMULQDQ"       Some("vpclmulqdq"),         0x7 0 Ecx 10 YMM;
    Avx512Vnni        "AVX-512 VNNI"     Some("avx512vnni"),         0x7 0 Ecx 11 ZMM;
    Avx512Bitalg      "AVX-512 BITALG"   Some("avx512bitalg"),       0x7 0 Ecx 12 ZMM;
    Avx512Vpopcntdq   "AVX-512 VPOPCNTDQ" Some("avx512-vpopcntdq"),  0x7 0 Ecx 14 ZMM;
    Rdpid             "RDPID"            Some("rdpid"),              0x7 0 Ecx 22 0;
    Cldemote          "CLDEMOTE"         Some("cldemote"),           0x7 0 Ecx 25 0;
    Movdiri           "MOVDIRI"          Some("movdiri"),            0x7 0 Ecx 27 0;
    Movdir64b         "MOVDIR64B"        Some("movdir64b"),          0x7 0 Ecx 28 0;
    Fsrm              "FSRM"             Some("fsrm"),               0x7 0 Edx 4 0;
    Avx512Vp2intersect "AVX-512 VP2INTERSECT" Some("avx512-vp2intersect"), 0x7 0 Edx 8 ZMM;
    Serialize         "SERIALIZE"        Some("serialize"),          0x7 0 Edx 14 0;
    AmxBf16           "AMX-BF16"         Some("amx-bf16"),           0x7 0 Edx 22 TILES;
    Avx512Fp16        "AVX-512 FP16"     Some("avx512-fp16"),        0x7 0 Edx 23 ZMM;
    AmxTile           "AMX-TILE"         Some("amx-tile"),           0x7 0 Edx 24 TILES;
    AmxInt8           "AMX-INT8"         Some("amx-int8"),           0x7 0 Edx 25 TILES;
    AvxVnni           "AVX-VNNI"         Some("avx-vnni"),           0x7 1 Eax 4 YMM;
    Avx512Bf16        "AVX-512 BF16"     Some("avx512-bf16"),        0x7 1 Eax 5 ZMM;
    Cmpccxadd         "CMPCCXADD"        None,                       0x7 1 Eax 7 0;
    AvxIfma           "AVX-IFMA"         None,                       0x7 1 Eax 23 YMM;
    AvxVnniInt8       "AVX-VNNI-INT8"    None,                       0x7 1 Edx 4 YMM;
    AvxNeConvert      "AVX-NE-CONVERT"   None,                       0x7 1 Edx 5 YMM;
    Xsaveopt          "XSAVEOPT"         Some("xsaveopt"),           0xd 1 Eax 0 0;
    Xsavec            "XSAVEC"           Some("xsavec"),             0xd 1 Eax 1 0;
    LahfSahf          "LAHF-SAHF"        Some("lahf-lm"),            0x8000_0001 0 Ecx 0 0;
    // AMD's "ABM"; QEMU keeps that name.
    Lzcnt             "LZCNT"            Some("abm"),                0x8000_0001 0 Ecx 5 0;
    Sse4a             "SSE4A"            Some("sse4a"),              0x8000_0001 0 Ecx 6 0;
    Prefetchw         "PREFETCHW"        Some("3dnowprefetch"),      0x8000_0001 0 Ecx 8 0;
    Xop               "XOP"              Some("xop"),                0x8000_0001 0 Ecx 11 YMM;
    Fma4              "FMA4"             Some("fma4"),               0x8000_0001 0 Ecx 16 YMM;
    Tbm               "TBM"              Some("tbm"),                0x8000_0001 0 Ecx 21 0;
    Syscall           "SYSCALL"          Some("syscall"),            0x8000_0001 0 Edx 11 0;
    Rdtscp            "RDTSCP"           Some("rdtscp"),             0x8000_0001 0 Edx 27 0;
    ThreeDNowExt      "3DNowExt"         Some("3dnowext"),           0x8000_0001 0 Edx 30 0;
    ThreeDNow         "3DNow"            Some("3dnow"),              0x8000_0001 0 Edx 31 0;
}

impl Feature {
    /// The feature of a name: [`Feature::name`], QEMU's flag, the kernel's word in `/proc/cpuinfo`
    /// where it is like these, or iced-x86's `CpuidFeature` as `Debug` writes it. Case and
    /// punctuation do not count.
    #[must_use]
    pub fn from_name(text: &str) -> Option<Self> {
        // Longer than any name: not worth a copy.
        if text.len() > 64 {
            return None;
        }
        let wanted = plain(text);
        match wanted.as_str() {
            // iced's identifiers cannot begin with a digit.
            "d3now" => return Some(Self::ThreeDNow),
            "d3nowext" => return Some(Self::ThreeDNowExt),
            // The kernel's word for SSE3, from the CPU's code name.
            "pni" => return Some(Self::Sse3),
            _ => {}
        }
        Self::ALL.iter().copied().find(|feature| {
            plain(feature.name()) == wanted
                || feature.qemu_flag().is_some_and(|flag| plain(flag) == wanted)
        })
    }
}

/// Letters and digits only, in lower case.
fn plain(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Feature {
    type Err = UnknownFeature;

    fn from_str(text: &str) -> Result<Self, UnknownFeature> {
        Self::from_name(text).ok_or_else(|| UnknownFeature(text.chars().take(64).collect()))
    }
}

impl Serialize for Feature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Feature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn each_place_and_each_spelling_belongs_to_one_feature() {
        let places: BTreeSet<_> = Feature::ALL.iter().map(|feature| feature.location()).collect();
        assert_eq!(places.len(), Feature::ALL.len());
        let mut spellings = BTreeMap::new();
        for &feature in Feature::ALL {
            assert!(feature.location().bit < 32);
            for text in [feature.name()].into_iter().chain(feature.qemu_flag()) {
                assert_eq!(*spellings.entry(plain(text)).or_insert(feature), feature, "{text}");
                assert_eq!(Feature::from_name(text), Some(feature), "{text}");
            }
            let json = serde_json::to_string(&feature).unwrap();
            assert_eq!(json, format!("{:?}", feature.name()));
            assert_eq!(serde_json::from_str::<Feature>(&json).unwrap(), feature);
        }
    }

    #[test]
    fn iced_and_kernel_spellings_parse() {
        for (text, feature) in [
            ("SSE4_1", Feature::Sse4_1),
            ("SSE4_2", Feature::Sse4_2),
            ("SSE4A", Feature::Sse4a),
            ("CMPXCHG16B", Feature::Cmpxchg16b),
            ("CX8", Feature::Cmpxchg8b),
            ("BMI2", Feature::Bmi2),
            ("LZCNT", Feature::Lzcnt),
            ("AVX512F", Feature::Avx512F),
            ("AVX512_VPOPCNTDQ", Feature::Avx512Vpopcntdq),
            ("AVX512_VNNI", Feature::Avx512Vnni),
            ("AVX_VNNI", Feature::AvxVnni),
            ("AVX_VNNI_INT8", Feature::AvxVnniInt8),
            ("AMX_TILE", Feature::AmxTile),
            ("D3NOW", Feature::ThreeDNow),
            ("PREFETCHW", Feature::Prefetchw),
            ("pni", Feature::Sse3),
            ("sha_ni", Feature::Sha),
            ("lahf_lm", Feature::LahfSahf),
        ] {
            assert_eq!(text.parse(), Ok(feature), "{text}");
        }
        for text in ["", "HLE_or_RTM", "INTEL8086", "AVX3", &"A".repeat(65)] {
            assert_eq!(Feature::from_name(text), None, "{text}");
        }
    }
}
