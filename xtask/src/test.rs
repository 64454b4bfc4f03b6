//! `cargo xtask test`: all tests, as CI runs them, the fastest first. Rust's runner comes
//! last, so that its summary is the last line.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use xtask::{build, machine, shell};

/// All tests.
#[derive(clap::Args)]
pub struct Options {
    /// Lints and the tests of single crates alone: no controller, virtual machine, desktop or browser.
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
    /// Whole sign-ins with KVM, on a machine that QEMU emulates: by QEMU, and by Firecracker where that is
    /// installed.
    Nested,
    /// The API against its OpenAPI document.
    Contract,
    /// Formatting and lints.
    Lint,
    /// Everything in Rust.
    Rust,
}

/// What needs no controller, and answers in seconds; and the rest.
const SINGLE: &str = "not (package(anteroom) & kind(test))";
const WHOLE: &str = "package(anteroom) & kind(test)";

/// Prepares the machine, builds, lints and tests everything.
pub fn run(options: &Options) -> Result<()> {
    machine::prepare()?;
    let stages = Stages { began: Instant::now() };
    match (options.only, options.fast) {
        (Some(part), _) => only(part, options),
        (None, true) => {
            stages.run("lints", lint)?;
            stages.run("tests of single crates", || {
                build::for_tests()?;
                rust(&["-E", SINGLE], &options.nextest)
            })
        }
        (None, false) => {
            stages.run("building, and the tests of the web", web_beside_building)?;
            stages.run("lints", lint)?;
            stages.run("tests of single crates", || rust(&["-E", SINGLE], &[]))?;
            let anteroom = stages.run("the golden image", prepare_sign_ins)?;
            stages.run("whole sign-ins, and the API's contract", || {
                sign_ins_beside_contract(&anteroom)
            })?;
            stages.run("whole sign-ins with KVM", || nested(&anteroom))?;
            // Without a heading below it: the summary of the runner is the last line.
            stages.begin("tests of the whole program");
            rust(&["-E", WHOLE], &options.nextest)
        }
    }
}

fn only(part: Part, options: &Options) -> Result<()> {
    match part {
        Part::Web => web(shell::run),
        Part::SignIns => sign_ins(&prepare_sign_ins()?),
        Part::Nested => nested(&prepare_sign_ins()?),
        Part::Contract => shell::run(build::bench("contract").arg(build::for_tests()?)),
        Part::Lint => lint(),
        Part::Rust => {
            // Tests boot VMs of the golden image.
            prepare_sign_ins()?;
            rust(&[], &options.nextest)
        }
    }
}

/// Says what is done, how long it took, and how long all has taken.
struct Stages {
    began: Instant,
}

impl Stages {
    fn begin(&self, name: &str) {
        eprintln!("\n== {name} ({} so far)", shown(self.began.elapsed()));
    }

    fn run<T>(&self, name: &str, stage: impl FnOnce() -> Result<T>) -> Result<T> {
        self.begin(name);
        let began = Instant::now();
        let done = stage().with_context(|| format!("{name}, after {}", shown(began.elapsed())))?;
        eprintln!("== {name}: passed in {}", shown(began.elapsed()));
        Ok(done)
    }
}

fn shown(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}

/// The host binary, the golden image and the demo's programs, which real sign-ins need.
fn prepare_sign_ins() -> Result<PathBuf> {
    let anteroom = build::for_tests()?;
    build::golden_image(&anteroom, false)?;
    build::install_node_packages(&shell::root().join("demo"))?;
    Ok(anteroom)
}

fn sign_ins(anteroom: &Path) -> Result<()> {
    shell::run(build::bench("sign-ins").arg(anteroom))
}

/// Alone: what they boot is slow enough.
fn nested(anteroom: &Path) -> Result<()> {
    shell::run(build::bench("sign-ins-nested").arg(anteroom))
}

/// Both wait a good deal, and neither counts what it waits.
fn sign_ins_beside_contract(anteroom: &Path) -> Result<()> {
    let contract = || shell::run_beside(build::bench("contract").arg(anteroom));
    beside(contract, || sign_ins(anteroom))
}

/// The viewer's tests wait for a browser most of the time: what all others need is built meanwhile.
fn web_beside_building() -> Result<()> {
    build::viewer()?;
    beside(|| web(shell::run_beside), || build::for_tests().map(|_| ()))
}

/// Both at once, to the end of both; the failure is that of the first, if both fail.
fn beside(
    first: impl FnOnce() -> Result<()> + Send,
    second: impl FnOnce() -> Result<()>,
) -> Result<()> {
    thread::scope(|scope| {
        let first = scope.spawn(first);
        let second = second();
        first.join().ok().context("a thread of the tests panicked")??;
        second
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

fn rust(arguments: &[&str], more: &[String]) -> Result<()> {
    let mut command = build::nextest()?;
    // Most tests wait: for a process, a silence, a page. `-- --test-threads N` counts more.
    let processors = thread::available_parallelism().map_or(1, usize::from);
    command.env("NEXTEST_TEST_THREADS", (2 * processors).to_string());
    shell::run(command.args(arguments).args(more))
}
