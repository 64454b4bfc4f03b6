//! A core dump of anybody's: read, completed from its own memory, explained. No panic, and nothing
//! without bound.
#![no_main]

use anteroom_cpu::CpuProfile;
use anteroom_crash::{Cpu, Death, core_file, explain};
use anteroom_guest_protocol::{Evidence, ProcessExit};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|dump: &[u8]| {
    let Ok(mut core) = core_file::read(dump) else { return };
    let at = core.fault.instruction_pointer;
    if let Some(code) = core.memory(dump, at, 15) {
        core.set_instruction(code);
    }
    let signal = core.fault.signal;
    let evidence = Evidence { fault: Some(Box::new(core.fault)), ..Evidence::default() };
    let profile = CpuProfile::named("x86-64-v2").unwrap();
    let cpu = Cpu { name: "this CPU".into(), profile };
    let why = explain(&Death {
        service: "planted",
        exit: Some(ProcessExit::Signalled { signal }),
        lived_ms: None,
        last_lines: None,
        evidence: &evidence,
        cpu: Some(&cpu),
    });
    assert!(why.sentence.starts_with("planted ") && why.sentence.len() < 8192);
    assert!(!why.sentence.contains('\n'));
});
