//! Which crate may depend on which: ARCHITECTURE.md says so, this holds it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Crate → what it may depend on of ours (all kinds of dependencies count).
const ALLOWED: [(&str, &[&str]); 17] = [
    ("anteroom-session", &[]),
    ("anteroom-guest-protocol", &[]),
    ("anteroom-fail-point", &[]),
    ("anteroom-cpu", &[]),
    ("anteroom-crash", &["anteroom-cpu", "anteroom-guest-protocol", "anteroom-session"]),
    ("anteroom-image", &["anteroom-guest-protocol", "anteroom-provider"]),
    ("anteroom-vault", &[]),
    ("anteroom-provider", &["anteroom-session"]),
    ("anteroom-terminal", &["anteroom-guest-protocol", "anteroom-provider", "anteroom-session"]),
    ("anteroom-guest-link", &["anteroom-guest-protocol"]),
    (
        "anteroom-agent",
        &["anteroom-cpu", "anteroom-crash", "anteroom-guest-link", "anteroom-guest-protocol"],
    ),
    ("anteroom-vm", &["anteroom-fail-point", "anteroom-guest-protocol", "anteroom-session"]),
    ("anteroom-egress", &["anteroom-session"]),
    ("anteroom-media", &["anteroom-guest-protocol", "anteroom-session"]),
    ("anteroom-api", &["anteroom-provider", "anteroom-session"]),
    (
        "anteroom",
        &[
            "anteroom-api",
            "anteroom-cpu",
            "anteroom-crash",
            "anteroom-egress",
            "anteroom-fail-point",
            "anteroom-guest-link",
            "anteroom-guest-protocol",
            "anteroom-image",
            "anteroom-media",
            "anteroom-provider",
            "anteroom-session",
            "anteroom-terminal",
            "anteroom-vault",
            "anteroom-vm",
        ],
    ),
    // Its benchmark boots the golden image without the rest.
    ("xtask", &["anteroom-image", "anteroom-session", "anteroom-vm"]),
];

/// Pure crates take no runtime, clock or file system of others.
const PURE: [&str; 4] =
    ["anteroom-session", "anteroom-guest-protocol", "anteroom-provider", "anteroom-cpu"];

#[test]
fn crates_depend_only_on_what_the_architecture_allows() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ALLOWED.iter().map(|(name, others)| (*name, others.iter().copied().collect())).collect();
    let packages = metadata["packages"].as_array().unwrap();
    assert_eq!(packages.len(), allowed.len(), "a crate is missing in this test's table");
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let may = allowed.get(name).unwrap_or_else(|| panic!("{name} is not in this test's table"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let other = dependency["name"].as_str().unwrap();
            let ours = other.starts_with("anteroom");
            assert!(!ours || may.contains(other), "{name} must not depend on {other}");
            let impure = ["tokio", "nix", "libc", "axum", "sqlx"].contains(&other);
            assert!(
                !(impure && PURE.contains(&name)),
                "{name} is pure and must not depend on {other}"
            );
        }
    }
}
