//! An ELF file of anybody's: facts, symbols and what a processor lacks.

use anteroom_cpu::CpuProfile;
use anteroom_crash::elf;

/// Panics where the reader does not hold what is written above.
pub fn run(file: &[u8]) {
    if let Ok(facts) = elf::facts(file) {
        assert!(facts.libraries.len() <= 200);
    }
    for offset in [0, 0x40, file.len() as u64 / 2, u64::MAX] {
        let _ = elf::symbol_at(file, offset);
    }
    let profile = CpuProfile::named("x86-64-v1").unwrap();
    let _ = elf::beyond(file, &profile);
}
