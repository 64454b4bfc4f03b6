//! Firecracker's templates: known facts, what they make of a host, and texts from anyone.

#![allow(clippy::unwrap_used, reason = "tests")]

use anteroom_cpu::{
    Content, CpuProfile, CpuidDump, CpuidLeaf, Feature, Standing, Template, firecracker_template,
};
use proptest::prelude::*;
use serde_json::json;

fn named(name: &str) -> CpuProfile {
    CpuProfile::named(name).unwrap()
}

/// A host whose every bit is on, in each leaf that reports a feature and in those that say how far
/// CPUID goes.
fn full_host() -> CpuidDump {
    let asked = [
        (0, 0),
        (1, 0),
        (7, 0),
        (7, 1),
        (0xd, 0),
        (0xd, 1),
        (0x8000_0000, 0),
        (0x8000_0001, 0),
        (0x8000_0008, 0),
    ];
    let all = u32::MAX;
    let leaves = asked.map(|(leaf, subleaf)| CpuidLeaf {
        leaf,
        subleaf,
        eax: all,
        ebx: all,
        ecx: all,
        edx: all,
    });
    CpuidDump::new(leaves.to_vec(), 0x6_02e7).unwrap()
}

fn custom(modifiers: &serde_json::Value) -> CpuProfile {
    CpuProfile::from_template_json(&json!({ "cpuid_modifiers": modifiers }).to_string()).unwrap()
}

#[test]
fn known_facts_of_the_static_templates() {
    use Feature as F;
    use Standing::{AsHost, Off, On};
    for (name, feature, standing) in [
        ("T2", F::Avx2, AsHost),
        ("T2", F::Fma, AsHost),
        ("T2", F::Bmi2, AsHost),
        ("T2", F::Sse4_2, AsHost),
        ("T2", F::Erms, On),
        ("T2", F::Avx512F, Off),
        ("T2", F::Avx512Vnni, Off),
        ("T2", F::Rtm, Off),
        ("T2", F::Adx, Off),
        ("T2", F::Rdseed, Off),
        ("T2", F::Sha, Off),
        ("T2", F::Prefetchw, Off),
        ("T2", F::Sse4a, AsHost),
        ("T2S", F::Avx512F, Off),
        ("T2CL", F::Sse4a, Off),
        ("T2A", F::Sse4a, Off),
        ("T2A", F::Avx2, AsHost),
        ("T2A", F::Sha, Off),
        ("C3", F::Avx, AsHost),
        ("C3", F::F16c, AsHost),
        ("C3", F::Avx2, Off),
        ("C3", F::Fma, Off),
        ("C3", F::Movbe, Off),
        ("C3", F::Bmi1, Off),
        ("C3", F::Lzcnt, Off),
        // Its feature bit is left, its registers are not.
        ("C3", F::Avx512Vbmi2, Off),
    ] {
        assert_eq!(named(name).standing(feature), standing, "{name} {feature}");
    }
}

#[test]
fn a_template_on_a_host_has_what_it_says_without_one() {
    let host = full_host();
    for profile in CpuProfile::built_in().unwrap() {
        let guest = profile.apply(&host);
        for &feature in Feature::ALL {
            // All is on in this host: what is the host's is on.
            let on = profile.standing(feature) != Standing::Off;
            assert_eq!(guest.has(feature), on, "{} {feature}", profile.name);
        }
    }
    let Content::Template(t2a) = named("T2A").content else { panic!("T2A is a template") };
    let small = CpuidDump::new(vec![CpuidLeaf { leaf: 1, ..CpuidLeaf::default() }], 0).unwrap();
    assert_eq!(t2a.missing_on(&host), []);
    assert_eq!(
        t2a.missing_on(&small),
        [(7, 0), (0xd, 0), (0xd, 1), (0x8000_0001, 0), (0x8000_0008, 0)]
    );
}

