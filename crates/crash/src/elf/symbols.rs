//! Symbols, whose names are read with a bound: they may lie over each other, so that a file of some
//! megabytes has terabytes of them.

use anteroom_guest_protocol::Symbol;
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, Sym};
use object::{Endianness, ReadRef};

use super::{Header, header, segments};

/// The longest name that is read, in bytes.
pub(super) const MAX_NAME: u64 = 256;

/// How far behind a symbol without a size an address may be to be named by it, in bytes.
const UNSIZED_REACH: u64 = 4096;

type Sym64 = elf::Sym64<Endianness>;

/// The name that begins there, before `end`, or its beginning.
pub(crate) fn name_at<'data, R: ReadRef<'data>>(
    data: R,
    start: u64,
    end: u64,
    at_most: u64,
) -> Option<&'data [u8]> {
    let length = end.checked_sub(start)?.min(at_most);
    data.read_bytes_at(start, length).ok()?.split(|byte| *byte == 0).next()
}

/// A table of symbols, and where in the file their names are.
pub(super) struct Symbols<'data> {
    pub(super) list: &'data [Sym64],
    endian: Endianness,
    names: (u64, u64),
}

impl<'data> Symbols<'data> {
    /// The table of this kind.
    pub(super) fn of<R: ReadRef<'data>>(
        header: &Header,
        endian: Endianness,
        data: R,
        kind: u32,
    ) -> Option<Self> {
        let sections = header.sections(endian, data).ok()?;
        let table = sections.symbols(endian, data, kind).ok()?;
        let names = sections.section(table.string_section()).ok()?;
        let (start, size) = names.file_range(endian)?;
        Some(Self { list: table.symbols(), endian, names: (start, start.checked_add(size)?) })
    }

    /// A symbol's name, or its beginning.
    pub(super) fn name<R: ReadRef<'data>>(
        &self,
        symbol: &Sym64,
        data: R,
        at_most: u64,
    ) -> Option<&'data [u8]> {
        let (start, end) = self.names;
        name_at(data, start.checked_add(symbol.st_name(self.endian).into())?, end, at_most)
    }
}

/// How far from the beginning of a library in memory its exported data of this name is.
pub(crate) fn offset_of<'data, R: ReadRef<'data>>(data: R, name: &str) -> Option<u64> {
    let (header, endian) = header(data).ok()?;
    let first = segments(header, endian, data)
        .ok()?
        .iter()
        .find(|s| s.p_type(endian) == elf::PT_LOAD && s.p_offset(endian) == 0)?;
    let table = Symbols::of(header, endian, data, elf::SHT_DYNSYM)?;
    // One byte more: a longer name is another.
    let length = name.len() as u64 + 1;
    let is_it = |symbol: &&Sym64| {
        symbol.st_type() == elf::STT_OBJECT
            && table.name(symbol, data, length) == Some(name.as_bytes())
    };
    table.list.iter().find(is_it)?.st_value(endian).checked_sub(first.p_vaddr(endian))
}

/// The function at `file_offset`, by the symbol tables.
#[must_use]
pub fn symbol_at<'data, R: ReadRef<'data>>(data: R, file_offset: u64) -> Option<Symbol> {
    let (header, endian) = header(data).ok()?;
    let segments = segments(header, endian, data).ok()?;
    let address = segments.iter().filter(|s| s.p_type(endian) == elf::PT_LOAD).find_map(|s| {
        let into = file_offset.checked_sub(s.p_offset(endian))?;
        (into < s.p_filesz(endian)).then(|| s.p_vaddr(endian).checked_add(into))?
    })?;
    let tables =
        [elf::SHT_SYMTAB, elf::SHT_DYNSYM].map(|kind| Symbols::of(header, endian, data, kind));
    let mut best: Option<(u64, &Symbols<'_>, &Sym64)> = None;
    for table in tables.iter().flatten() {
        for symbol in table.list {
            let (start, size) = (symbol.st_value(endian), symbol.st_size(endian));
            let reach = if size == 0 { UNSIZED_REACH } else { size };
            let holds = symbol.st_type() == elf::STT_FUNC
                && start <= address
                && address - start < reach
                && best.is_none_or(|(other, ..)| other < start);
            if holds {
                best = Some((start, table, symbol));
            }
        }
    }
    // Its name alone is read.
    let (start, table, symbol) = best?;
    let name = String::from_utf8_lossy(table.name(symbol, data, MAX_NAME)?).into_owned();
    Some(Symbol { name, offset: address - start })
}
