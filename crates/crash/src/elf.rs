//! What an ELF file says of itself: interpreter, libraries, build id, symbols, and which of its
//! instructions a processor lacks.

use std::collections::{BTreeMap, BTreeSet};

use anteroom_cpu::{CpuProfile, Feature, Standing};
use anteroom_guest_protocol::Symbol;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};
use object::elf::{self, FileHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader, SectionHeader, Sym};
use object::{Endianness, ReadRef};

use crate::instruction;

/// The largest file looked into, in bytes: Chromium has some 250 MiB.
pub const MAX_FILE: u64 = 1024 * 1024 * 1024;

/// How far behind a symbol without a size an address may be to be told by it, in bytes.
const UNSIZED_REACH: u64 = 4096;

/// Most libraries, and findings of one kind, that are listed.
const MAX_LISTED: usize = 200;

/// The file cannot be read as an x86-64 ELF file.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// It is something else.
    #[error("this is no ELF file for x86-64")]
    NotElf,
    /// It is damaged.
    #[error("the ELF file is damaged")]
    Damaged(#[from] object::read::Error),
}

/// What a loader needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its program interpreter (`PT_INTERP`), for a program that has one.
    pub interpreter: Option<String>,
    /// Libraries that it names (`DT_NEEDED`).
    pub libraries: Vec<String>,
    /// GNU build id in hexadecimal.
    pub build_id: Option<String>,
}

type Header = FileHeader64<Endianness>;

fn header<'data, R: ReadRef<'data>>(data: R) -> Result<(&'data Header, Endianness), ElfError> {
    let header = Header::parse(data).map_err(|_| ElfError::NotElf)?;
    let endian = header.endian().map_err(|_| ElfError::NotElf)?;
    if header.e_machine(endian) != elf::EM_X86_64 {
        return Err(ElfError::NotElf);
    }
    Ok((header, endian))
}

/// Interpreter, libraries and build id.
///
/// # Errors
/// When the bytes are no sound x86-64 ELF file.
pub fn facts<'data, R: ReadRef<'data>>(data: R) -> Result<Facts, ElfError> {
    let (header, endian) = header(data)?;
    let mut facts = Facts::default();
    let segments = header.program_headers(endian, data)?;
    for segment in segments {
        if let Some(path) = segment.interpreter(endian, data)? {
            facts.interpreter = Some(String::from_utf8_lossy(path).into_owned());
        }
        if let Some(dynamic) = segment.dynamic(endian, data)? {
            facts.libraries = libraries(endian, data, segments, dynamic);
        }
        let Some(mut notes) = segment.notes(endian, data)? else { continue };
        while let Ok(Some(note)) = notes.next() {
            if note.name() == elf::ELF_NOTE_GNU && note.n_type(endian) == elf::NT_GNU_BUILD_ID {
                let id = note.desc();
                facts.build_id = Some(hex::encode(&id[..id.len().min(32)]));
            }
        }
    }
    Ok(facts)
}

type Segment = elf::ProgramHeader64<Endianness>;

fn libraries<'data, R: ReadRef<'data>>(
    endian: Endianness,
    data: R,
    segments: &[Segment],
    dynamic: &[elf::Dyn64<Endianness>],
) -> Vec<String> {
    let tag =
        |wanted: u32| move |entry: &&elf::Dyn64<Endianness>| entry.tag32(endian) == Some(wanted);
    let Some(strings) = dynamic.iter().find(tag(elf::DT_STRTAB)) else { return Vec::new() };
    let Some(strings) = file_offset(endian, segments, strings.d_val(endian)) else {
        return Vec::new();
    };
    let name = |entry: &elf::Dyn64<Endianness>| {
        let start = strings.checked_add(entry.d_val(endian))?;
        let name = data.read_bytes_at_until(start..data.len().ok()?, 0).ok()?;
        Some(String::from_utf8_lossy(&name[..name.len().min(256)]).into_owned())
    };
    dynamic.iter().filter(tag(elf::DT_NEEDED)).take(MAX_LISTED).filter_map(name).collect()
}

