//! Core dumps that the kernel makes on this machine, compressed as systemd keeps them, and what
//! `anteroom explain core` says of them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::reports::built;
use super::{Outcome, Verdict};

struct Case {
    name: &'static str,
    source: &'static str,
    /// From the file `core` to the file `dump`.
    packs: &'static str,
    cause: Option<&'static str>,
    /// In the sentence, or where it is refused in the error.
    says: &'static [&'static str],
}

const NULL: &str = "int main(void) { *(volatile int *)24 = 1; return 0; }\n";
const ASSERT: &str = "#include <assert.h>\nint main(int tea, char **all) { assert(tea == 7); }\n";

const CASES: [Case; 4] = [
    Case {
        name: "dump-zstd",
        source: NULL,
        packs: "zstd --check -c core > dump",
        cause: Some("bad_memory_access"),
        says: &["wrote to address 0x18, a null pointer", "dump-zstd+0x"],
    },
    Case {
        name: "dump-lz4",
        source: "int main(void) { __builtin_trap(); }\n",
        packs: "lz4 -c core > dump",
        cause: Some("deliberate_trap"),
        says: &["deliberate abort (ud2)", "not a missing CPU feature"],
    },
    Case {
        name: "dump-xz",
        source: ASSERT,
        packs: "xz -c core > dump",
        cause: Some("failed_check"),
        says: &["its C library's message", "Assertion `tea == 7' failed"],
    },
    Case {
        name: "dump-cut",
        source: NULL,
        packs: "zstd --check -c core > whole && head -c 5000 whole > dump",
        cause: None,
        says: &["compressed by zstd and truncated or damaged"],
    },
];

pub fn run(anteroom: &Path, folder: &Path, only: Option<&str>) -> Result<Vec<Outcome>> {
    let cases = CASES.iter().filter(|case| only.is_none_or(|only| case.name.contains(only)));
    cases.map(|case| one(anteroom, folder, case)).collect()
}

fn one(anteroom: &Path, folder: &Path, case: &Case) -> Result<Outcome> {
    built(folder, case.name, case.source, &[])?;
    let script = format!(
        "rm -f core core.* dump; (ulimit -c unlimited; ./{}) 2> /dev/null; \
         mv core.* core 2> /dev/null; {}",
        case.name, case.packs
    );
    let status = Command::new("bash").args(["-c", &script]).current_dir(folder).status()?;
    if !status.success() {
        let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern")?;
        bail!("{} left no core dump here: core_pattern is {}", case.name, pattern.trim());
    }
    let output = Command::new(anteroom)
        .args(["explain", "core", "--json", "dump"])
        .current_dir(folder)
        .output()
        .context("starting `anteroom explain` failed")?;
    let explained: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let sentence = match explained["sentence"].as_str() {
        Some(sentence) => sentence.to_owned(),
        None => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    };
    let right = explained["cause"].as_str() == case.cause
        && case.says.iter().all(|part| sentence.contains(part));
    let verdict = if right { Verdict::Right } else { Verdict::Wrong };
    Ok(Outcome { name: case.name.to_owned(), verdict, sentence, report_ms: None })
}
