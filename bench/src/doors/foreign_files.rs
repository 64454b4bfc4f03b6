//! Files of others that `anteroom explain` reads: ones that would keep it busy for hours or fill the
//! memory, and texts in one that would work on the terminal.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Outcome, Tries};

/// How long it may take over two megabytes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes the attacks.
pub fn attack(anteroom: &Path, tries: &mut Tries) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("xtask-doors-").tempdir()?;
    let path = folder.path().join("file.elf");
    for (attack, sections, segments) in
        [("60,000 sections over the same code", 60_000, 0), ("60,000 segments of notes", 2, 60_000)]
    {
        std::fs::write(&path, elf(sections, segments, 4, &vec![0x90; 2 * 1024 * 1024]))?;
        let took = programs(anteroom, &path, &["--json"])?.map(|(took, _)| took);
        tries.record(
            attack,
            match took {
                Some(took) => {
                    eprintln!("           after {} ms", took.as_millis());
                    Outcome::Refused
                }
                None => Outcome::Passed(format!("it ran for {} s", PATIENCE.as_secs())),
            },
        );
    }
    let long = [vec![b'a'; 8 * 1024 * 1024], vec![0]].concat();
    std::fs::write(&path, elf(2, 1000, 3, &long))?;
    record_time(tries, "1,000 interpreters of 8 MiB", programs(anteroom, &path, &["--json"])?);
    std::fs::write(&path, with_long_names())?;
    record_time(tries, "400,000 names of some megabytes", programs(anteroom, &path, &["--json"])?);
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU)?;
    for kind in [&["elf", "--cpu", "x86-64-v1"][..], &["core"]] {
        let attack = format!("a pipe as {}", kind[0]);
        record_time(tries, &attack, explained(anteroom, &pipe, kind)?);
    }
    let forged = b"/lib/ld\nnothing is wrong with it\0";
    std::fs::write(&path, elf(2, 1, 3, forged))?;
    if let Some((_, shown)) = programs(anteroom, &path, &[])? {
        let passed = shown.lines().find(|line| line.starts_with("nothing is wrong"));
        let outcome = passed.map_or(Outcome::Refused, |line| Outcome::Passed(line.to_owned()));
        tries.record("a line that looks like ours", outcome);
    }
    // PT_INTERP, and a name of 7- and 8-bit control sequences and of one that turns the text.
    let name = "/lib/\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{202e}ld\0";
    std::fs::write(&path, elf(2, 1, 3, name.as_bytes()))?;
    for (attack, options) in [("control sequences", &[][..]), ("the same in JSON", &["--json"])] {
        let Some((_, shown)) = programs(anteroom, &path, options)? else { continue };
        let does = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        let passed = shown.chars().find(|c| does(*c));
        tries.record(
            attack,
            passed.map_or(Outcome::Refused, |c| Outcome::Passed(format!("{c:?} was printed"))),
        );
    }
    std::fs::write(&path, bomb())?;
    tries.record(
        "a dump of 300 KB that unpacks to 9 GiB",
        match explained(anteroom, &path, &["core"])? {
            Some((_, said)) if said.contains("is larger than 8192 MiB") => Outcome::Refused,
            Some((_, said)) => Outcome::Passed(said),
            None => Outcome::Passed(format!("it ran for {} s", PATIENCE.as_secs())),
        },
    );
    Ok(())
}

fn record_time(tries: &mut Tries, attack: &str, explained: Option<(Duration, String)>) {
    let outcome = match explained {
        Some(_) => Outcome::Refused,
        None => Outcome::Passed(format!("it ran for {} s", PATIENCE.as_secs())),
    };
    tries.record(attack, outcome);
}

fn programs(anteroom: &Path, file: &Path, options: &[&str]) -> Result<Option<(Duration, String)>> {
    explained(anteroom, file, &[&["elf", "--cpu", "x86-64-v1"], options].concat())
}

/// What it printed and how long that took; `None` when it had to be ended.
fn explained(anteroom: &Path, file: &Path, options: &[&str]) -> Result<Option<(Duration, String)>> {
    let began = Instant::now();
    let output = file.with_extension("out");
    let to = std::fs::File::create(&output)?;
    let mut child = Command::new(anteroom)
        .arg("explain")
        .args(options)
        .arg(file)
        .stdin(Stdio::null())
        .stdout(to.try_clone()?)
        .stderr(to)
        .spawn()
        .context("starting `anteroom explain` failed")?;
    while child.try_wait()?.is_none() {
        if began.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Some((began.elapsed(), String::from_utf8_lossy(&std::fs::read(&output)?).into_owned())))
}

