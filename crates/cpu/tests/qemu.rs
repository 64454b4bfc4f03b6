//! QEMU takes the `-cpu` strings, and its guest CPU then has what the profile says.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anteroom_cpu::{CpuProfile, CpuidDump, CpuidLeaf, Feature, Standing, qemu_cpu_model};
use serde_json::{Value, json};

/// What QEMU's emulation makes of a CPU.
struct Emulated {
    /// The guest's CPUID reports them.
    features: BTreeSet<Feature>,
    /// Asked for, and not emulated.
    refused: BTreeSet<Feature>,
    /// What QEMU says on standard error.
    reported: String,
}

fn emulate(cpu: &str) -> Emulated {
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(["-M", "microvm", "-accel", "tcg", "-S", "-nodefaults", "-display", "none"])
        .args(["-qmp", "stdio", "-cpu", cpu])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("qemu-system-x86_64 is to be installed (Debian: qemu-system-x86)");
    let mut input = qemu.stdin.take().unwrap();
    let property = |name| {
        json!({ "execute": "qom-get", "arguments":
            { "path": "/machine/unattached/device[0]", "property": name } })
    };
    for command in [
        json!({ "execute": "qmp_capabilities" }),
        property("feature-words"),
        property("filtered-features"),
        json!({ "execute": "quit" }),
    ] {
        // One that refused its CPU is gone already; its standard error is shown below.
        let _ = writeln!(input, "{command}");
    }
    let start = Instant::now();
    while qemu.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(60) {
            qemu.kill().unwrap();
            panic!("QEMU did not quit within 60 s with -cpu {cpu}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let (mut answers, mut reported) = (String::new(), String::new());
    qemu.stdout.take().unwrap().read_to_string(&mut answers).unwrap();
    qemu.stderr.take().unwrap().read_to_string(&mut reported).unwrap();
    let mut sets = answers
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|answer| Some(features_of(answer["return"].as_array()?)));
    match (sets.next(), sets.next()) {
        (Some(features), Some(refused)) => Emulated { features, refused, reported },
        _ => panic!("QEMU does not take -cpu {cpu}: {reported}"),
    }
}

/// The features in a list of QEMU's `X86CPUFeatureWordInfo`.
fn features_of(properties: &[Value]) -> BTreeSet<Feature> {
    let has = |feature: &&Feature| {
        let at = feature.location();
        let register = format!("{:?}", at.register).to_uppercase();
        properties.iter().any(|word| {
            word["cpuid-input-eax"] == at.leaf
                && word["cpuid-input-ecx"].as_u64().unwrap_or(0) == u64::from(at.subleaf)
                && word["cpuid-register"] == register.as_str()
                && word["features"].as_u64().unwrap() >> at.bit & 1 == 1
        })
    };
    Feature::ALL.iter().filter(has).copied().collect()
}

fn version() -> String {
    let output = Command::new("qemu-system-x86_64").arg("--version").output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The profile's features as an emulated guest has them before it boots.
fn expected(profile: &CpuProfile) -> BTreeSet<Feature> {
    let qemu = qemu_cpu_model(profile).unwrap();
    let mut features = profile.features(Standing::On);
    features.retain(|feature| !qemu.not_emulated.contains(feature) && *feature != Feature::Osxsave);
    features.extend(qemu.besides);
    features
}

/// A host that has each feature.
fn full_host() -> CpuidDump {
    let all = u32::MAX;
    let leaves = [(1, 0), (7, 0), (7, 1), (0xd, 0), (0xd, 1), (0x8000_0001, 0)]
        .map(|(leaf, subleaf)| CpuidLeaf { leaf, subleaf, eax: all, ebx: all, ecx: all, edx: all });
    CpuidDump::new(leaves.to_vec(), u64::MAX).unwrap()
}

#[test]
fn the_guest_has_the_profiles_features_and_no_others() {
    for (name, model, missing) in [
        ("x86-64-v1", "qemu64,", 0),
        ("x86-64-v2", "Nehalem-v1,", 0),
        ("x86-64-v3", "Haswell-noTSX,", 0),
        ("x86-64-v4", "Haswell-noTSX,", 5),
    ] {
        let profile = CpuProfile::named(name).unwrap();
        let qemu = qemu_cpu_model(&profile).unwrap();
        assert!(qemu.cpu.starts_with(model), "{}", qemu.cpu);
        assert_eq!(qemu.not_emulated.len(), missing, "{:?}", qemu.not_emulated);
        let extra: &[Feature] = if model.contains("Haswell") { &[Feature::Xsaveopt] } else { &[] };
        assert_eq!(qemu.besides, extra);
        let Emulated { features, reported, .. } = emulate(&qemu.cpu);
        assert_eq!(features, expected(&profile), "{name}");
        assert_eq!(reported, "", "{name}");
    }
}

#[test]
fn a_template_needs_a_host_and_then_is_emulated() {
    let t2 = CpuProfile::named("T2").unwrap();
    let error = qemu_cpu_model(&t2).unwrap_err().to_string();
    assert!(error.starts_with("the CPU profile T2 leaves "), "{error}");
    let host = full_host();
    let guest = t2.on_host(&host);
    let Emulated { features, reported, .. } = emulate(&qemu_cpu_model(&guest).unwrap().cpu);
    assert_eq!(features, expected(&guest));
    assert!(features.contains(&Feature::Avx2) && !features.contains(&Feature::Adx));
    assert_eq!(reported, "");
}

#[test]
fn what_counts_as_emulated_is_what_qemu_7_2_emulates() {
    if !version().contains("version 7.2.") {
        return;
    }
    let everything = CpuProfile::of_host(full_host());
    assert_eq!(expected(&everything), emulate("max").features);
}

#[test]
fn each_flag_of_qemu_is_the_features_bit_in_cpuid() {
    let flags = || Feature::ALL.iter().filter_map(|f| Some((*f, f.qemu_flag()?)));
    for (feature, flag) in flags() {
        let mut cpu = format!("qemu64,+{flag}");
        for (_, other) in flags().filter(|&(other, _)| other != feature) {
            cpu.push_str(",-");
            cpu.push_str(other);
        }
        let Emulated { mut features, refused, .. } = emulate(&cpu);
        features.extend(refused);
        assert_eq!(features, BTreeSet::from([feature]), "{flag}");
    }
}
