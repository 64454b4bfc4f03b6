//! Files made to keep their reader busy.

use super::*;

/// Headers of a file whose sections all lie over the same code.
fn overlapping(sections: u16, segments: u16, code: &[u8]) -> Vec<u8> {
    let (header, section, segment) = (64_u64, 64_u64, 56_u64);
    let code_at = header + section * u64::from(sections) + segment * u64::from(segments);
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut put = |bytes: &[u8]| file.extend_from_slice(bytes);
    put(&3_u16.to_le_bytes());
    put(&62_u16.to_le_bytes());
    put(&1_u32.to_le_bytes());
    put(&0_u64.to_le_bytes());
    put(&(header + section * u64::from(sections)).to_le_bytes());
    put(&header.to_le_bytes());
    put(&0_u32.to_le_bytes());
    for half in [64, 56, segments, 64, sections, 1] {
        put(&half.to_le_bytes());
    }
    for number in 0..sections {
        // The second holds the sections' names, as one must.
        let kind = if number == 1 { elf::SHT_STRTAB } else { elf::SHT_PROGBITS };
        put(&0_u32.to_le_bytes());
        put(&kind.to_le_bytes());
        put(&u64::from(elf::SHF_EXECINSTR).to_le_bytes());
        put(&0_u64.to_le_bytes());
        put(&code_at.to_le_bytes());
        put(&(code.len() as u64).to_le_bytes());
        put(&[0; 24]);
    }
    put(&vec![0; usize::from(segments) * 56]);
    put(code);
    file
}

#[test]
fn a_byte_of_code_is_decoded_once_however_many_sections_lie_over_it() {
    let cpu = CpuProfile::named("x86-64-v1").unwrap();
    // vpmovzxbd ymm0, [rax], then two megabytes of nothing: 60,000 times that took hours.
    let mut code = vec![0xc4, 0xe2, 0x7d, 0x31, 0x00];
    code.resize(2 * 1024 * 1024, 0x90);
    let found = beyond(&overlapping(60_000, 0, &code), &cpu).unwrap();
    assert_eq!((found.len(), found[0].count), (1, 1));
    let file = overlapping(2, 2000, &code);
    assert!(matches!(facts(file.as_slice()), Err(ElfError::TooManySegments(2000))));
}

/// A table of symbols, each a function over the first byte of code and with a name of a megabyte.
fn with_long_names(symbols: u16, code: &[u8]) -> Vec<u8> {
    let names = vec![b'a'; 1024 * 1024];
    let table_at = 64 + 4 * 64 + 56_u64;
    let table_len = 24 * u64::from(symbols);
    let names_at = table_at + table_len;
    let code_at = names_at + names.len() as u64;
    let mut file = overlapping(4, 1, &[]);
    let mut section = |number: usize, kind: u32, flags: u64, at: u64, size: u64, link: u32| {
        let start = 64 + 64 * number;
        file[start + 4..start + 8].copy_from_slice(&kind.to_le_bytes());
        for (field, value) in [flags, 0, at, size].into_iter().enumerate() {
            let field = start + 8 + 8 * field;
            file[field..field + 8].copy_from_slice(&value.to_le_bytes());
        }
        file[start + 40..start + 44].copy_from_slice(&link.to_le_bytes());
        file[start + 56..start + 64].copy_from_slice(&24_u64.to_le_bytes());
    };
    section(0, 0, 0, 0, 0, 0);
    section(1, elf::SHT_STRTAB, 0, names_at, names.len() as u64, 0);
    section(2, elf::SHT_SYMTAB, 0, table_at, table_len, 1);
    let executable = u64::from(elf::SHF_EXECINSTR);
    section(3, elf::SHT_PROGBITS, executable, code_at, code.len() as u64, 0);
    let segment: Vec<u8> = [0, 0, 0, code_at + code.len() as u64, u64::MAX, 1]
        .iter()
        .flat_map(|word: &u64| word.to_le_bytes())
        .collect();
    file[320..328].copy_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0]);
    file[328..376].copy_from_slice(&segment);
    for number in 0..symbols {
        file.extend((u32::from(number) + 1).to_le_bytes());
        file.extend([2, 0, 3, 0]);
        file.extend(u64::from(number).to_le_bytes());
        file.extend(u64::MAX.to_le_bytes());
    }
    file.extend(names);
    file.extend(code);
    file
}

/// Each name was read to its end: 65,535 times a megabyte, for every finding anew.
#[test]
fn names_that_lie_over_each_other_are_read_with_a_bound() {
    let cpu = CpuProfile::named("x86-64-v1").unwrap();
    let file = with_long_names(u16::MAX, &[0xc4, 0xe2, 0x7d, 0x31, 0x00]);
    let found = beyond(&file, &cpu).unwrap();
    let symbol = found[0].symbol.as_ref().unwrap();
    assert_eq!(symbol.name, "a".repeat(256));
}

#[test]
fn one_interpreter_is_read_as_far_as_a_path_goes() {
    let mut file = overlapping(2, 1024, &[]);
    let path_at = file.len() as u64;
    for segment in 0..1024 {
        let start = 64 + 2 * 64 + 56 * segment;
        file[start..start + 4].copy_from_slice(&elf::PT_INTERP.to_le_bytes());
        file[start + 8..start + 16].copy_from_slice(&path_at.to_le_bytes());
        file[start + 32..start + 40].copy_from_slice(&(8_u64 << 20).to_le_bytes());
    }
    file.resize(file.len() + (8 << 20), b'a');
    let facts = facts(file.as_slice()).unwrap();
    assert_eq!(facts.interpreter.unwrap().len(), 4096);
}

#[test]
fn ranges_that_overlap_are_taken_once_and_must_lie_in_the_file() {
    let of = |ranges: &[(u64, u64)]| once_each(ranges.iter().copied(), 100).ok();
    assert_eq!(
        of(&[(10, 5), (0, 12), (11, 2), (90, 10)]),
        Some(vec![(0, 12), (12, 15), (90, 100)])
    );
    assert_eq!(of(&[(5, 0)]), Some(vec![]));
    assert_eq!(of(&[(99, 2)]), None);
    assert_eq!(of(&[(u64::MAX, 2)]), None);
}
