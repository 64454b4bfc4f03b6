//! Where a process maps a file privately, and which pages of it are its own.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::sys::stat::{FileStat, fstat, major, minor};

use crate::page_set::{PAGE, PageSet};

/// Bytes that are read of a list of mappings: a VMM has some hundred, of some hundred bytes each.
const MOST_READ: u64 = 1024 * 1024;

/// Mappings of the file that are looked at: a VMM has one or two.
const MOST_MAPPINGS: usize = 16;

/// Pages whose entries are read at once.
const AT_ONCE: usize = 8192;

/// Bytes of an entry.
const ENTRY: usize = size_of::<u64>();

/// Of an entry (Documentation/admin-guide/mm/pagemap.rst): the page is in memory, or in the swap; it is the
/// file's, or shared.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_FILE: u64 = 1 << 61;

/// A private mapping of a file, in pages.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    /// Of the process.
    addresses: Range<u64>,
    /// Which page of the file is the first.
    first: u64,
}

impl Mapping {
    /// Where a page of the file is mapped.
    fn address_of(&self, page: u32) -> Option<u64> {
        let at = self.addresses.start.checked_add(u64::from(page).checked_sub(self.first)?)?;
        self.addresses.contains(&at).then_some(at * PAGE)
    }
}

/// The pages of this file, in memory, that a process maps privately and has changed: copies of its own. Of
/// one that was taken over these are no more than numbers of pages which the file has.
///
/// # Errors
/// When the process is gone, or this one may not look.
pub fn changed_pages(pid: u32, file: &impl AsFd) -> io::Result<PageSet> {
    let file = fstat(file)?;
    let entries = File::open(format!("/proc/{pid}/pagemap"))?;
    let mut changed = Vec::new();
    let mut bytes = vec![0; AT_ONCE * ENTRY];
    for mapping in mappings(pid, &file)? {
        let Range { mut start, end } = mapping.addresses;
        let pages = end - start;
        let mut page = mapping.first;
        while start < end && changed.len() < PageSet::MOST {
            let some = usize::try_from(end - start).unwrap_or(AT_ONCE).min(AT_ONCE);
            let read = &mut bytes[..some * ENTRY];
            entries.read_exact_at(read, start * ENTRY as u64)?;
            changed.extend(numbers(page, read).take(PageSet::MOST - changed.len()));
            (start, page) = (start + some as u64, page + some as u64);
        }
        debug_assert!(page <= mapping.first + pages, "no page is of another mapping");
    }
    changed.sort_unstable();
    changed.dedup();
    Ok(PageSet::of(changed))
}

/// Which of the pages from `first` on the entries say are a process' own.
fn numbers(first: u64, entries: &[u8]) -> impl Iterator<Item = u32> {
    let entries = entries.as_chunks::<ENTRY>().0.iter().map(|bytes| u64::from_ne_bytes(*bytes));
    let own = (first..)
        .zip(entries)
        .filter(|(_, entry)| entry & (PRESENT | SWAPPED) != 0 && entry & OF_FILE == 0);
    own.filter_map(|(page, _)| u32::try_from(page).ok())
}

/// Where a process maps these pages of the file, privately: addresses in bytes.
///
/// # Errors
/// As [`changed_pages`].
pub fn addresses(pid: u32, file: &impl AsFd, pages: &PageSet) -> io::Result<Vec<usize>> {
    let mappings = mappings(pid, &fstat(file)?)?;
    let of = |page| mappings.iter().filter_map(move |mapping: &Mapping| mapping.address_of(page));
    Ok(pages.pages().flat_map(of).filter_map(|at| usize::try_from(at).ok()).collect())
}

fn mappings(pid: u32, file: &FileStat) -> io::Result<Vec<Mapping>> {
    let mut text = String::new();
    File::open(format!("/proc/{pid}/maps"))?.take(MOST_READ).read_to_string(&mut text)?;
    let of_file = text.lines().filter_map(|line| mapping(line, file));
    Ok(of_file.take(MOST_MAPPINGS).collect())
}

