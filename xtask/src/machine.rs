//! What this machine must have, and how it gets it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// What a package is recognised by.
enum Sign {
    Program(&'static str),
    PkgConfig(&'static str),
    PythonModule(&'static str),
}

/// Debian 12 and 13 name these packages alike.
const NEEDED: &[(Sign, &str)] = &[
    (Sign::Program("qemu-system-x86_64"), "qemu-system-x86"),
    (Sign::Program("mmdebstrap"), "mmdebstrap"),
    (Sign::Program("mkfs.erofs"), "erofs-utils"),
    (Sign::Program("pkg-config"), "pkg-config"),
    (Sign::PkgConfig("vpx"), "libvpx-dev"),
    (Sign::Program("gcc"), "gcc"),
    // For the release build, whose symbols are kept apart.
    (Sign::Program("objcopy"), "binutils"),
    // For libFuzzer.
    (Sign::Program("g++"), "g++"),
    (Sign::Program("age"), "age"),
    // The host driver, for tests and benchmarks at native speed.
    (Sign::Program("Xvnc"), "tigervnc-standalone-server"),
    (Sign::Program("openbox"), "openbox"),
    (Sign::Program("chromium"), "chromium"),
    (Sign::Program("certutil"), "libnss3-tools"),
    (Sign::Program("python3"), "python3"),
    // For the tests of what programs open addresses with.
    (Sign::Program("xdg-open"), "xdg-utils"),
    (Sign::Program("gio"), "libglib2.0-bin"),
    (Sign::Program("sensible-browser"), "sensible-utils"),
    // For those of the keyring.
    (Sign::Program("dbus-run-session"), "dbus-x11"),
    (Sign::Program("gnome-keyring-daemon"), "gnome-keyring"),
    (Sign::Program("secret-tool"), "libsecret-tools"),
    // For those of compressed core dumps.
    (Sign::Program("zstd"), "zstd"),
    (Sign::Program("lz4"), "lz4"),
    (Sign::Program("xz"), "xz-utils"),
    // For the tests: Debian keeps it apart from its Python.
    (Sign::PythonModule("ensurepip"), "python3-venv"),
];

/// Installs what is missing as root; otherwise fails with the command that does.
pub fn prepare() -> Result<()> {
    check_node()?;
    let missing = NEEDED.iter().filter(|(sign, _)| !sign.is_there()).map(|(_, package)| *package);
    let mut missing: Vec<&str> = missing.collect();
    if !is_root()? && !shell::has("newuidmap") {
        // mmdebstrap unpacks into a range of user ids then.
        missing.push("uidmap");
    }
    install(&missing)
}

/// A program out of a Debian package that is unpacked beside the build and not installed: of a
/// server's package that would start the server, on a developer's machine, at each boot.
pub fn unpacked(package: &str, program: &str) -> Result<PathBuf> {
    let folder = shell::root().join("target/packages").join(package);
    let path = folder.join(program);
    if path.is_file() {
        return Ok(path);
    }
    eprintln!("Unpacking {package} into {} …", folder.display());
    let downloads = tempfile::tempdir()?;
    let download =
        || shell::output(apt().current_dir(downloads.path()).args(["download", package]));
    // A machine may have no list of packages yet, or an old one.
    if download().is_err() {
        if is_root()? {
            shell::run(apt().arg("update"))?;
        }
        download().with_context(|| {
            format!("Debian's package {package} cannot be had; try `sudo apt-get update`")
        })?;
    }
    for entry in std::fs::read_dir(downloads.path())? {
        unpack(&entry?.path(), &folder)?;
    }
    if !path.is_file() {
        bail!("Debian's package {package} has no {program}");
    }
    Ok(path)
}

/// In one piece: a folder that is there is whole.
fn unpack(package: &Path, folder: &Path) -> Result<()> {
    let parent = folder.parent().unwrap_or(folder);
    std::fs::create_dir_all(parent)?;
    let temporary = tempfile::tempdir_in(parent)?;
    let content = temporary.path().join("content");
    shell::output(Command::new("dpkg-deb").arg("-x").arg(package).arg(&content))?;
    let _ = std::fs::remove_dir_all(folder);
    std::fs::rename(content, folder).context("unpacking a package failed")
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
    command
}

fn install(missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    if !is_root()? {
        bail!(
            "this machine lacks: {packages}. Install it and run this again:\n\
             \x20   sudo apt-get install --no-install-recommends {packages}"
        );
    }
    eprintln!("Installing {packages} …");
    shell::output(apt().arg("update"))?;
    let install = ["install", "-y", "--no-install-recommends"];
    // What is there already stays, in the archive's version where its own does not go with the new packages.
    let plan = shell::output(apt().args(install).arg("--simulate").args(missing))?;
    let removed = plan.lines().filter_map(|line| line.strip_prefix("Remv ")?.split(' ').next());
    let kept = removed.map(of_the_archive).collect::<Result<Vec<_>>>()?;
    let mut installs = apt();
    installs.args(install).args(["--no-remove", "--allow-downgrades"]).args(missing).args(kept);
    shell::output(&mut installs).map(drop)
}

/// A package in the version that can be installed, as apt names it, where another is there.
fn of_the_archive(package: &str) -> Result<String> {
    let versions = shell::output(Command::new("apt-cache").args(["madison", package]))?;
    let version = versions.split('|').nth(1).map(str::trim).with_context(|| {
        format!("the installed {package} does not go with the new packages, and apt has no other")
    })?;
    eprintln!("The installed {package} does not go with them: installing version {version} …");
    Ok(format!("{package}={version}"))
}

impl Sign {
    fn is_there(&self) -> bool {
        match self {
            Self::Program(name) => shell::has(name),
            Self::PkgConfig(name) => {
                shell::output(Command::new("pkg-config").args(["--exists", name])).is_ok()
            }
            Self::PythonModule(name) => {
                shell::output(Command::new("python3").args(["-c", &format!("import {name}")]))
                    .is_ok()
            }
        }
    }
}

/// Node is not taken from Debian: its 12 has Node 18.
fn check_node() -> Result<()> {
    let version = shell::output(Command::new("node").arg("--version"))
        .context("Node.js is missing; install version 20 or newer from https://nodejs.org")?;
    let major: u32 =
        version.trim().trim_start_matches('v').split('.').next().unwrap_or("").parse().unwrap_or(0);
    if major < 20 {
        bail!("Node.js is {}, at least v20 is needed: https://nodejs.org", version.trim());
    }
    if !shell::has("npm") {
        bail!("npm is missing; it comes with Node.js from https://nodejs.org, or as package npm");
    }
    Ok(())
}

/// Whether this is root.
pub fn is_root() -> Result<bool> {
    Ok(shell::output(Command::new("id").arg("-u"))?.trim() == "0")
}