/// A zstd frame of blocks that are one byte each, 131072 times (RFC 8878, 3.1.1.2).
fn bomb() -> Vec<u8> {
    const HEAD: [u8; 6] = [0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3];
    let block = |last: u32| {
        let [a, b, c, _] = (131_072 << 3 | 1 << 1 | last).to_le_bytes();
        [a, b, c, 0]
    };
    let blocks = 9 * 1024 * 1024 / 128;
    let all = std::iter::repeat_n(block(0), blocks - 1).chain([block(1)]);
    HEAD.into_iter().chain(all.flatten()).collect()
}

/// An x86-64 ELF file whose symbols are all functions over its one instruction (`vpmovzxbd`), with names
/// that go on to the end of their table.
fn with_long_names() -> Vec<u8> {
    const SYMBOLS: u64 = 400_000;
    const NAMES: u64 = 8 * 1024 * 1024;
    let (table_at, names_at) = (64 + 4 * 64 + 56, 64 + 4 * 64 + 56 + 24 * SYMBOLS);
    let code_at = names_at + NAMES;
    let mut file = elf(4, 1, 1, &[]);
    let mut put = |at: usize, fields: &[u64]| {
        for (number, field) in fields.iter().enumerate() {
            file[at + 8 * number..][..8].copy_from_slice(&field.to_le_bytes());
        }
    };
    // Kind (above 32 bits), flags, address, offset, size, link; each entry's size.
    for (number, kind, flags, at, size, entry) in [
        (0, 0, 0, 0, 0, 0),
        (1, 3, 0, names_at, NAMES, 0),
        (2, 2, 0, table_at, 24 * SYMBOLS, 24),
        (3, 1, 4, code_at, 5, 0),
    ] {
        let section = [kind << 32, flags, 0, at, size, 1, 1, entry];
        put(64 + 64 * number, &section);
    }
    put(64 + 4 * 64 + 8, &[0, 0, 0, code_at + 5, u64::MAX, 4]);
    for number in 0..SYMBOLS {
        // Name, then a global function of the section 3; address and size.
        file.extend_from_slice(&((number + 1) | (0x0003_0012 << 32)).to_le_bytes());
        file.extend_from_slice(&number.to_le_bytes());
        file.extend_from_slice(&u64::MAX.to_le_bytes());
    }
    file.resize(usize::try_from(code_at - 1).unwrap_or_default(), b'a');
    file.push(0);
    file.extend_from_slice(&[0xc4, 0xe2, 0x7d, 0x31, 0]);
    file
}

/// An x86-64 ELF file whose sections are all code over the same bytes, and whose program headers, all
/// of one kind, are too.
fn elf(sections: u16, segments: u16, kind: u32, bytes: &[u8]) -> Vec<u8> {
    let tables = 64 + 64 * u64::from(sections) + 56 * u64::from(segments);
    let length = bytes.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    let mut put = |bytes: &[u8]| file.extend_from_slice(bytes);
    put(&3_u16.to_le_bytes());
    put(&62_u16.to_le_bytes());
    put(&1_u32.to_le_bytes());
    for word in [0, 64 + 64 * u64::from(sections), 64] {
        put(&word.to_le_bytes());
    }
    put(&0_u32.to_le_bytes());
    for half in [64, 56, segments, 64, sections, 1] {
        put(&half.to_le_bytes());
    }
    for number in 0..sections {
        // The second holds the sections' names, as one must; the others are code.
        let of_kind: u32 = if number == 1 { 3 } else { 1 };
        put(&0_u32.to_le_bytes());
        put(&of_kind.to_le_bytes());
        for word in [4, 0, tables, length, 0, 0, 0] {
            put(&u64::to_le_bytes(word));
        }
    }
    for _ in 0..segments {
        put(&kind.to_le_bytes());
        put(&4_u32.to_le_bytes());
        for word in [tables, 0, 0, length, length, 4] {
            put(&u64::to_le_bytes(word));
        }
    }
    put(bytes);
    file
}