/// Where in the file an address is.
fn file_offset(endian: Endianness, segments: &[Segment], address: u64) -> Option<u64> {
    segments.iter().filter(|s| s.p_type(endian) == elf::PT_LOAD).find_map(|segment| {
        let into = address.checked_sub(segment.p_vaddr(endian))?;
        (into < segment.p_filesz(endian)).then(|| segment.p_offset(endian).checked_add(into))?
    })
}

/// The function at `file_offset`, by the symbol tables.
#[must_use]
pub fn symbol_at<'data, R: ReadRef<'data>>(data: R, file_offset: u64) -> Option<Symbol> {
    let (header, endian) = header(data).ok()?;
    let segments = header.program_headers(endian, data).ok()?;
    let address = segments.iter().filter(|s| s.p_type(endian) == elf::PT_LOAD).find_map(|s| {
        let into = file_offset.checked_sub(s.p_offset(endian))?;
        (into < s.p_filesz(endian)).then(|| s.p_vaddr(endian).checked_add(into))?
    })?;
    let sections = header.sections(endian, data).ok()?;
    let mut best: Option<(u64, &[u8])> = None;
    for kind in [elf::SHT_SYMTAB, elf::SHT_DYNSYM] {
        let Ok(table) = sections.symbols(endian, data, kind) else { continue };
        for symbol in table.iter() {
            let (start, size) = (symbol.st_value(endian), symbol.st_size(endian));
            let reach = if size == 0 { UNSIZED_REACH } else { size };
            let holds = symbol.st_type() == elf::STT_FUNC
                && start <= address
                && address - start < reach
                && best.is_none_or(|(other, _)| other < start);
            if holds && let Ok(name) = symbol.name(endian, table.strings()) {
                best = Some((start, name));
            }
        }
    }
    let (start, name) = best?;
    let name = String::from_utf8_lossy(&name[..name.len().min(256)]).into_owned();
    Some(Symbol { name, offset: address - start })
}

/// Instructions of a file that a processor lacks, by the first feature that each misses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beyond {
    /// What is missing.
    pub feature: Feature,
    /// How many instructions need it.
    pub count: u64,
    /// The first of them.
    pub first: String,
    /// Where that is in the file.
    pub file_offset: u64,
    /// Its function, where known.
    pub symbol: Option<Symbol>,
}

/// What a file holds for a processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// GNU build id in hexadecimal.
    pub build_id: Option<String>,
    /// The psABI level that the file says it needs (`GNU_PROPERTY_X86_ISA_1_NEEDED`), if the
    /// processor has not all of it.
    pub level_lacking: Option<&'static str>,
    /// How the file can tell what the processor has, where that is seen.
    pub chooses: Option<&'static str>,
    /// Instructions that the processor lacks.
    pub beyond: Vec<Beyond>,
}

/// Looks through the executable sections, and what the file says of itself. A static finding is no
/// fault: most programs choose such code only where the processor has it, and data between functions
/// reads as code.
///
/// # Errors
/// When the bytes are no sound x86-64 ELF file.
pub fn survey(data: &[u8], cpu: &CpuProfile) -> Result<Survey, ElfError> {
    let facts = facts(data)?;
    let (header, endian) = header(data)?;
    let sections = header.sections(endian, data)?;
    let mut sweep = Sweep::new(cpu);
    for section in sections.iter() {
        let flags = section.sh_flags(endian);
        let executable = flags & u64::from(elf::SHF_EXECINSTR) != 0;
        if executable && section.sh_type(endian) == elf::SHT_PROGBITS {
            sweep.over(section.data(endian, data)?, section.sh_offset(endian));
        }
    }
    let mut beyond: Vec<Beyond> = sweep.found.into_values().collect();
    for finding in &mut beyond {
        finding.symbol = symbol_at(data, finding.file_offset);
    }
    let chooses = match (chosen_by_symbol(data, header, endian), sweep.asks_processor) {
        (Some(how), _) => Some(how),
        (None, true) => Some("it asks the processor (CPUID)"),
        (None, false) => None,
    };
    let level_lacking = level_needed(data, header, endian)
        .and_then(|needed| LEVELS.iter().find(|level| level.0 & needed != 0 && !has(cpu, level.1)))
        .map(|level| level.1);
    Ok(Survey { build_id: facts.build_id, level_lacking, chooses, beyond })
}

