//! `cargo xtask fuzz`: libFuzzer over everything that reads what a stranger wrote, on the stable
//! compiler. `crates/fuzz-targets` is what is fuzzed, `fuzz/seeds/` are inputs written by hand,
//! `fuzz/corpus/` inputs that were found and are kept.

mod corpus;
mod run;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::builder::PossibleValuesParser;

use run::Outcome;
use xtask::{build, interrupt, machine, shell};

/// Fuzzing of what reads foreign bytes.
#[derive(clap::Args)]
pub struct Options {
    /// How long each target runs.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Afterwards the best of what was found goes into the corpus in git.
    #[arg(long)]
    keep: bool,
    /// Which targets; without any, all.
    #[arg(value_name = "TARGET", value_parser = PossibleValuesParser::new(TARGETS.map(|t| t.name)))]
    targets: Vec<String>,
}

/// What is fuzzed.
struct Target {
    /// As in `crates/fuzz-targets`.
    name: &'static str,
    /// The longest input tried, in bytes: some more than where its reader's interesting limits are.
    max_len: usize,
}

const TARGETS: [Target; 15] = [
    Target { name: "guest_frames", max_len: 1024 },
    Target { name: "guest_hello", max_len: 4 * 1024 },
    Target { name: "guest_link", max_len: 16 * 1024 },
    Target { name: "guest_messages", max_len: 8 * 1024 },
    Target { name: "guest_requests", max_len: 16 * 1024 },
    Target { name: "provider_file", max_len: 4 * 1024 },
    Target { name: "terminal", max_len: 16 * 1024 },
    Target { name: "core_dump", max_len: 16 * 1024 },
    Target { name: "cpu_template", max_len: 8 * 1024 },
    Target { name: "death_record", max_len: 4 * 1024 },
    Target { name: "elf_file", max_len: 16 * 1024 },
    Target { name: "recipe_file", max_len: 4 * 1024 },
    Target { name: "viewer_input", max_len: 16 * 1024 },
    Target { name: "viewer_offer", max_len: 16 * 1024 },
    Target { name: "viewer_packets", max_len: 2 * 1024 },
];

/// Environment variable that names the target to `fuzz/fuzz.rs`.
const TARGET_ENV: &str = "FUZZ_TARGET";

/// Given to the compiler explicitly: then flags are for the targets only and not for build scripts.
const HOST: &str = "x86_64-unknown-linux-gnu";

/// What libFuzzer steers by: edges, and what is compared with what. It is what `cargo fuzz` uses
/// without a sanitizer, and stable.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Builds the targets and runs them one after the other.
pub fn run(options: &Options) -> Result<()> {
    interrupt::take_over()?;
    machine::prepare()?;
    let wanted = |target: &&Target| {
        options.targets.is_empty() || options.targets.iter().any(|name| name == target.name)
    };
    let targets: Vec<&Target> = TARGETS.iter().filter(wanted).collect();
    let program = build()?;
    let found = work_folder().join("corpus");
    run_all(&targets, &program, &found, options.seconds)?;
    if options.keep {
        for target in targets {
            let kept = corpus::keep(target, &program, &found.join(target.name))?;
            println!("{:16} {kept} inputs are kept in fuzz/corpus/{0}", target.name);
        }
    }
    Ok(())
}

fn work_folder() -> PathBuf {
    shell::root().join("target/fuzz")
}

/// Builds the program that has all targets, and returns its path.
fn build() -> Result<PathBuf> {
    eprintln!("Building the fuzz targets …");
    let mut cargo = build::cargo();
    cargo
        .env("RUSTFLAGS", RUSTFLAGS)
        .args(["build", "--locked", "--bins", "--manifest-path", "fuzz/Cargo.toml"])
        .args(["--target", HOST, "--target-dir", "target/fuzz"]);
    shell::run(&mut cargo)?;
    Ok(work_folder().join(HOST).join("debug/fuzz"))
}

/// Every target gets its time, also after one has failed.
fn run_all(targets: &[&Target], program: &Path, found: &Path, seconds: u64) -> Result<()> {
    let mut failures = Vec::new();
    for target in targets {
        let Outcome { runs, corpus, failure } = run::run(target, program, found, seconds)?;
        let result = if failure.is_some() { "FAILED" } else { "ok" };
        println!("{:16} {runs:>10} runs, {corpus:>5} inputs in the corpus, {result}", target.name);
        failures.extend(failure);
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    Ok(())
}

/// Where inputs of a target lie that git knows: those of an end user first.
fn known(target: &Target) -> [PathBuf; 2] {
    ["seeds", "corpus"].map(|kind| shell::root().join("fuzz").join(kind).join(target.name))
}

fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("making {} failed", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_folder_of_seeds() {
        let mut names = TARGETS.map(|target| target.name);
        names.sort_unstable();
        let folder = shell::root().join("fuzz/seeds");
        let mut folders: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        folders.sort();
        assert_eq!(names.to_vec(), folders);
    }
}
