//! A core dump of anybody's, also compressed: unpacked, read, completed from its own memory, explained. No panic, and nothing
//! without bound.

use std::io::Cursor;

use anteroom_cpu::CpuProfile;
use anteroom_crash::dump::Dump;
use anteroom_crash::{Cpu, Death, core_file, explain};
use anteroom_guest_protocol::{Evidence, ProcessExit};

/// Panics where the reader does not hold what is written above.
pub fn run(file: &[u8]) {
    let Ok(mut dump) = Dump::open(Cursor::new(file), "FILE") else { return };
    let Ok(mut core) = core_file::read(dump.head()) else { return };
    let at = core.fault.instruction_pointer;
    if let Some((offset, length)) = core.place(at, 15) {
        core.set_instruction(&dump.at(offset, length).unwrap());
    }
    let signal = core.fault.signal;
    let evidence = Evidence { fault: Some(Box::new(core.fault)), ..Evidence::default() };
    let profile = CpuProfile::named("x86-64-v2").unwrap();
    let cpu = Cpu { name: "this CPU".into(), profile };
    let why = explain(&Death {
        service: "injected",
        exit: Some(ProcessExit::Signalled { signal }),
        lived_ms: None,
        last_lines: None,
        evidence: &evidence,
        cpu: Some(&cpu),
    });
    assert!(why.sentence.starts_with("injected ") && why.sentence.len() < 8192);
    assert!(!why.sentence.contains('\n'));
}
