//! A Firecracker CPU template of anybody's: what is taken says something of every feature.
#![no_main]

use anteroom_cpu::{CpuProfile, Feature};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(profile) = CpuProfile::from_template_json(text) else { return };
    for feature in Feature::ALL {
        let _ = profile.standing(*feature);
    }
    let _ = anteroom_cpu::qemu_cpu_model(&profile);
    let _ = anteroom_cpu::firecracker_template(&profile).to_string();
});
