//! ELF files for 32-bit x86, which a kernel for x86-64 runs too, where it was built so.

use object::elf::{self, FileHeader32};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, ReadRef};

use crate::elf::{MAX_PATH, MAX_SEGMENTS, name_at};

/// Of a program for 32-bit x86 its interpreter, where it has one; `None` for any other file.
pub fn interpreter<'data, R: ReadRef<'data>>(data: R) -> Option<Option<String>> {
    let header = FileHeader32::<Endianness>::parse(data).ok()?;
    let endian = header.endian().ok()?;
    if header.e_machine(endian) != elf::EM_386 {
        return None;
    }
    let segments = header.program_headers(endian, data).ok()?;
    if segments.is_empty() || segments.len() > MAX_SEGMENTS {
        return None;
    }
    let interpreter =
        segments.iter().filter(|s| s.p_type(endian) == elf::PT_INTERP).find_map(|s| {
            let (start, size) = (u64::from(s.p_offset(endian)), u64::from(s.p_filesz(endian)));
            name_at(data, start, start + size, MAX_PATH)
        });
    Some(interpreter.map(|path| String::from_utf8_lossy(path).into_owned()))
}
