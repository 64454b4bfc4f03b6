//! What an ELF file says of itself: interpreter, libraries, build id, symbols, and which of its
//! instructions a processor lacks.

mod symbols;

use std::collections::{BTreeMap, BTreeSet};

use anteroom_cpu::{CpuProfile, Feature, Standing};
use anteroom_guest_protocol::Symbol;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};
use object::elf::{self, FileHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader, SectionHeader};
use object::{Endianness, ReadRef};

use crate::instruction;
pub(crate) use symbols::name_at;
pub(crate) use symbols::offset_of;
pub use symbols::symbol_at;
use symbols::{MAX_NAME, Symbols};

/// The largest file looked into, in bytes: Chromium has some 250 MiB.
pub const MAX_FILE: u64 = 1024 * 1024 * 1024;

/// Most program headers that a file may have: real ones have some twenty.
pub(crate) const MAX_SEGMENTS: usize = 1024;

/// The largest segment of notes that is read, in bytes: real ones have some hundred.
const MAX_NOTES: u64 = 64 * 1024;

/// The longest path of an interpreter that is read, in bytes: the longest that the kernel takes.
pub(crate) const MAX_PATH: u64 = 4096;

/// Most libraries, and findings of one kind, that are listed.
const MAX_LISTED: usize = 200;

/// The file cannot be read as an x86-64 ELF file.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// It is something else.
    #[error("this is not an ELF file for x86-64")]
    NotElf,
    /// It is none that a linker made.
    #[error("the ELF file has {0} program headers; at most {MAX_SEGMENTS} are supported")]
    TooManySegments(usize),
    /// It has code where it has no bytes.
    #[error("the ELF file is damaged: it has code beyond its end")]
    BeyondItsEnd,
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

/// The processor that an ELF file is for, by the first bytes of it, where that is not x86-64: names of
/// the gABI's table of `e_machine`.
#[must_use]
pub fn other_processor(head: &[u8]) -> Option<String> {
    let half = |at: usize| Some([*head.get(at)?, *head.get(at + 1)?]);
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    let machine = match head.get(5)? {
        2 => u16::from_be_bytes(half(18)?),
        _ => u16::from_le_bytes(half(18)?),
    };
    Some(match machine {
        elf::EM_X86_64 if head.get(4) == Some(&1) => {
            "x86-64 with 32-bit addresses (x32)".to_owned()
        }
        elf::EM_X86_64 => return None,
        elf::EM_386 => "32-bit x86".to_owned(),
        elf::EM_AARCH64 => "64-bit ARM (AArch64)".to_owned(),
        elf::EM_ARM => "32-bit ARM".to_owned(),
        elf::EM_RISCV => "RISC-V".to_owned(),
        elf::EM_PPC64 => "64-bit PowerPC".to_owned(),
        elf::EM_S390 => "IBM Z (s390)".to_owned(),
        elf::EM_MIPS => "MIPS".to_owned(),
        elf::EM_LOONGARCH => "LoongArch".to_owned(),
        other => format!("the processor with the number {other}"),
    })
}

/// The program headers, of which there may be so many.
fn segments<'data, R: ReadRef<'data>>(
    header: &Header,
    endian: Endianness,
    data: R,
) -> Result<&'data [Segment], ElfError> {
    let segments = header.program_headers(endian, data)?;
    match segments.len() {
        count if count > MAX_SEGMENTS => Err(ElfError::TooManySegments(count)),
        _ => Ok(segments),
    }
}

/// A segment's notes, if it is one of notes and not larger than those are.
fn notes<'data, R: ReadRef<'data>>(
    segment: &Segment,
    endian: Endianness,
    data: R,
) -> Option<object::read::elf::NoteIterator<'data, FileHeader64<Endianness>>> {
    (segment.p_filesz(endian) <= MAX_NOTES).then(|| segment.notes(endian, data).ok().flatten())?
}

