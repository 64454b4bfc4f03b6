//! `anteroom explain core`, of a dump that the kernel made of a real program.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::{Command, Output};

/// The program fails a check of its own, with its output closed.
const ABORTS: &str = r#"
#include <assert.h>
#include <unistd.h>
int main(int count, char **words) { close(2); assert(count == 7); return 0; }
"#;

fn run(folder: &Path, script: &str) -> Output {
    Command::new("sh").arg("-c").arg(script).current_dir(folder).output().unwrap()
}

/// The kernel's dump of a program that aborts, as `dump` in this folder.
fn dump_into(folder: &Path) {
    std::fs::write(folder.join("aborts.c"), ABORTS).unwrap();
    assert!(run(folder, "gcc -g0 -o aborts aborts.c").status.success());
    run(folder, "ulimit -c unlimited; ./aborts");
    let made = run(folder, "mv core* dump").status.success();
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    assert!(made, "no dump was made here: /proc/sys/kernel/core_pattern is {pattern}");
}

fn explained(folder: &Path, file: &str) -> serde_json::Value {
    let output = Command::new(env!("CARGO_BIN_EXE_anteroom"))
        .args(["explain", "core", "--json", file])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn what_glibc_aborted_with_is_read_from_a_dump_also_a_compressed_one() {
    let folder = tempfile::tempdir().unwrap();
    dump_into(folder.path());
    let plain = explained(folder.path(), "dump");
    assert_eq!(
        plain["sentence"],
        "aborts aborted itself (SIGABRT); its C library's message: aborts: \
         aborts.c:4: main: Assertion `count == 7' failed."
    );
    assert_eq!(plain["cause"], "failed_check");
    for compressor in ["zstd --check", "lz4", "xz"] {
        assert!(run(folder.path(), &format!("{compressor} -c dump > packed")).status.success());
        assert_eq!(explained(folder.path(), "packed"), plain, "{compressor}");
    }
}
