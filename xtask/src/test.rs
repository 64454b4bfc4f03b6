//! `cargo xtask test`: all tests, as CI runs them. Rust's runner comes last, so that its summary is
//! the last line.

use std::process::Command;

use anyhow::Result;

use crate::{build, contract, demo, fuzz, machine, shell};

/// With it the host binary has places where tests let it fail or die; no other build has them.
const FAIL_POINTS: &str = "anteroom/fail-points";

/// All tests.
#[derive(clap::Args)]
pub struct Options {
    /// What takes minutes is left out: virtual machines, desktops, browsers, the API's contract,
    /// fuzzing.
    #[arg(long, conflicts_with = "only")]
    fast: bool,
    /// One part only.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Arguments for `cargo nextest run`, after `--`.
    #[arg(last = true)]
    nextest: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The viewer's and the demo's own tests, in Node and in Chromium.
    Web,
    /// One whole sign-in by each driver, noVNC on a desktop, and a sign-in behind each TLS proxy.
    SignIns,
    /// The API against its OpenAPI document.
    Contract,
    /// Every fuzz target for a moment, from its kept corpus.
    Fuzz,
    /// Formatting and lints.
    Lint,
    /// Everything in Rust.
    Rust,
}

impl Part {
    /// The order they run in. Rust's is the last, so that its summary is the last line.
    const ALL: [Self; 6] =
        [Self::Web, Self::SignIns, Self::Contract, Self::Fuzz, Self::Lint, Self::Rust];
    const FAST: [Self; 2] = [Self::Lint, Self::Rust];
}

/// Prepares the machine, builds, lints and tests everything.
pub fn run(options: &Options) -> Result<()> {
    machine::prepare()?;
    let anteroom = build::everything()?;
    let parts: &[Part] = match (&options.only, options.fast) {
        (Some(part), _) => std::slice::from_ref(part),
        (None, true) => &Part::FAST,
        (None, false) => &Part::ALL,
    };
    if !options.fast {
        demo::build_image(&anteroom, false)?;
        build::install_node_packages(&shell::root().join("demo"))?;
    }
    for part in parts {
        match part {
            Part::Web => web()?,
            Part::SignIns => {
                for driver in ["host", "qemu"] {
                    demo::check(&anteroom, driver)?;
                }
                demo::check_vnc(&anteroom)?;
                for proxy in demo::Proxy::ALL {
                    demo::check_behind(&anteroom, proxy)?;
                }
            }
            Part::Contract => contract::check(&anteroom)?,
            Part::Fuzz => fuzz::short()?,
            Part::Lint => lint()?,
            Part::Rust => {
                let mut command = nextest()?;
                if options.fast {
                    command.args(["--profile", "fast"]);
                }
                shell::run(command.args(&options.nextest))?;
            }
        }
    }
    Ok(())
}

fn web() -> Result<()> {
    for folder in ["viewer", "demo"] {
        let folder = shell::root().join(folder);
        build::install_node_packages(&folder)?;
        shell::run(build::npm(&folder).args(["test", "--silent"]))?;
    }
    shell::run(build::npm(&shell::root().join("viewer")).args(["run", "--silent", "lint"]))
}

fn lint() -> Result<()> {
    // A lock file of its own, which a new dependency of a crate that is fuzzed makes stale.
    let fuzz = ["fetch", "--locked", "--quiet", "--manifest-path", "fuzz/Cargo.toml"];
    shell::run(build::cargo().args(fuzz))?;
    shell::run(build::cargo().args(["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--locked", "--workspace", "--all-targets", "--features", FAIL_POINTS];
    shell::run(build::cargo().args(clippy).args(["--", "-D", "warnings"]))
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
    command.args(["nextest", "run", "--locked", "--workspace", "--features", FAIL_POINTS]);
    Ok(command)
}
