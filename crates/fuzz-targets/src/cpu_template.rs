//! A Firecracker CPU template of anybody's: what is taken says something of every feature.

use anteroom_cpu::{CpuProfile, Feature};

use crate::text::text;

/// Panics where the reader does not hold what is written above.
pub fn run(bytes: &[u8]) {
    let text = text(bytes);
    let Ok(profile) = CpuProfile::from_template_json(text) else { return };
    for feature in Feature::ALL {
        let _ = profile.standing(*feature);
    }
    let _ = anteroom_cpu::qemu_cpu_model(&profile);
    let _ = anteroom_cpu::firecracker_template(&profile).to_string();
}
