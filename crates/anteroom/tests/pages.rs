//! ARCHITECTURE.md, CONTRIBUTING.md, SECURITY.md and README.md name files that exist.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;

/// Files between backquotes; a page may shorten a path to its last parts, without `src`.
#[test]
fn pages_name_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let listed = Command::new("git").current_dir(&root).arg("ls-files").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let short = listed.replace("/src/", "/");
    let is_there = |path: &str| {
        let end = format!("/{path}");
        listed.lines().chain(short.lines()).any(|file| file == path || file.ends_with(&end))
    };
    let file = regex::Regex::new(r"`([\w./-]+\.(?:rs|ts|mjs|md|py))\b").unwrap();
    for page in ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "README.md"] {
        let text = std::fs::read_to_string(root.join(page)).unwrap();
        let gone: Vec<&str> =
            file.captures_iter(&text).map(|hit| hit.extract::<1>().1[0]).collect();
        let gone: Vec<&str> = gone.into_iter().filter(|path| !is_there(path)).collect();
        assert!(gone.is_empty(), "{page} names files that do not exist: {gone:?}");
    }
}
