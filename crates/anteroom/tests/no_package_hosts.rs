//! Packages are named by name, version and integrity: which host has them is each machine's own affair
//! (ADR 19). So no registry's and no mirror's host stands in this repository.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;

/// Hosts of registries and mirrors, and pages that archives are taken from; in two pieces, so that they
/// do not stand here either.
const HOSTS: [(&str, &str); 18] = [
    ("registry.", "npmjs"),
    ("registry.", "yarnpkg"),
    ("npm.", "pkg.github"),
    ("pypi.", "org"),
    ("python", "hosted.org"),
    ("deb.", "debian.org"),
    ("security.", "debian.org"),
    ("ftp.", "debian.org"),
    ("snapshot.", "debian.org"),
    (".debian.org", "/debian"),
    ("archive.", "ubuntu.com"),
    ("index.", "crates.io"),
    ("static.", "crates.io"),
    ("nodejs.org", "/dist"),
    ("deb.", "nodesource.com"),
    ("/releases/", "download/"),
    ("proxy.", "golang.org"),
    ("ghcr.", "io/"),
];

#[test]
fn no_host_of_packages_stands_in_the_repository() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let listed = Command::new("git").current_dir(&root).args(["ls-files", "-z"]).output().unwrap();
    let names = String::from_utf8(listed.stdout).unwrap();
    let hosts: Vec<String> = HOSTS.iter().map(|(one, two)| format!("{one}{two}")).collect();
    let mut found = Vec::new();
    let mut read = 0;
    for name in names.split_terminator('\0') {
        // Deleted and not committed yet.
        let Ok(content) = std::fs::read(root.join(name)) else { continue };
        read += 1;
        let text = String::from_utf8_lossy(&content).to_lowercase();
        for (number, line) in text.lines().enumerate() {
            let hit = hosts.iter().find(|host| line.contains(host.as_str()));
            found.extend(hit.map(|host| format!("{name}:{}: {host}", number + 1)));
        }
        // npm writes them into a lock file unless it is configured otherwise.
        if name.ends_with("package-lock.json") && text.contains("\"resolved\"") {
            found.push(format!("{name} says where packages are from; see demo/.npmrc"));
        }
    }
    assert!(read > 100, "git listed {read} files");
    assert!(found.is_empty(), "name packages, not where they are:\n{}", found.join("\n"));
}