#[test]
fn registers_states_and_the_last_leaf_decide_too() {
    let entry = |leaf: &str, register: &str, bitmap: &str| {
        json!({ "leaf": leaf, "subleaf": "0x0", "flags": 0,
            "modifiers": [{ "register": register, "bitmap": bitmap }] })
    };
    // No AVX registers: nothing that needs them, though its bit is forced on.
    let no_ymm = custom(&json!([
        entry("0xd", "eax", "0b0xx"),
        entry("0x7", "ebx", "0b1xxxxx"), // AVX2
    ]));
    assert_eq!(no_ymm.standing(Feature::Avx2), Standing::Off);
    assert_eq!(no_ymm.standing(Feature::Bmi2), Standing::AsHost);
    assert!(!no_ymm.apply(&full_host()).has(Feature::Avx));
    // No XSAVE: no OSXSAVE, no AVX.
    let no_xsave = custom(&json!([entry("0x1", "ecx", "0b0xx_xxxxxxxx_xxxxxxxx_xxxxxxxx")]));
    for feature in [Feature::Xsave, Feature::Osxsave, Feature::Avx] {
        assert_eq!(no_xsave.standing(feature), Standing::Off, "{feature}");
        assert!(!no_xsave.apply(&full_host()).has(feature), "{feature}");
    }
    // A dump of a guest that has not booted yet has OSXSAVE off: that is not the template's to say.
    let not_booted = custom(&json!([entry("0x1", "ecx", "0b0xxx_xxxxxxxx_xxxxxxxx_xxxxxxxx")]));
    assert_eq!(not_booted.standing(Feature::Avx), Standing::AsHost);
    assert!(not_booted.apply(&full_host()).has(Feature::Avx));
    // CPUID ends at leaf 6, or at leaf 7's first subleaf.
    let digits = "0".repeat(29);
    let short = custom(&json!([entry("0x0", "eax", &format!("0b{digits}110"))]));
    assert_eq!(short.standing(Feature::Avx2), Standing::Off);
    assert_eq!(short.standing(Feature::Lzcnt), Standing::AsHost);
    let first_only = custom(&json!([entry("0x7", "eax", &format!("0b{digits}000"))]));
    assert_eq!(first_only.standing(Feature::AvxVnni), Standing::Off);
    assert_eq!(first_only.standing(Feature::Avx2), Standing::AsHost);
    // A host says how far its extended leaves go, and the template says less.
    let none_extended =
        custom(&json!([entry("0x80000000", "eax", &format!("0b{}", "0".repeat(32)))]));
    assert_eq!(none_extended.standing(Feature::LahfSahf), Standing::Off);
    assert!(!none_extended.apply(&full_host()).has(Feature::LahfSahf));
    // A later change wins.
    let twice = custom(&json!([entry("0x7", "ebx", "0b1"), entry("0x7", "ebx", "0b0")]));
    assert_eq!(twice.standing(Feature::Fsgsbase), Standing::Off);
}

#[test]
fn a_template_survives_its_json() {
    for name in ["T2", "T2S", "T2CL", "T2A", "C3"] {
        let profile = named(name);
        let json = firecracker_template(&profile);
        let again = CpuProfile::from_template_json(&json.to_string()).unwrap();
        assert_eq!(again.content, profile.content, "{name}");
        assert_eq!(firecracker_template(&again), json, "{name}");
    }
    let t2 = firecracker_template(&named("T2"));
    assert_eq!(t2["cpuid_modifiers"][1]["leaf"], "0x7");
    assert_eq!(
        t2["cpuid_modifiers"][1]["modifiers"][0],
        json!({ "register": "ebx", "bitmap": "0b00000000000x000000x00x1xxxx0x0xx" })
    );
    assert_eq!(firecracker_template(&named("T2S"))["msr_modifiers"][0]["addr"], "0x10a");
}

#[test]
fn the_template_of_a_level_turns_off_what_the_level_has_not() {
    for level in ["x86-64-v1", "x86-64-v2", "x86-64-v3", "x86-64-v4"] {
        let profile = named(level);
        let json = firecracker_template(&profile).to_string();
        let template = CpuProfile::from_template_json(&json).unwrap();
        let guest = template.apply(&full_host());
        assert_eq!(guest.features(), profile.features(Standing::On), "{level}");
        for feature in profile.features(Standing::On) {
            assert_eq!(template.standing(feature), Standing::AsHost, "{level} {feature}");
        }
    }
    let host = CpuProfile::of_host(full_host());
    let json = firecracker_template(&host).to_string();
    assert_eq!(CpuProfile::from_template_json(&json).unwrap().apply(&full_host()), full_host());
}

