//! Agent, viewer, host binary: in this order, since the last carries the others.
//!
//! There are two of each program. Users, the demo and the benchmarks have the release build; the tests
//! have the development build that their own crates are linked with, so that neither is built for the
//! other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::shell;

/// The machine the guest's binary is for: the oldest x86-64.
const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

/// The prefixes of the variables in which cargo describes itself to programs that it runs. Build scripts look at
/// them, and would run anew for each program that starts cargo.
const OF_ITSELF: [&str; 4] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];

/// With it the host binary has places where tests let it fail or die; no other build has them.
pub const FAIL_POINTS: &str = "anteroom/fail-points";

/// What to build.
#[derive(clap::Args)]
pub struct Options {
    /// The guest agent and the viewer alone, which the development build of the host binary carries: what
    /// `cargo nextest run` needs before it.
    #[arg(long)]
    carried: bool,
}

#[derive(Clone, Copy)]
enum Profile {
    Development,
    Release,
}

impl Profile {
    /// As cargo names it to build scripts.
    const fn folder(self) -> &'static str {
        match self {
            Self::Development => "debug",
            Self::Release => "release",
        }
    }
}

/// Builds what users have, or what the tests' host binary carries.
pub fn run(options: &Options) -> Result<()> {
    if options.carried {
        agent(Profile::Development)?;
        return viewer();
    }
    for_users().map(|_| ())
}

/// Builds all three as users have them; returns the path of the host binary.
pub fn for_users() -> Result<PathBuf> {
    agent(Profile::Release)?;
    viewer()?;
    host()
}

/// Builds all three and every test, and runs none; returns the path of the host binary.
pub fn for_tests() -> Result<PathBuf> {
    agent(Profile::Development)?;
    viewer()?;
    eprintln!("Building the tests, and the host binary that they use …");
    shell::run(nextest()?.arg("--no-run"))?;
    Ok(shell::root().join("target/debug/anteroom"))
}

/// The guest agent of a profile: static, and without symbols, since it rides in every VM's initramfs.
/// It comes to lie where `crates/anteroom/build.rs` looks for it.
fn agent(profile: Profile) -> Result<()> {
    eprintln!("Building the guest agent …");
    let mut build = cargo();
    // Given to the compiler for an explicit target, the flag is not for build scripts and macros.
    build.env("RUSTFLAGS", "-C target-feature=+crt-static").args(["build", "--locked"]);
    build.args(["--target", GUEST_TARGET]);
    // As xtask itself is, the tests' agent is built without `--package`: what it shares with the other
    // programs of that profile is built once.
    let built = match profile {
        Profile::Development => {
            shell::run(build.args(["--bin", "anteroom-agent"]))?;
            "debug"
        }
        Profile::Release => {
            shell::run(build.args(["--profile", "guest", "--package", "anteroom-agent"]))?;
            "guest"
        }
    };
    let target = shell::root().join("target");
    let built = target.join(GUEST_TARGET).join(built).join("anteroom-agent");
    let folder = target.join("agent").join(profile.folder());
    fs::create_dir_all(&folder).with_context(|| format!("making {} failed", folder.display()))?;
    let (stripped, carried) = (folder.join("anteroom-agent.new"), folder.join("anteroom-agent"));
    shell::run(Command::new("objcopy").arg("--strip-all").arg(built).arg(&stripped))?;
    // What is the same keeps its time, or the host binary would be built anew.
    if fs::read(&carried).ok() == Some(fs::read(&stripped).context("reading the agent failed")?) {
        return fs::remove_file(&stripped).context("removing the agent that is the same failed");
    }
    fs::rename(&stripped, &carried).context("putting the agent into place failed")
}

/// The viewer, unless it was built from these very files.
pub fn viewer() -> Result<()> {
    let folder = shell::root().join("viewer");
    let sources = digest_of_tracked(&folder)?;
    let stamp = folder.join("dist/.built-from");
    if fs::read_to_string(&stamp).is_ok_and(|built| built == sources) {
        return Ok(());
    }
    eprintln!("Building the viewer …");
    install_node_packages(&folder)?;
    shell::run(npm(&folder).args(["run", "--silent", "build"]))?;
    fs::write(&stamp, sources).context("marking the viewer as built failed")
}