/// Instructions of a file that a processor lacks; see [`survey`].
///
/// # Errors
/// When the bytes are no sound x86-64 ELF file.
pub fn beyond(data: &[u8], cpu: &CpuProfile) -> Result<Vec<Beyond>, ElfError> {
    survey(data, cpu).map(|survey| survey.beyond)
}

/// Bits of `GNU_PROPERTY_X86_ISA_1_NEEDED` and the levels that they mean (x86-64 psABI, table 5.3).
const LEVELS: [(u32, &str); 3] = [
    (elf::GNU_PROPERTY_X86_ISA_1_V2, "x86-64-v2"),
    (elf::GNU_PROPERTY_X86_ISA_1_V3, "x86-64-v3"),
    (elf::GNU_PROPERTY_X86_ISA_1_V4, "x86-64-v4"),
];

fn has(cpu: &CpuProfile, level: &str) -> bool {
    let Ok(level) = CpuProfile::named(level) else { return true };
    level.features(Standing::On).iter().all(|feature| cpu.standing(*feature) != Standing::Off)
}

fn level_needed(data: &[u8], header: &Header, endian: Endianness) -> Option<u32> {
    for segment in header.program_headers(endian, data).ok()? {
        let Ok(Some(mut notes)) = segment.notes(endian, data) else { continue };
        while let Ok(Some(note)) = notes.next() {
            let Some(mut properties) = note.gnu_properties(endian) else { continue };
            while let Ok(Some(property)) = properties.next() {
                if property.pr_type() == elf::GNU_PROPERTY_X86_ISA_1_NEEDED {
                    return property.data_u32(endian).ok();
                }
            }
        }
    }
    None
}

/// GCC's and LLVM's helpers that tell what the processor has.
const ASKING: [&[u8]; 3] = [b"__cpu_indicator_init", b"__cpu_model", b"__cpu_features2"];

fn chosen_by_symbol(data: &[u8], header: &Header, endian: Endianness) -> Option<&'static str> {
    let sections = header.sections(endian, data).ok()?;
    for kind in [elf::SHT_SYMTAB, elf::SHT_DYNSYM] {
        let Ok(table) = sections.symbols(endian, data, kind) else { continue };
        for symbol in table.iter() {
            if symbol.st_type() == elf::STT_GNU_IFUNC {
                return Some("its loader chooses functions (IFUNC)");
            }
            if symbol.name(endian, table.strings()).is_ok_and(|name| ASKING.contains(&name)) {
                return Some("it asks the compiler's library (__cpu_model)");
            }
        }
    }
    None
}

/// A linear sweep over code.
struct Sweep {
    lacks: BTreeSet<Feature>,
    /// By the decoder's code of an instruction: what it needs and the processor lacks. What it needs
    /// hangs on that code alone, and working it out takes longer than decoding.
    missing: Vec<Option<Option<Feature>>>,
    found: BTreeMap<Feature, Beyond>,
    asks_processor: bool,
}

impl Sweep {
    fn new(cpu: &CpuProfile) -> Self {
        Self {
            lacks: cpu.features(Standing::Off),
            missing: Vec::new(),
            found: BTreeMap::new(),
            asks_processor: false,
        }
    }

    fn over(&mut self, code: &[u8], offset: u64) {
        let mut decoder = Decoder::with_ip(64, code, offset, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            if instruction.is_invalid() {
                continue;
            }
            self.asks_processor |= instruction.mnemonic() == Mnemonic::Cpuid;
            let Some(feature) = self.missing(&instruction) else { continue };
            let at = instruction.ip();
            self.found.entry(feature).and_modify(|finding| finding.count += 1).or_insert_with(
                || {
                    let start = usize::try_from(at - offset).unwrap_or(0);
                    let text = instruction::decode(&code[start..], at).map(|decoded| decoded.text);
                    let first = text.unwrap_or_default();
                    Beyond { feature, count: 1, first, file_offset: at, symbol: None }
                },
            );
        }
    }

    fn missing(&mut self, instruction: &Instruction) -> Option<Feature> {
        let code = instruction.code() as usize;
        if self.missing.len() <= code {
            self.missing.resize(code + 1, None);
        }
        let lacks = &self.lacks;
        *self.missing[code].get_or_insert_with(|| {
            instruction::needs(instruction).into_iter().find(|feature| lacks.contains(feature))
        })
    }
}