/// Interpreter, libraries and build id.
///
/// # Errors
/// When the bytes are no sound x86-64 ELF file.
pub fn facts<'data, R: ReadRef<'data>>(data: R) -> Result<Facts, ElfError> {
    let (header, endian) = header(data)?;
    let mut facts = Facts::default();
    let segments = segments(header, endian, data)?;
    for segment in segments {
        if segment.p_type(endian) == elf::PT_INTERP && facts.interpreter.is_none() {
            let (start, size) = (segment.p_offset(endian), segment.p_filesz(endian));
            let path = name_at(data, start, start.saturating_add(size), MAX_PATH);
            let path = path.ok_or(ElfError::BeyondItsEnd)?;
            facts.interpreter = Some(String::from_utf8_lossy(path).into_owned());
        }
        if let Some(dynamic) = segment.dynamic(endian, data)?
            && facts.libraries.is_empty()
        {
            facts.libraries = libraries(endian, data, segments, dynamic);
        }
    }
    facts.build_id = build_id_of(endian, segments, data);
    Ok(facts)
}

/// The GNU build id in hexadecimal; a file's first page is enough where it holds the note.
#[must_use]
pub fn build_id<'data, R: ReadRef<'data>>(data: R) -> Option<String> {
    let (header, endian) = header(data).ok()?;
    build_id_of(endian, segments(header, endian, data).ok()?, data)
}

fn build_id_of<'data, R: ReadRef<'data>>(
    endian: Endianness,
    segments: &[Segment],
    data: R,
) -> Option<String> {
    segments.iter().filter_map(|segment| notes(segment, endian, data)).find_map(|mut notes| {
        let mut notes = std::iter::from_fn(|| notes.next().ok().flatten());
        let note = notes.find(|note| {
            note.name() == elf::ELF_NOTE_GNU && note.n_type(endian) == elf::NT_GNU_BUILD_ID
        })?;
        let id = note.desc();
        Some(hex::encode(&id[..id.len().min(32)]))
    })
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
        let name = name_at(data, start, data.len().ok()?, MAX_NAME)?;
        Some(String::from_utf8_lossy(name).into_owned())
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
    /// How the program detects the processor's features, where that is visible.
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
    let code = sections.iter().filter(|section| {
        let executable = section.sh_flags(endian) & u64::from(elf::SHF_EXECINSTR) != 0;
        executable && section.sh_type(endian) == elf::SHT_PROGBITS
    });
    let ranges = code.map(|s| (s.sh_offset(endian), s.sh_size(endian)));
    for (start, end) in once_each(ranges, data.len() as u64)? {
        let (from, to) = (usize::try_from(start), usize::try_from(end));
        let bytes = from.ok().zip(to.ok()).and_then(|(from, to)| data.get(from..to));
        sweep.over(bytes.unwrap_or_default(), start);
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

/// Ranges, each of an offset and a size, as starts and ends that do not overlap: however many sections
/// a file lays over each other, each byte is decoded once.
fn once_each(
    ranges: impl Iterator<Item = (u64, u64)>,
    length: u64,
) -> Result<Vec<(u64, u64)>, ElfError> {
    let mut ranges: Vec<(u64, u64)> = ranges
        .map(|(offset, size)| offset.checked_add(size).map(|end| (offset, end)))
        .collect::<Option<_>>()
        .filter(|ranges: &Vec<_>| ranges.iter().all(|(_, end)| *end <= length))
        .ok_or(ElfError::BeyondItsEnd)?;
    ranges.sort_unstable();
    let mut reached = 0;
    ranges.retain_mut(|(start, end)| {
        *start = (*start).max(reached);
        reached = reached.max(*end);
        start < end
    });
    Ok(ranges)
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
    for segment in segments(header, endian, data).ok()? {
        let Some(mut notes) = notes(segment, endian, data) else { continue };
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

/// GCC's and LLVM's helpers that detect the processor's features.
const ASKING: [&[u8]; 3] = [b"__cpu_indicator_init", b"__cpu_model", b"__cpu_features2"];

fn chosen_by_symbol(data: &[u8], header: &Header, endian: Endianness) -> Option<&'static str> {
    for kind in [elf::SHT_SYMTAB, elf::SHT_DYNSYM] {
        let Some(table) = Symbols::of(header, endian, data, kind) else { continue };
        for symbol in table.list {
            if symbol.st_type() == elf::STT_GNU_IFUNC {
                return Some("its loader chooses functions (IFUNC)");
            }
            if table.name(symbol, data, MAX_NAME).is_some_and(|name| ASKING.contains(&name)) {
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

#[cfg(test)]
mod tests;
