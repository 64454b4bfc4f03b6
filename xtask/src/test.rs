//! `cargo xtask test`: all tests, as CI runs them. Rust's runner comes last, so that its summary is
//! the last line.

use std::process::Command;

use anyhow::Result;

use crate::{build, demo, machine, shell};

/// All tests.
#[derive(clap::Args)]
pub struct Options {
    /// Arguments for `cargo nextest run`, after `--`.
    #[arg(last = true)]
    nextest: Vec<String>,
}

/// Prepares the machine, builds, lints and tests everything.
pub fn run(options: &Options) -> Result<()> {
    machine::prepare()?;
    let anteroom = build::everything()?;
    demo::build_image(&anteroom, false)?;
    let root = shell::root();
    for folder in ["viewer", "demo"] {
        let folder = root.join(folder);
        build::install_node_packages(&folder)?;
        shell::run(build::npm(&folder).args(["test", "--silent"]))?;
    }
    shell::run(build::npm(&root.join("viewer")).args(["run", "--silent", "lint"]))?;
    // One whole sign-in by each driver, with a real browser on both ends.
    for driver in ["host", "qemu"] {
        demo::check(&anteroom, driver)?;
    }
    shell::run(build::cargo().args(["fmt", "--all", "--check"]))?;
    shell::run(build::cargo().args([
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    shell::run(nextest()?.args(&options.nextest))
}

/// nextest, installed when it is missing.
fn nextest() -> Result<Command> {
    let there = Command::new("cargo")
        .args(["nextest", "--version"])
        .output()
        .is_ok_and(|o| o.status.success());
    if !there {
        eprintln!("Installing cargo-nextest (once, some minutes) …");
        shell::run(build::cargo().args(["install", "--locked", "cargo-nextest"]))?;
    }
    let mut command = build::cargo();
    command.args(["nextest", "run", "--locked", "--workspace"]);
    Ok(command)
}
