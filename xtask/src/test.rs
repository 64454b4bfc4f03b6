//! `cargo xtask test`: all tests, as CI runs them. Rust's runner comes last, so that its summary is
//! the last line.

use std::path::PathBuf;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};

use xtask::{build, machine, shell};

use crate::fuzz;

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
    /// One whole sign-in by each driver, noVNC on a desktop, a sign-in over a company's own host, and
    /// one behind each TLS proxy.
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
    /// The order they run in, after that of the web, which runs beside the building. Rust's is the
    /// last, so that its summary is the last line.
    const ALL: [Self; 5] = [Self::SignIns, Self::Contract, Self::Fuzz, Self::Lint, Self::Rust];
    const FAST: [Self; 2] = [Self::Lint, Self::Rust];
}

/// Prepares the machine, builds, lints and tests everything.
pub fn run(options: &Options) -> Result<()> {
    machine::prepare()?;
    let parts: &[Part] = match (&options.only, options.fast) {
        (Some(part), _) => std::slice::from_ref(part),
        (None, true) => &Part::FAST,
        (None, false) => &Part::ALL,
    };
    if options.only.is_none() && !options.fast {
        web_beside_building()?;
    }
    for part in parts {
        match part {
            Part::Web => web(shell::run)?,
            Part::SignIns => shell::run(build::bench("sign-ins").arg(prepare_sign_ins()?))?,
            Part::Contract => shell::run(build::bench("contract").arg(build::for_tests()?))?,
            Part::Fuzz => fuzz::short()?,
            Part::Lint => lint()?,
            Part::Rust => rust(options)?,
        }
    }
    Ok(())
}

/// The host binary, the golden image and the demo's programs, which real sign-ins need.
fn prepare_sign_ins() -> Result<PathBuf> {
    let anteroom = build::for_tests()?;
    build::golden_image(&anteroom, false)?;
    build::install_node_packages(&shell::root().join("demo"))?;
    Ok(anteroom)
}

/// The viewer's tests wait for a browser most of the time: what all others need is built meanwhile.
fn web_beside_building() -> Result<()> {
    build::viewer()?;
    thread::scope(|scope| {
        let web = scope.spawn(|| web(shell::run_beside));
        let built = build::for_tests();
        web.join().ok().context("the thread of the web's tests panicked")??;
        built.map(|_| ())
    })
}

fn web(run: fn(&mut Command) -> Result<()>) -> Result<()> {
    build::viewer()?;
    let folders = ["viewer", "demo"].map(|folder| shell::root().join(folder));
    let [viewer, _] = &folders;
    for folder in &folders {
        build::install_node_packages(folder)?;
    }
    run(build::npm(viewer).args(["run", "--silent", "lint"]))?;
    for folder in &folders {
        run(build::npm(folder).args(["test", "--silent"]))?;
    }
    run(build::npm(viewer).args(["run", "--silent", "test:browser"]))
}

fn lint() -> Result<()> {
    // A lock file of its own, which a new dependency of a crate that is fuzzed makes stale.
    let fuzz = ["fetch", "--locked", "--quiet", "--manifest-path", "fuzz/Cargo.toml"];
    shell::run(build::cargo().args(fuzz))?;
    shell::run(build::cargo().args(["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--locked", "--workspace", "--all-targets"];
    let features = ["--features", build::FAIL_POINTS, "--", "-D", "warnings"];
    shell::run(build::cargo().args(clippy).args(features))
}

fn rust(options: &Options) -> Result<()> {
    if options.fast {
        build::for_tests()?;
    } else {
        // Tests boot VMs of the golden image.
        prepare_sign_ins()?;
    }
    let mut command = build::nextest()?;
    // Most tests wait: for a process, a silence, a page. `-- --test-threads N` counts more.
    let processors = thread::available_parallelism().map_or(1, usize::from);
    command.env("NEXTEST_TEST_THREADS", (2 * processors).to_string());
    if options.fast {
        command.args(["--profile", "fast"]);
    }
    shell::run(command.args(&options.nextest))
}
