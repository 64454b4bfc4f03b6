//! An ELF core dump, read for what explains the death and nothing else.

use anteroom_guest_protocol::{Fault, MAX_EVIDENCE_TEXT, MAX_INSTRUCTION, Mapping, Sender};
use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};

use crate::elf::other_processor;
use crate::numbers::{BY_PROCESSES, NO_SI_CODE};

/// Bytes at the beginning of a dump that hold all headers and notes, unless it has thousands of
/// threads.
pub const HEAD: usize = 4 * 1024 * 1024;

/// Most mapped ranges that are looked at.
const MAX_MAPPINGS: usize = 100_000;

const SIGTRAP: i32 = 5;
const SIGABRT: i32 = 6;

/// Signals for which the kernel dumps a process (signal(7)). A dump with another one is of a process
/// that somebody stopped to take it, as gcore does.
const DUMPING: [i32; 10] = [3, 4, SIGTRAP, SIGABRT, 7, 8, 11, 24, 25, 31];

/// Types of notes (`include/uapi/linux/elf.h`).
const NT_PRSTATUS: u32 = 1;
const NT_PRPSINFO: u32 = 3;
const NT_SIGINFO: u32 = 0x5349_4749;
const NT_FILE: u32 = 0x4649_4c45;

/// Offsets in `struct elf_prstatus` of x86-64, and how many registers follow.
const PRSTATUS_SIGNAL: usize = 12;
const PRSTATUS_REGISTERS: usize = 112;
const REGISTERS: usize = 27;
const RIP: usize = 16;
const RSP: usize = 19;

/// A core dump that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// It is something else.
    #[error("this is not a core dump of an x86-64 Linux process")]
    NotACore,
    /// Of a process on another processor.
    #[error(
        "this is a core dump of a process on another processor ({0}); only dumps of x86-64 processes can be explained"
    )]
    OtherProcessor(String),
    /// Its notes do not say what a death is explained by.
    #[error("the core dump has no {0}; it is truncated or damaged")]
    Missing(&'static str),
    /// Taken of a process that lived.
    #[error(
        "this core dump does not show a death: it was taken of a living process, as gcore and debuggers \
         do; it records {0}"
    )]
    Alive(String),
}

/// What the head of a dump says; code and names are filled in by who can read memory and files.
#[derive(Clone, Debug)]
pub struct Core {
    /// The fault, without instruction, build id and symbol.
    pub fault: Fault,
    segments: Vec<(Mapping, u64, u64)>,
}

/// Reads the head of a dump: its first [`HEAD`] bytes, or all of it.
///
/// # Errors
/// When the bytes are no core dump with registers in it.
pub fn read(head: &[u8]) -> Result<Core, CoreError> {
    let header = FileHeader64::<Endianness>::parse(head).map_err(|_| CoreError::NotACore)?;
    let endian = header.endian().map_err(|_| CoreError::NotACore)?;
    if header.e_type(endian) == elf::ET_CORE
        && let Some(processor) = other_processor(head)
    {
        return Err(CoreError::OtherProcessor(processor));
    }
    if header.e_type(endian) != elf::ET_CORE || header.e_machine(endian) != elf::EM_X86_64 {
        return Err(CoreError::NotACore);
    }
    let headers =
        header.program_headers(endian, head).map_err(|_| CoreError::Missing("headers"))?;
    let mut notes = Notes::default();
    let mut segments = Vec::new();
    for segment in headers.iter().take(MAX_MAPPINGS) {
        match segment.p_type(endian) {
            // The kernel writes one; what is made by hand must not be read over and over.
            elf::PT_NOTE if notes.status.is_none() => {
                let Ok(Some(mut entries)) = segment.notes(endian, head) else { continue };
                let mut entries = std::iter::from_fn(|| entries.next().ok().flatten());
                for note in entries.by_ref().take(MAX_MAPPINGS) {
                    notes.take(note.n_type(endian), note.desc());
                }
            }
            elf::PT_LOAD => {
                let start = segment.p_vaddr(endian);
                let mapping = Mapping {
                    start,
                    end: start.saturating_add(segment.p_memsz(endian)),
                    permissions: permissions(segment.p_flags(endian)),
                    file_offset: 0,
                    path: String::new(),
                    build_id: None,
                };
                segments.push((mapping, segment.p_offset(endian), segment.p_filesz(endian)));
            }
            _ => {}
        }
    }
    notes.name(&mut segments);
    let fault = notes.fault(&segments)?;
    // Debuggers stop what they run by SIGTRAP.
    if !DUMPING.contains(&fault.signal) || (notes.by_debugger && fault.signal == SIGTRAP) {
        let at = if fault.signal == 0 {
            "no signal".to_owned()
        } else {
            anteroom_session::named_signal(fault.signal)
        };
        return Err(CoreError::Alive(at));
    }
    Ok(Core { fault, segments })
}

