//! Compressed dumps made by the programs that people and systemd use.

use std::io::{Cursor, Write};
use std::process::{Command, Stdio};

use super::*;

/// What a compressor makes of these bytes.
fn packed(command: &[&str], bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{} could not be started: {error}", command[0]));
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    output.stdout
}

const COMPRESSORS: [&[&str]; 7] = [
    &["zstd", "-c", "--check"],
    &["zstd", "-19", "-c", "--check"],
    &["lz4", "-c"],
    &["lz4", "-c", "-BD", "-9", "--no-frame-crc", "-BX"],
    &["xz", "-c"],
    &["xz", "-c", "-9", "--block-size=100KiB"],
    &["xz", "-c", "--check=crc32", "--x86", "--lzma2"],
];

/// Neither all alike nor all different.
fn content(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if state >> 27 == 0 { state.to_le_bytes()[2] } else { 0 }
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn open(file: &[u8]) -> Result<Dump<Cursor<Vec<u8>>>, DumpError> {
    Dump::open(Cursor::new(file.to_vec()), "dump")
}

/// An error and its causes, as an end user reads it.
fn phrase(error: &DumpError) -> String {
    let mut phrase = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        phrase.push_str(&format!(": {error}"));
        cause = error.source();
    }
    phrase
}

#[test]
fn each_compression_is_read_at_any_place() {
    let content = content(HEAD + 300_000);
    let end = content.len();
    for compressor in COMPRESSORS {
        let mut dump = open(&packed(compressor, &content)).unwrap();
        assert!(dump.packing.is_some() && dump.head() == &content[..HEAD], "{compressor:?}");
        for (at, length) in [(0, 8), (HEAD - 3, 9), (end - 3, 15)] {
            let whole = &content[at..(at + length).min(end)];
            assert_eq!(dump.at(at as u64, length).unwrap(), whole, "{compressor:?}");
        }
    }
    let mut short = open(&packed(COMPRESSORS[0], &content[..9])).unwrap();
    assert_eq!(short.at(u64::MAX, 9).unwrap(), b"");
    let mut plain = open(&content).unwrap();
    assert_eq!(plain.at(HEAD as u64 + 7, 5).unwrap(), &content[HEAD + 7..HEAD + 12]);
}

#[test]
fn several_frames_are_one_file() {
    for compressor in COMPRESSORS {
        let two = [packed(compressor, b"first, "), packed(compressor, b"second")].concat();
        assert_eq!(open(&two).unwrap().head(), b"first, second", "{compressor:?}");
    }
    let skipped = [&packed(COMPRESSORS[0], b"a")[..], b"\x50\x2a\x4d\x18\x02\0\0\0xy"].concat();
    assert_eq!(open(&skipped).unwrap().head(), b"a");
}

#[test]
fn a_truncated_or_damaged_dump_is_reported_as_such() {
    let content = content(400_000);
    for compressor in COMPRESSORS {
        let whole = packed(compressor, &content);
        for length in (1..40).map(|n| n * whole.len() / 40).chain(whole.len() - 9..whole.len()) {
            let error = open(&whole[..length]).err().unwrap_or_else(|| {
                panic!("{length} bytes of {} of {compressor:?}", whole.len());
            });
            let (said, name) = (phrase(&error), compressor[0]);
            let begins = format!("it is compressed by {name} and truncated or damaged; copy it");
            assert!(said.starts_with(&begins), "{said}");
        }
        // In the middle, and in what the end says of the whole.
        for at in [whole.len() / 2, whole.len() - 2] {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            assert!(matches!(open(&damaged), Err(DumpError::Damaged { .. })), "{compressor:?}");
        }
    }
}

#[test]
fn a_bomb_is_refused_with_the_command_that_makes_it_readable() {
    let zeros = vec![0; HEAD + 5 * 1024 * 1024];
    for compressor in COMPRESSORS {
        let bomb = packed(compressor, &zeros);
        let within = |limit| Dump::open_within(Cursor::new(bomb.clone()), "a.core", limit).err();
        let error = within(HEAD as u64 + 4 * 1024 * 1024).unwrap();
        let begins =
            format!("it is compressed by {0} and is larger than 8 MiB; `{0} -dc", compressor[0]);
        assert!(phrase(&error).starts_with(&begins), "{error}");
        assert!(phrase(&error).ends_with(" a.core > core` unpacks it"), "{error}");
        assert!(within(zeros.len() as u64).is_none());
    }
}

#[test]
fn a_decompressor_is_not_given_the_memory_it_asks_for() {
    let content = content(400_000);
    for greedy in [
        &["xz", "-c", "--lzma2=dict=512MiB"][..],
        &["zstd", "-c", "--ultra", "-22", "--zstd=wlog=30"],
    ] {
        let error = open(&packed(greedy, &content)).err().unwrap();
        assert!(
            phrase(&error).contains("unpacking it takes more than 128 MiB of memory; `"),
            "{error}"
        );
    }
}

#[test]
fn forms_that_are_not_read_name_their_command() {
    let error = open(&packed(&["gzip", "-c"], b"x")).err().unwrap();
    assert_eq!(
        phrase(&error),
        "it is compressed by gzip, which is not supported; `gzip -dc dump > core` converts it"
    );
    let error = open(b"ProblemType: Crash\n").err().unwrap();
    assert!(phrase(&error).contains("`apport-unpack dump FOLDER`"), "{error}");
}
