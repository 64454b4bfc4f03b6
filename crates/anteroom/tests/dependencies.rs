//! Which crate depends on which of ours: the table of ARCHITECTURE.md says it, and this holds the
//! crates and the table to each other.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Crate → what it depends on of ours; all without `anteroom-`.
type Dependencies = BTreeMap<String, BTreeSet<String>>;

/// Pure crates take no runtime, sockets or database of others, and none of ours that does.
const PURE: [&str; 6] = ["session", "sign-in", "crash", "guest-protocol", "provider", "cpu"];
const IMPURE: [&str; 5] = ["tokio", "nix", "libc", "axum", "sqlx"];

#[test]
fn crates_depend_on_what_the_architecture_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ARCHITECTURE.md");
    let written = table_of(&std::fs::read_to_string(page).unwrap());
    let real: Dependencies = packages(|_| true)
        .into_iter()
        .map(|(name, all)| (name, all.iter().filter_map(ours).collect()))
        .collect();
    assert_eq!(
        real.keys().collect::<Vec<_>>(),
        written.keys().collect::<Vec<_>>(),
        "left: the crates there are; right: those of the table in ARCHITECTURE.md"
    );
    for (name, depends_on) in real {
        assert_eq!(
            depends_on, written[&name],
            "left: what {name} depends on; right: what ARCHITECTURE.md says"
        );
    }
}

#[test]
fn pure_crates_stay_pure() {
    let all = packages(|dependency| dependency["kind"] != "dev");
    for name in PURE {
        let is_impure = |other: &&String| match ours(other) {
            Some(other) => !PURE.contains(&other.as_str()),
            None => IMPURE.contains(&other.as_str()),
        };
        let impure: Vec<_> = all[name].iter().filter(is_impure).collect();
        assert!(impure.is_empty(), "{name} is pure and must not depend on {impure:?}");
    }
}

/// `anyhow` is for binaries and for what tests share.
#[test]
fn libraries_have_errors_of_their_own() {
    let all = packages(|dependency| dependency["kind"] != "dev");
    let users = all.iter().filter(|(_, others)| others.iter().any(|other| other == "anyhow"));
    let users: Vec<&str> = users.map(|(name, _)| name.as_str()).collect();
    assert_eq!(users, ["agent", "anteroom", "bench", "testkit", "xtask"]);
}

/// They speak by `node-protocol` alone, also when something else is between them.
#[test]
fn controller_and_node_do_not_use_each_other() {
    let all = packages(|_| true);
    for (name, others) in [
        ("controller", &["node", "runner", "runner-protocol", "vm"][..]),
        ("node", &["controller", "runner", "api"]),
        ("runner", &["controller", "node", "api"]),
    ] {
        let mut reached = BTreeSet::new();
        let mut open = vec![name.to_owned()];
        while let Some(next) = open.pop() {
            let of_ours = all[&next].iter().filter_map(ours);
            open.extend(of_ours.filter(|one| reached.insert(one.clone())));
        }
        let wrong: Vec<_> = others.iter().filter(|other| reached.contains(**other)).collect();
        assert!(wrong.is_empty(), "{name} reaches {wrong:?}");
    }
}

#[test]
fn the_table_is_read_as_an_end_user_reads_it() {
    let page = "## What may depend on what\n\n| crate | depends on, of ours |\n| --- | --- |\n\
                | `a`, `b` (a word), `agent` | nothing |\n| `c` | `a`, `b` (why) |\n\
                | `anteroom` | every one of these but `agent`, for a reason |\n| `xtask` | `c` |\n\
                \n## What else\n\n| `d` | `a` |\n";
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let expected = [
        ("a", set(&[])),
        ("agent", set(&[])),
        ("anteroom", set(&["a", "b", "c"])),
        ("b", set(&[])),
        ("c", set(&["a", "b"])),
        ("xtask", set(&["c"])),
    ];
    assert_eq!(table_of(page), expected.map(|(name, all)| (name.to_owned(), all)).into());
}

/// The table of ARCHITECTURE.md: names are in backquotes; "every one of these but" are the crates of
/// the rows above without those named after it.
fn table_of(page: &str) -> Dependencies {
    let section = page.split("\n## ").find(|section| section.contains("What may depend on what\n"));
    let rows = section.expect("ARCHITECTURE.md says what may depend on what").lines();
    let mut table = Dependencies::new();
    for row in rows.filter(|row| row.starts_with("| `")) {
        let (crates, others) = row.trim_matches('|').split_once('|').unwrap();
        let mut depends_on = quoted(others);
        if others.trim().starts_with("every one of these but") {
            let above = table.keys().cloned().collect::<BTreeSet<_>>();
            depends_on = above.difference(&depends_on).cloned().collect();
        } else {
            assert_eq!(depends_on.is_empty(), others.trim() == "nothing", "{row}");
        }
        for name in quoted(crates) {
            let before = table.insert(name.clone(), depends_on.clone());
            assert!(before.is_none(), "{name} is twice in the table of ARCHITECTURE.md");
        }
    }
    table
}

/// Each second piece between backquotes.
fn quoted(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The dependencies of each crate of the workspace that count, by the names of their packages.
fn packages(counts: impl Fn(&serde_json::Value) -> bool) -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let name_of = |it: &serde_json::Value| it["name"].as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let name = name_of(package);
            let short = ours(&name).unwrap_or(name);
            let all = package["dependencies"].as_array().unwrap().iter();
            (short, all.filter(|one| counts(one)).map(name_of).collect())
        })
        .collect()
}

/// A crate of ours, by its short name.
fn ours(name: impl AsRef<str>) -> Option<String> {
    let name = name.as_ref();
    let known = name == "anteroom" || name == "xtask";
    name.strip_prefix("anteroom-").or(known.then_some(name)).map(str::to_owned)
}