impl Core {
    /// Where a dump holds this much memory of the process from this address on, or the less that it
    /// has of it: a place in the dump, and bytes.
    #[must_use]
    pub fn place(&self, address: u64, length: usize) -> Option<(u64, usize)> {
        let (mapping, offset, held) = self.segments.iter().find(|(mapping, _, held)| {
            address >= mapping.start && address - mapping.start < *held
        })?;
        let into = address - mapping.start;
        let left = usize::try_from(held - into).unwrap_or(usize::MAX);
        Some((offset.checked_add(into)?, length.min(left)))
    }

    /// Where the beginning of a file is mapped.
    #[must_use]
    pub fn base_of(&self, path: &str) -> Option<u64> {
        let begins = |mapping: &Mapping| mapping.path == path && mapping.file_offset == 0;
        self.segments.iter().map(|(mapping, _, _)| mapping).find(|m| begins(m)).map(|m| m.start)
    }

    /// Of a process that aborted: path and beginning of its C library, where it is glibc by its name.
    #[must_use]
    pub fn aborting_library(&self) -> Option<(String, u64)> {
        let is_glibc = |path: &str| {
            let name = path.rsplit('/').next().unwrap_or_default();
            path.starts_with('/')
                && (name == "libc.so.6" || (name.starts_with("libc-2.") && name.ends_with(".so")))
        };
        let mut paths = self.segments.iter().map(|(mapping, _, _)| mapping.path.as_str());
        let path = paths.find(|path| self.fault.signal == SIGABRT && is_glibc(path))?;
        Some((path.to_owned(), self.base_of(path)?))
    }

    /// Fills in the instruction from bytes of memory at the instruction pointer.
    pub fn set_instruction(&mut self, bytes: &[u8]) {
        self.fault.instruction = hex::encode(&bytes[..bytes.len().min(MAX_INSTRUCTION)]);
    }
}

fn permissions(flags: u32) -> String {
    let may = |flag, letter| if flags & flag != 0 { letter } else { '-' };
    [may(elf::PF_R, 'r'), may(elf::PF_W, 'w'), may(elf::PF_X, 'x')].iter().collect()
}

/// Notes of a dump as far as they are used; those of the first thread, which is the one that died.
#[derive(Default)]
struct Notes<'a> {
    /// The kernel begins with the thread that died, gdb with the process.
    by_debugger: bool,
    status: Option<&'a [u8]>,
    info: Option<&'a [u8]>,
    signal: Option<&'a [u8]>,
    files: Option<&'a [u8]>,
}

impl<'a> Notes<'a> {
    fn take(&mut self, kind: u32, content: &'a [u8]) {
        self.by_debugger |= kind == NT_PRPSINFO && self.status.is_none();
        let place = match kind {
            NT_PRSTATUS => &mut self.status,
            NT_PRPSINFO => &mut self.info,
            NT_SIGINFO => &mut self.signal,
            NT_FILE => &mut self.files,
            _ => return,
        };
        place.get_or_insert(content);
    }

