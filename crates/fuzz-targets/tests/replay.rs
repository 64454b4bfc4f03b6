//! Every target with the inputs that are kept, and with changes of these.
//!
//! Without libFuzzer's instrumentation, so that nothing is built for it alone. What looks further is
//! `cargo xtask fuzz`; what that finds is kept in `fuzz/corpus`, and so comes here.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use anteroom_fuzz_targets::{TARGETS, Target, target};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

/// What a reader may take, in bytes, with all that the test itself has: more is a memory bomb.
const MEMORY: u64 = 2 << 30;

/// The longest input tried, in bytes.
const MAX_LEN: usize = 16 * 1024;

/// How many changed inputs are tried of each target, and of one that makes a whole connection for each.
const CHANGED: u32 = 1000;
const CHANGED_OF_PACKETS: u32 = 50;

#[test]
fn every_target_has_seeds_and_every_folder_a_target() {
    let mut folders: Vec<_> = ["seeds", "corpus"].map(folder).iter().flat_map(entries).collect();
    folders.sort();
    folders.dedup();
    let mut names: Vec<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    names.sort();
    assert_eq!(folders, names);
    for target in &TARGETS {
        assert!(!entries(&folder("seeds").join(target.name)).is_empty(), "{}", target.name);
    }
}

macro_rules! replay {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            replay(target(stringify!($name)).expect("it is a target"));
        })*

        #[test]
        fn no_target_is_left_out() {
            assert_eq!([$(stringify!($name)),*].len(), TARGETS.len());
        }
    };
}

replay! {
    core_dump
    cpu_template
    death_record
    elf_file
    guest_frames
    guest_hello
    guest_link
    guest_messages
    guest_requests
    provider_file
    recipe_file
    terminal
    viewer_input
    viewer_offer
    viewer_packets
}

fn replay(target: &Target) {
    let (_, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
    setrlimit(Resource::RLIMIT_AS, MEMORY, hard).unwrap();
    let inputs = kept(target);
    for (path, input) in &inputs {
        let read = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
        assert!(read.is_ok(), "{} fails with {}", target.name, path.display());
    }
    let cases = if target.name == "viewer_packets" { CHANGED_OF_PACKETS } else { CHANGED };
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let tried = TestRunner::new(config).run(&changed(inputs), |input| {
        panic::catch_unwind(AssertUnwindSafe(|| (target.run)(&input)))
            .map_err(|_| TestCaseError::fail("the reader panicked"))
    });
    assert!(tried.is_ok(), "{}: {}", target.name, tried.unwrap_err());
}

/// A change of an input.
#[derive(Clone, Debug)]
enum Change {
    Byte(Index, u8),
    Bit(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    /// The rest is that of another input.
    Splice(Index, Index, Index),
}

/// Kept inputs with some changes.
fn changed(inputs: Vec<(PathBuf, Vec<u8>)>) -> impl Strategy<Value = Vec<u8>> {
    let change = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Change::Bit(at, bit)),
        (any::<Index>(), vec(any::<u8>(), 1..9)).prop_map(|(at, new)| Change::Insert(at, new)),
        (any::<Index>(), 1..64usize).prop_map(|(at, length)| Change::Remove(at, length)),
        any::<(Index, Index, Index)>().prop_map(|(at, of, from)| Change::Splice(at, of, from)),
    ];
    (any::<Index>(), vec(change, 1..6)).prop_map(move |(which, changes)| {
        let mut input = which.get(&inputs).1.clone();
        for change in changes {
            apply(change, &mut input, &inputs);
        }
        input.truncate(MAX_LEN);
        input
    })
}

fn apply(change: Change, input: &mut Vec<u8>, inputs: &[(PathBuf, Vec<u8>)]) {
    let place = |at: Index, length: usize| at.index(length + 1);
    match change {
        Change::Byte(at, byte) if !input.is_empty() => *at.get_mut(input) = byte,
        Change::Bit(at, bit) if !input.is_empty() => *at.get_mut(input) ^= 1 << bit,
        Change::Byte(..) | Change::Bit(..) => {}
        Change::Insert(at, new) => {
            let at = place(at, input.len());
            input.splice(at..at, new);
        }
        Change::Remove(at, length) => {
            let at = place(at, input.len());
            input.drain(at..input.len().min(at + length));
        }
        Change::Splice(at, of, from) => {
            let other = &of.get(inputs).1;
            input.truncate(place(at, input.len()));
            input.extend(&other[place(from, other.len())..]);
        }
    }
}

/// Inputs that git knows, those written by hand first.
fn kept(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    ["seeds", "corpus"]
        .map(|kind| folder(kind).join(target.name))
        .iter()
        .flat_map(|folder| entries(folder).into_iter().map(|name| folder.join(name)))
        .map(|path| {
            let input = fs::read(&path).unwrap();
            (path, input)
        })
        .collect()
}

fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz").join(kind)
}

/// Names in a folder; none where there is no folder.
fn entries(folder: &PathBuf) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