/// The host binary of the release profile, with its symbols in a file beside it: a debugger, and the
/// backtrace of a panic, find them there.
fn host() -> Result<PathBuf> {
    eprintln!("Building the host binary …");
    shell::run(cargo().args(["build", "--locked", "--release", "--package", "anteroom"]))?;
    let binary = shell::root().join("target/release/anteroom");
    let symbols = binary.with_extension("debug");
    let stripped = binary.with_extension("stripped");
    let objcopy = || Command::new("objcopy");
    shell::run(objcopy().arg("--only-keep-debug").arg(&binary).arg(&symbols))?;
    let mut link = std::ffi::OsString::from("--add-gnu-debuglink=");
    link.push(&symbols);
    shell::run(objcopy().arg("--strip-all").arg(link).arg(&binary).arg(&stripped))?;
    // In the place of cargo's link to its own file, which keeps the symbols.
    fs::rename(&stripped, &binary).context("putting the stripped host binary into place failed")?;
    Ok(binary)
}

/// nextest over all crates, installed when it is missing.
pub fn nextest() -> Result<Command> {
    if shell::output(cargo().args(["nextest", "--version"])).is_err() {
        eprintln!("Installing cargo-nextest (once, some minutes) …");
        shell::run(cargo().args(["install", "--locked", "cargo-nextest"]))?;
    }
    let mut command = cargo();
    command.args(["nextest", "run", "--locked", "--workspace", "--features", FAIL_POINTS]);
    Ok(command)
}

/// The golden image.
pub struct GoldenImage {
    /// Milliseconds its build took; 0 when it was there.
    pub took_ms: u64,
    /// Its folder.
    pub dir: PathBuf,
}

/// Builds the golden image unless it is there.
pub fn golden_image(anteroom: &Path, show_progress: bool) -> Result<GoldenImage> {
    let started = Instant::now();
    let mut command = Command::new(anteroom);
    command.current_dir(shell::root()).args(["image", "build", "images/demo.toml", "--json"]);
    let output =
        if show_progress { command.stderr(std::process::Stdio::inherit()) } else { &mut command }
            .output()
            .context("starting `anteroom image build` failed")?;
    if !output.status.success() {
        // With progress shown, its complaint is on the terminal already.
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("the golden image was not built\n{}", said.trim());
    }
    let built: Value =
        serde_json::from_slice(&output.stdout).context("reading what was built failed")?;
    let cached = built["cached"].as_bool().unwrap_or(false);
    let took_ms = if cached { 0 } else { u64::try_from(started.elapsed().as_millis())? };
    let dir = built["dir"].as_str().context("the built image has no folder")?.into();
    Ok(GoldenImage { took_ms, dir })
}

/// `npm ci`, once for each lock file.
pub fn install_node_packages(folder: &Path) -> Result<()> {
    let lock =
        fs::read(folder.join("package-lock.json")).context("reading package-lock.json failed")?;
    let digest = hex::encode(Sha256::digest(lock));
    let stamp = folder.join("node_modules/.installed-from");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == digest) {
        return Ok(());
    }
    shell::run(npm(folder).args(["ci", "--silent", "--no-audit", "--no-fund"]))?;
    fs::write(&stamp, digest).context("marking the packages as installed failed")
}

/// `npm` in a folder.
pub fn npm(folder: &Path) -> Command {
    let mut command = Command::new("npm");
    command.current_dir(folder);
    command
}

/// `cargo` in the workspace, as this process was started by.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(shell::root());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if OF_ITSELF.iter().any(|begin| text.starts_with(begin)) {
            command.env_remove(&name);
        }
    }
    command
}

/// The program that runs Anteroom as its users do (`bench/`), built when it must be, doing `what`.
pub fn bench(what: &str) -> Command {
    let mut command = cargo();
    // As xtask itself is: without `--package`, see .cargo/config.toml.
    command.args(["run", "--locked", "--bin", "bench", "--", what]);
    command
}

/// One hash over the files that git knows in a folder, as they are now.
fn digest_of_tracked(folder: &Path) -> Result<String> {
    let list = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let list = shell::output(Command::new("git").current_dir(folder).args(list))?;
    let mut hash = Sha256::new();
    for name in list.lines() {
        hash.update(name.as_bytes());
        // A file deleted and not committed yet is part of the state too.
        hash.update(fs::read(folder.join(name)).unwrap_or_default());
    }
    Ok(hex::encode(hash.finalize()))
}