    /// Names the mappings by NT_FILE: a count, the size of a page, then start, end and offset in
    /// pages of each, then the names.
    fn name(&self, segments: &mut [(Mapping, u64, u64)]) {
        let Some(files) = self.files else { return };
        let (Some(count), Some(page)) = (word(files, 0), word(files, 8)) else { return };
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(MAX_MAPPINGS);
        let Some(mut names) = files.get(16 + 24 * count..) else { return };
        for at in (0..count).map(|n| 16 + 24 * n) {
            let end = names.iter().position(|byte| *byte == 0).unwrap_or(names.len());
            let name = text(&names[..end]);
            names = names.get(end + 1..).unwrap_or_default();
            let (Some(start), Some(pages)) = (word(files, at), word(files, at + 16)) else {
                return;
            };
            // The dump is sorted by address, and so are the files.
            if let Ok(found) =
                segments.binary_search_by_key(&start, |(mapping, _, _)| mapping.start)
            {
                segments[found].0.path = name;
                segments[found].0.file_offset = pages.saturating_mul(page);
            }
        }
    }

    /// `si_pid` lies where `si_addr` does otherwise; `pr_pid` is at 24 in struct elf_prpsinfo.
    fn sender(&self) -> Option<Sender> {
        let number = |bytes: &[u8], at: usize| {
            Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
        };
        let (sender, own) = (number(self.signal?, 16)?, number(self.info?, 24)?);
        Some(if sender == own { Sender::Itself } else { Sender::Process(sender) })
    }

