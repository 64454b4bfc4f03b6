//! ELF files for 32-bit x86, which a kernel for x86-64 runs too, where it was built so.

use object::elf::{self, FileHeader32};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, ReadRef};

/// Most program headers that are looked through: real files have some ten.
const MAX_SEGMENTS: usize = 1024;

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
    let interpreter = segments.iter().find_map(|segment| segment.interpreter(endian, data).ok()?);
    Some(interpreter.map(|path| String::from_utf8_lossy(path).into_owned()))
}
