//! The shape of the code: sizes, dependencies, and no circles of imports among the files of a crate.
//! How long a function may be is in `clippy.toml`.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;

/// A file or a folder and the lines that its `.rs` files may have together.
const LINES: [(&str, usize); 2] = [("xtask", 1_300), ("crates/runner/src/session.rs", 250)];

/// Of ten files nine are at most so long.
const P90_LINES: usize = 300;

/// Crates of others that a crate of the workspace depends on, for more than its tests and build.
const DIRECT_DEPENDENCIES: usize = 74;

#[test]
fn files_of_a_crate_form_no_circles() {
    let mut wrong = Vec::new();
    for (name, source) in crates() {
        let circles = Files::read(&source).circles();
        if !circles.is_empty() {
            wrong.push(format!("{name} has {circles:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_can_be_read_in_one_sitting() {
    let mut lengths: Vec<_> = ["crates", "bench", "xtask"]
        .iter()
        .flat_map(|folder| rust_files(&root().join(folder)))
        .map(|path| lines(&path))
        .collect();
    lengths.sort_unstable();
    let p90 = lengths[lengths.len() * 9 / 10];
    assert!(p90 <= P90_LINES, "the 90th percentile of files is {p90} lines, over {P90_LINES}");
}

#[test]
fn what_has_a_limit_of_lines_keeps_it() {
    for (path, most) in LINES {
        let path = root().join(path);
        let all: usize = rust_files(&path).iter().map(|path| lines(path)).sum();
        assert!(all > 0, "{} has no Rust file", path.display());
        assert!(all <= most, "{} has {all} lines, over {most}", path.display());
    }
}

#[test]
fn direct_dependencies_do_not_multiply() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let others: BTreeSet<_> = packages
        .flat_map(|package| package["dependencies"].as_array().unwrap())
        .filter(|dependency| dependency["path"].is_null() && dependency["kind"].is_null())
        .map(|dependency| dependency["name"].as_str().unwrap())
        .collect();
    let many = others.len();
    assert!(many <= DIRECT_DEPENDENCIES, "{many} direct dependencies, over {DIRECT_DEPENDENCIES}");
}

#[test]
fn a_circle_is_found_through_groups_and_re_exports() {
    let text = |path: &[&str], text: &str| (module(path), text.to_owned());
    let files = Files::of([
        text(&[], "mod a; mod b; pub use a::{One, Two as Other};"),
        text(&["a"], "use crate::{b::{self, B}, Missing}; // crate::c::C"),
        text(&["b"], "pub use self::deep::Deep; fn f() -> crate::Other { todo!() }"),
        text(&["b", "deep"], "use super::super::c::C;"),
        text(&["c"], "fn f() -> crate::b::Deep { todo!() }"),
    ]);
    assert_eq!(files.circles(), [vec!["a", "b"], vec!["b::deep", "c"]]);
}

/// A file's place in the tree of modules; the crate's root has none.
type Module = Vec<String>;

/// The files of a crate and what each imports of the others.
struct Files {
    imports: BTreeMap<Module, BTreeSet<Module>>,
}

impl Files {
    fn read(source: &Path) -> Self {
        let is_test = |path: &PathBuf| path.ends_with("tests.rs");
        Self::of(rust_files(source).into_iter().filter(|path| !is_test(path)).map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let inside = path.strip_prefix(source).unwrap().with_extension("");
            let mut names: Module =
                inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            names.pop_if(|last| ["mod", "lib", "main"].contains(&last.as_str()));
            // What a file's own tests import is theirs.
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
            (names, code)
        }))
    }

    fn of(files: impl IntoIterator<Item = (Module, String)>) -> Self {
        let comment = Regex::new("//.*").unwrap();
        let files: BTreeMap<Module, String> = files
            .into_iter()
            .map(|(name, text)| (name, comment.replace_all(&text, "").into_owned()))
            .collect();
        let re_exports = re_exports(&files);
        let imports = files.iter().map(|(file, text)| {
            let targets = paths(text).into_iter().map(|path| absolute(file, &path));
            let targets = targets.map(|path| {
                let known = (0..=path.len()).rev().find(|end| files.contains_key(&path[..*end]));
                let (of, inside) = path.split_at(known.unwrap_or(0));
                let item = inside.first().map(|name| (of.to_vec(), name.clone()));
                item.and_then(|item| re_exports.get(&item).cloned()).unwrap_or(of.to_vec())
            });
            // What a parent has for its children is no import of a file beside them.
            let targets = targets.filter(|target| !file.starts_with(target));
            (file.clone(), targets.collect())
        });
        Self { imports: imports.collect() }
    }

    /// Files that reach each other, by their names.
    fn circles(&self) -> Vec<Vec<String>> {
        let reached: BTreeMap<_, _> =
            self.imports.keys().map(|file| (file, self.reached_from(file))).collect();
        let circles: BTreeSet<Vec<String>> = reached
            .iter()
            .filter(|(file, all)| all.contains(**file))
            .map(|(file, all)| {
                let back = |other: &&&Module| reached[**other].contains(*file);
                all.iter().filter(back).map(|other| other.join("::")).collect()
            })
            .collect();
        circles.into_iter().collect()
    }

    fn reached_from(&self, file: &Module) -> BTreeSet<&Module> {
        let mut reached = BTreeSet::new();
        let mut open: Vec<_> = self.imports[file].iter().collect();
        while let Some(next) = open.pop() {
            if reached.insert(next) {
                open.extend(&self.imports[next]);
            }
        }
        reached
    }
}

/// (file, name) → the file whose name it is, of `pub use` of a file's own children.
fn re_exports(files: &BTreeMap<Module, String>) -> BTreeMap<(Module, String), Module> {
    let public =
        Regex::new(r"pub(?:\([^)]*\))? use (?:self::)?((?:\w+::)+(?:\{[^}]*\}|\w+))").unwrap();
    let mut all = BTreeMap::new();
    for (file, text) in files {
        for found in public.captures_iter(text) {
            for (path, name) in expanded(&[], &found[1]) {
                let target = [file.clone(), path[..path.len() - 1].to_vec()].concat();
                if files.contains_key(&target) {
                    all.insert((file.clone(), name), target);
                }
            }
        }
    }
    all
}

/// All paths that begin with `crate`, `self` or `super`, groups taken apart.
fn paths(text: &str) -> Vec<Module> {
    let begin = Regex::new(r"\b(?:crate|self|super)::").unwrap();
    let mut paths = Vec::new();
    let mut from = 0;
    while let Some(found) = begin.find_at(text, from) {
        let rest = &text[found.start()..];
        let mut depth = 0_i32;
        let end = rest.find(|letter: char| {
            depth += i32::from(letter == '{') - i32::from(letter == '}');
            let is_inside = depth > 0 || letter == '}' && depth == 0;
            !is_inside && letter != ':' && letter != '_' && !letter.is_alphanumeric()
        });
        let path = &rest[..end.unwrap_or(rest.len())];
        paths.extend(expanded(&[], path).into_iter().map(|(path, _)| path));
        from = found.start() + path.len().max(1);
    }
    paths
}

/// `a::{b, c::{d as e}}` as `a::b` and `a::c::d`, each with the name that it has here.
fn expanded(before: &[String], path: &str) -> Vec<(Module, String)> {
    let path = path.trim();
    let split = |text: &str| -> Module {
        text.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    if let Some((outside, group)) = path.split_once('{') {
        let before = [before, &split(outside)].concat();
        let group = group.rsplit_once('}').map_or(group, |(group, _)| group);
        let mut depth = 0_i32;
        let parts = group.split(|letter: char| {
            depth += i32::from(letter == '{') - i32::from(letter == '}');
            letter == ',' && depth == 0
        });
        return parts
            .filter(|part| !part.trim().is_empty())
            .flat_map(|part| expanded(&before, part))
            .collect();
    }
    let (path, name) = path.split_once(" as ").unwrap_or((path, ""));
    let path = [before, &split(path)].concat();
    let name = if name.is_empty() { path.last().cloned().unwrap_or_default() } else { name.into() };
    vec![(path, name)]
}

/// A path from the crate's root.
fn absolute(file: &Module, path: &[String]) -> Module {
    let mut all = if path[0] == "crate" { Module::new() } else { file.clone() };
    for part in path {
        match part.as_str() {
            "crate" | "self" => {}
            "super" => drop(all.pop()),
            _ => all.push(part.clone()),
        }
    }
    all
}

fn module(path: &[&str]) -> Module {
    path.iter().map(|part| (*part).to_owned()).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Name and sources of each crate.
fn crates() -> Vec<(String, PathBuf)> {
    let below = std::fs::read_dir(root().join("crates")).unwrap();
    let mut all: Vec<_> = below.map(|entry| entry.unwrap().path()).collect();
    all.extend(["bench", "xtask"].map(|name| root().join(name)));
    let named =
        |path: PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), path.join("src"));
    all.into_iter().map(named).collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    if folder.is_file() {
        return vec![folder.to_owned()];
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).unwrap().lines().count()
}