    fn fault(&self, segments: &[(Mapping, u64, u64)]) -> Result<Fault, CoreError> {
        let status = self.status.ok_or(CoreError::Missing("thread"))?;
        let registers: Vec<u64> =
            (0..REGISTERS).map_while(|n| word(status, PRSTATUS_REGISTERS + 8 * n)).collect();
        let [rip, rsp] = [RIP, RSP].map(|n| registers.get(n).copied());
        let (Some(instruction_pointer), Some(stack_pointer)) = (rip, rsp) else {
            return Err(CoreError::Missing("registers"));
        };
        let small = |bytes: &[u8], at: usize| {
            Some(i32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
        };
        let current = status.get(PRSTATUS_SIGNAL..).and_then(|bytes| bytes.first()).copied();
        let (signal, code, address) = match self.signal {
            Some(info) => (small(info, 0), small(info, 8), word(info, 16)),
            None => (current.map(i32::from), None, None),
        };
        let mut unseen = Vec::new();
        if code.is_none() {
            unseen.push("why the signal was raised: the dump has no signal information".to_owned());
        }
        if self.by_debugger {
            unseen.push(
                "whether the process ended: the dump was written by a debugger, not by the kernel"
                    .to_owned(),
            );
        }
        let address = address.unwrap_or_default();
        let holds =
            |mapping: &&Mapping| (mapping.start..mapping.end).contains(&instruction_pointer);
        let mappings = || segments.iter().map(|(mapping, _, _)| mapping);
        Ok(Fault {
            signal: signal.ok_or(CoreError::Missing("signal"))?,
            code: code.unwrap_or(NO_SI_CODE),
            address,
            sender: code.filter(|code| BY_PROCESSES.contains(code)).and_then(|_| self.sender()),
            // pr_fname of struct elf_prpsinfo: the thread's name, 16 bytes.
            thread: self.info.and_then(|info| info.get(40..56)).map(until_nul).unwrap_or_default(),
            program: mappings()
                .find(|mapping| mapping.path.starts_with('/'))
                .map(|mapping| mapping.path.clone())
                .unwrap_or_default(),
            instruction_pointer,
            stack_pointer,
            registers,
            instruction: String::new(),
            code_mapping: mappings().find(holds).cloned(),
            near_address: mappings().filter(|m| m.end > address).min_by_key(|m| m.end).cloned(),
            symbol: None,
            last_message: None,
            unseen,
        })
    }
}

pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn until_nul(bytes: &[u8]) -> String {
    text(bytes.split(|byte| *byte == 0).next().unwrap_or_default())
}

/// A name without control characters, bounded.
pub(crate) fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_EVIDENCE_TEXT)]);
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A note of the kernel's form: sizes, type, the padded name `CORE`, the padded content.
    fn note(kind: u32, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap();
        let mut note = [5, length, kind].map(u32::to_le_bytes).concat();
        note.extend(b"CORE\0\0\0\0");
        note.extend(content);
        note.resize(note.len().next_multiple_of(4), 0);
        note
    }

    fn status(signal: u8) -> Vec<u8> {
        let mut content = vec![0; PRSTATUS_REGISTERS + 8 * REGISTERS];
        content[PRSTATUS_SIGNAL] = signal;
        note(NT_PRSTATUS, &content)
    }

    fn signal_information(signal: i32, code: i32) -> Vec<u8> {
        let mut content = [signal, 0, code].map(i32::to_le_bytes).concat();
        content.resize(128, 0);
        note(NT_SIGINFO, &content)
    }

    fn process() -> Vec<u8> {
        note(NT_PRPSINFO, &[0; 136])
    }

    /// A dump of nothing but notes.
    fn dump(notes: &[Vec<u8>]) -> Vec<u8> {
        let notes = notes.concat();
        let mut dump = b"\x7fELF\x02\x01\x01".to_vec();
        dump.resize(16, 0);
        dump.extend([4, 0, 62, 0, 1, 0, 0, 0]);
        dump.extend([0, 64, 0_u64].map(u64::to_le_bytes).concat());
        dump.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        dump.extend([4, 4_u32].map(u32::to_le_bytes).concat());
        let length = notes.len() as u64;
        dump.extend([120, 0, 0, length, length, 4].map(u64::to_le_bytes).concat());
        dump.extend(notes);
        dump
    }

    #[test]
    fn a_dump_of_a_living_process_is_no_death() {
        // gcore of a process that it stopped, and gdb at a breakpoint.
        for (signal, code) in [(19, 128), (5, 128), (0, 0)] {
            let taken = dump(&[process(), status(0), signal_information(signal, code)]);
            let error = read(&taken).unwrap_err();
            assert!(matches!(error, CoreError::Alive(_)), "{error}");
        }
        let trapped = dump(&[status(5), process(), signal_information(5, 128)]);
        assert_eq!(read(&trapped).unwrap().fault.signal, 5, "the kernel's");
        // What stopped it in a debugger is reported, and that its end was not captured.
        let taken = dump(&[process(), status(11), signal_information(11, 1)]);
        let unseen = read(&taken).unwrap().fault.unseen.concat();
        assert!(unseen.contains("whether the process ended"), "{unseen}");
    }

    #[test]
    fn nothing_is_said_of_an_address_where_a_dump_has_no_signal_information() {
        for signal in [4, 5, 7, 8, 11, 31] {
            let core = read(&dump(&[status(signal), process()])).unwrap();
            let fault = Some(Box::new(core.fault));
            let why = crate::explain(&crate::Death {
                service: "injected",
                exit: Some(anteroom_guest_protocol::ProcessExit::Signalled {
                    signal: i32::from(signal),
                }),
                lived_ms: None,
                last_lines: None,
                evidence: &anteroom_guest_protocol::Evidence { fault, ..Default::default() },
                cpu: None,
            });
            assert!(
                why.sentence.ends_with("does not show what raised the signal"),
                "{}",
                why.sentence
            );
            assert!(
                !why.evidence.iter().any(|line| line.contains("address")),
                "{:?}",
                why.evidence
            );
        }
    }
}
