//! The target that `FUZZ_TARGET` names, under libFuzzer.
#![no_main]

use std::sync::OnceLock;

use anteroom_fuzz_targets::{Target, target};
use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<&Target> = OnceLock::new();

fuzz_target!(
    init: {
        let name = std::env::var("FUZZ_TARGET").expect("`cargo xtask fuzz` names the target");
        let target = target(&name).expect("`cargo xtask fuzz` has the same targets");
        assert!(TARGET.set(target).is_ok(), "it is set once");
    },
    |bytes: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(bytes);
        }
    }
);