#[test]
fn a_text_that_is_no_template_is_refused_with_a_reason() {
    let leaf = |extra: &str| {
        format!(r#"{{"cpuid_modifiers":[{{"leaf":"0x1","subleaf":"0x0","flags":0,{extra}}}]}}"#)
    };
    let register = |text: &str| leaf(&format!(r#""modifiers":[{text}]"#));
    let ecx = r#"{"register":"ecx","bitmap":"0b1"}"#;
    assert!(Template::from_json(&register(ecx)).is_ok());
    assert!(Template::from_json("{}").is_ok());
    for (text, reason) in [
        (r#"{"reg_modifiers":[]}"#.to_owned(), "unknown field `reg_modifiers`"),
        (leaf(r#""modifiers":[],"more":1"#), "unknown field `more`"),
        (leaf(r#""flags":0"#), "duplicate field `flags`"),
        (register(r#"{"register":"esi","bitmap":"0b1"}"#), "unknown variant `esi`"),
        (register(r#"{"register":"ecx","bitmap":"0b12"}"#), "is not a bitmap of a CPUID register"),
        (register(&[ecx; 17].join(",")), "17 register modifiers in one leaf; the maximum is 16"),
        (leaf(r#""modifiers":[]"#).replace("0x1", "1"), "is not a 32-bit number with 0x or 0b"),
        (leaf(r#""modifiers":[]"#).replace("0x1", "0x100000000"), "is not a 32-bit number"),
        ("[".repeat(9000), "Firecracker CPU template"),
        (" ".repeat(256 * 1024 + 1), "has 262145 bytes"),
        (format!(r#"{{"kvm_capabilities":[{}"1"]}}"#, r#""1","#.repeat(1024)), "1025 KVM"),
    ] {
        let error = CpuProfile::from_template_json(&text).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        assert!(error.len() < 600, "{error}");
    }
}

fn near_template() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        "0[xb][0-9a-fx_]{0,40}",
        "[a-z]{3}",
        Just("ecx".to_owned()),
        Just("0x7".to_owned()),
        Just("0xd".to_owned()),
    ];
    proptest::collection::vec((word.clone(), word.clone(), any::<u32>(), word.clone(), word), 0..6)
        .prop_map(|entries| {
            let entries: Vec<_> = entries
                .into_iter()
                .map(|(leaf, subleaf, flags, register, bitmap)| {
                    json!({ "leaf": leaf, "subleaf": subleaf, "flags": flags,
                        "modifiers": [{ "register": register, "bitmap": bitmap }] })
                })
                .collect();
            json!({ "cpuid_modifiers": entries }).to_string()
        })
}

fn sound_template() -> impl Strategy<Value = String> {
    let place = prop_oneof![
        Just("0x0"),
        Just("0x1"),
        Just("0x7"),
        Just("0xd"),
        Just("0x80000001"),
        Just("0x80000000"),
    ];
    let register = prop_oneof![Just("eax"), Just("ebx"), Just("ecx"), Just("edx")];
    let subleaf = prop_oneof![Just("0x0"), Just("0x1")];
    proptest::collection::vec((place, subleaf, register, "0b[01x]{1,32}"), 0..12).prop_map(
        |entries| {
            let entries: Vec<_> = entries
                .into_iter()
                .map(|(leaf, subleaf, register, bitmap)| {
                    json!({ "leaf": leaf, "subleaf": subleaf, "flags": 0,
                        "modifiers": [{ "register": register, "bitmap": bitmap }] })
                })
                .collect();
            json!({ "cpuid_modifiers": entries }).to_string()
        },
    )
}

proptest! {
    #[test]
    fn no_text_panics(text in prop_oneof![".{0,300}", "[\\[\\]{}\",:0x a-z_]{0,200}", near_template()]) {
        if let Ok(profile) = CpuProfile::from_template_json(&text) {
            let _ = profile.apply(&full_host());
            let again = firecracker_template(&profile).to_string();
            prop_assert_eq!(CpuProfile::from_template_json(&again).unwrap().content, profile.content);
        }
    }

    #[test]
    fn what_stands_without_a_host_holds_on_one(text in sound_template()) {
        let profile = CpuProfile::from_template_json(&text).unwrap();
        let guest = profile.apply(&full_host());
        for &feature in Feature::ALL {
            prop_assert_eq!(
                guest.has(feature), profile.standing(feature) != Standing::Off, "{}", feature);
        }
        // A host that has nothing but the leaves.
        let leaves = full_host().leaves().iter().map(|leaf| CpuidLeaf {
            leaf: leaf.leaf,
            subleaf: leaf.subleaf,
            eax: if matches!(leaf.leaf, 0 | 0x8000_0000) { leaf.eax } else { 0 },
            ..CpuidLeaf::default()
        }).collect();
        let bare = profile.apply(&CpuidDump::new(leaves, 0).unwrap());
        for feature in profile.features(Standing::On) {
            // Leaf 7's last subleaf is the host's to say.
            prop_assert!(bare.has(feature) || feature.location().subleaf == 1, "{}", feature);
        }
    }
}
