//! What glibc keeps of the message that it aborts with: `__abort_msg` (stdlib/abort.c,
//! assert/assert.c), there for readers of core dumps.

use anteroom_guest_protocol::MAX_EVIDENCE_TEXT;
use object::ReadRef;

use crate::{core_file, elf};

/// Bytes that hold a library's headers and build id.
const FIRST_PAGE: usize = 4096;

/// The message, or none where glibc was not what aborted. `library` is the C library's file, `base`
/// where its beginning is mapped, `memory` reads the process.
///
/// # Errors
/// Why it is unknown, as the end of a sentence.
pub fn last_message<'data, R: ReadRef<'data>>(
    library: R,
    base: u64,
    mut memory: impl FnMut(u64, usize) -> Option<Vec<u8>>,
) -> Result<Option<String>, &'static str> {
    const UNREADABLE: &str = "its memory could not be read";
    let of_process = memory(base, FIRST_PAGE).and_then(|page| elf::build_id(page.as_slice()));
    match (of_process, elf::build_id(library)) {
        (None, _) => return Err("the process's C library is unknown"),
        (of_process, of_file) if of_process != of_file => {
            return Err("the C library here differs from the process's");
        }
        _ => {}
    }
    let place = elf::offset_of(library, "__abort_msg").ok_or("its C library has none")?;
    let pointer = memory(base.wrapping_add(place), 8);
    let pointer = pointer.and_then(|bytes| core_file::word(&bytes, 0)).ok_or(UNREADABLE)?;
    if pointer == 0 {
        return Ok(None);
    }
    // struct abort_msg_s: the size of the whole as an unsigned int, then the text.
    let text = memory(pointer.wrapping_add(4), MAX_EVIDENCE_TEXT).ok_or(UNREADABLE)?;
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
    Ok(Some(core_file::text(text)).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt;

    use object::ReadCache;

    use super::*;

    /// This process' own memory, and where a library's beginning is mapped in it.
    fn base_of(name: &str) -> (String, u64) {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.ends_with(name)).unwrap();
        let start = line.split('-').next().unwrap();
        let path = line.split_whitespace().last().unwrap();
        (path.to_owned(), u64::from_str_radix(start, 16).unwrap())
    }

    fn of(library: &str, mapped: &str) -> Result<Option<String>, &'static str> {
        let memory = File::open("/proc/self/mem").unwrap();
        let file = ReadCache::new(File::open(base_of(library).0).unwrap());
        last_message(&file, base_of(mapped).1, |address, length| {
            let mut bytes = vec![0; length];
            memory.read_exact_at(&mut bytes, address).ok().map(|()| bytes)
        })
    }

    #[test]
    fn a_library_is_believed_only_where_it_is_the_one_that_was_mapped() {
        assert_eq!(of("/libc.so.6", "/libc.so.6"), Ok(None), "nothing has aborted here");
        let other = of("/libc.so.6", "/ld-linux-x86-64.so.2").unwrap_err();
        assert!(other.contains("differs from the process's"), "{other}");
        let none = of("/ld-linux-x86-64.so.2", "/ld-linux-x86-64.so.2").unwrap_err();
        assert!(none.contains("has none"), "{none}");
    }
}