/// Of a line of `maps` (proc_pid_maps(5)); `None` where it is not a private mapping of pages that this file has.
fn mapping(line: &str, file: &FileStat) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (from, to) = fields.next()?.split_once('-')?;
    let (rights, offset) = (fields.next()?, hex(fields.next()?)?);
    let device = fields.next()?;
    let inode: u64 = fields.next()?.parse().ok()?;
    let is_it = inode == file.st_ino
        && device == format!("{:02x}:{:02x}", major(file.st_dev), minor(file.st_dev));
    if !is_it || !rights.ends_with('p') {
        return None;
    }
    let addresses = hex(from)? / PAGE..hex(to)? / PAGE;
    let first = offset / PAGE;
    let all = u64::try_from(file.st_size).ok()?.div_ceil(PAGE).min(1 << u32::BITS);
    let pages = addresses.end.checked_sub(addresses.start)?.min(all.checked_sub(first)?);
    let addresses = addresses.start..addresses.start + pages;
    Some(Mapping { addresses, first })
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IN_FILE: u64 = PRESENT | OF_FILE;

    fn bytes(entries: &[u64]) -> Vec<u8> {
        entries.iter().flat_map(|entry| entry.to_ne_bytes()).collect()
    }

    /// Of 8 pages.
    fn file(inode: u64) -> FileStat {
        let mut file = fstat(File::open("/dev/null").unwrap()).unwrap();
        (file.st_ino, file.st_size) = (inode, 8 * 4096);
        file
    }

    fn line(from: u64, to: u64, rights: &str, offset: u64, file: &FileStat) -> String {
        let (major, minor) = (major(file.st_dev), minor(file.st_dev));
        let inode = file.st_ino;
        format!(
            "{from:x}-{to:x} {rights} {offset:08x} {major:02x}:{minor:02x} {inode}   /memfd:x (deleted)"
        )
    }

    #[test]
    fn pages_that_are_copies_are_a_process_own_also_in_the_swap() {
        let entries = [0, IN_FILE | 5, PRESENT | 7, SWAPPED, SWAPPED | OF_FILE, PRESENT | 1 << 55];
        let found: Vec<u32> = numbers(10, &bytes(&entries)).collect();
        assert_eq!(found, [12, 13, 15]);
        let last = u64::from(u32::MAX);
        assert_eq!(numbers(last, &bytes(&[PRESENT; 3])).collect::<Vec<_>>(), [u32::MAX]);
    }

    #[test]
    fn a_private_mapping_of_the_file_is_one_and_no_other() {
        let (file, other) = (file(1), file(2));
        let found = mapping(&line(0x1_0000, 0x1_3000, "rw-p", 0x2000, &file), &file).unwrap();
        assert_eq!(found, Mapping { addresses: 0x10..0x13, first: 2 });
        let at = |page| found.address_of(page);
        assert_eq!([at(1), at(2), at(4), at(5)], [None, Some(0x1_0000), Some(0x1_2000), None]);
        // No longer than the file.
        let longer = mapping(&line(0x1_0000, 0x9_0000, "rw-p", 0x6000, &file), &file).unwrap();
        assert_eq!(longer.addresses, 0x10..0x12);
        assert_eq!(mapping(&line(0x1_0000, 0x1_3000, "rw-p", 0x9000, &file), &file), None);
        assert_eq!(mapping(&line(0x1_0000, 0x1_3000, "rw-s", 0, &file), &file), None);
        assert_eq!(mapping(&line(0x1_0000, 0x1_3000, "rw-p", 0, &other), &file), None);
        assert_eq!(mapping("7ffd0000-7ffe0000 rw-p 00000000 00:00 0  [stack]", &file), None);
    }

    proptest! {
        #[test]
        fn whatever_a_process_maps_only_pages_of_the_file_are_found(
            from in any::<u64>(), to in any::<u64>(), offset in any::<u64>(), page in any::<u32>(),
        ) {
            let file = file(1);
            if let Some(found) = mapping(&line(from, to, "rw-p", offset, &file), &file) {
                let pages = found.addresses.end - found.addresses.start;
                prop_assert!(found.first + pages <= 8);
                prop_assert!(found.address_of(page).is_none_or(|at| (from / PAGE..to / PAGE).contains(&(at / PAGE))));
            }
        }

        #[test]
        fn whatever_a_line_has_it_is_a_mapping_or_none(text in "[ -~]{0,120}") {
            let _ = mapping(&text, &file(1));
        }
    }
}
