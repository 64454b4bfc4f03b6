//! The controllers that the demo and the benchmarks start.

use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;

use anteroom_testkit::{Controller, fake_guest};
use anyhow::{Context, Result};
use xtask::{interrupt, shell};

use crate::provider::{OpenIdProvider, provider_file};

/// Who runs a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    Root,
    /// Not root, and in the group that may use /dev/kvm.
    InKvmGroup,
}

/// The id of a user that this machine does not have.
const NOBODY_ELSE: u32 = 1_500_000;

/// A running `anteroom serve`.
pub struct Server {
    controller: Controller,
    /// The demo's CLI where the host driver finds it; gone when this is.
    _programs: Option<tempfile::TempDir>,
}

impl Server {
    /// Starts it with a provider file that maps the issuer's name to `provider`; `options` are further
    /// ones of `serve`.
    pub fn start(
        anteroom: &Path,
        folder: &Path,
        provider: &OpenIdProvider,
        driver: &str,
        options: &[&str],
    ) -> Result<Self> {
        Self::start_with(anteroom, folder, &provider_file(provider)?, driver, options)
    }

    /// The same with this provider file.
    pub fn start_with(
        anteroom: &Path,
        folder: &Path,
        provider_file: &str,
        driver: &str,
        options: &[&str],
    ) -> Result<Self> {
        Self::start_as(User::Root, anteroom, folder, provider_file, driver, options)
    }

    /// The same as somebody.
    pub fn start_as(
        user: User,
        anteroom: &Path,
        folder: &Path,
        provider_file: &str,
        driver: &str,
        options: &[&str],
    ) -> Result<Self> {
        let providers = folder.join("providers");
        std::fs::create_dir_all(&providers)?;
        std::fs::write(providers.join("demo.toml"), provider_file)?;
        let programs = programs_for_host_driver(driver)?;
        let mut command = match user {
            User::Root => Command::new(anteroom),
            User::InKvmGroup => in_kvm_group(anteroom, folder, &providers)?,
        };
        if let Some(programs) = &programs {
            let usual = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{}:{usual}", programs.path().display()));
        }
        command
            .args(["serve", "--driver", driver])
            .arg("--providers")
            .arg(&providers)
            .args(["--operator-name", "the demo on this machine"])
            .args(options);
        Self::run(command, folder, programs)
    }

    /// Starts one whose sandboxes are the program `guest` on this host, as many as are asked for.
    pub fn with_guest(
        anteroom: &Path,
        folder: &Path,
        guest: &Path,
        options: &[&str],
    ) -> Result<Self> {
        let mut command = Command::new(anteroom);
        command.args(["serve", "--driver", "host", "--max-sessions", "1000", "--agent"]).arg(guest);
        command.args(options);
        Self::run(command, folder, None)
    }

    /// The same with a guest that has this text.
    pub fn with_fake_guest(anteroom: &Path, folder: &Path, script: &str) -> Result<Self> {
        Self::with_guest(anteroom, folder, &fake_guest(folder, script)?, &[])
    }

    fn run(command: Command, folder: &Path, programs: Option<tempfile::TempDir>) -> Result<Self> {
        let mut controller = Controller::start(command, folder)?;
        controller.while_waiting(interrupt::check);
        Ok(Self { controller, _programs: programs })
    }
}

impl Deref for Server {
    type Target = Controller;

    fn deref(&self) -> &Controller {
        &self.controller
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Controller {
        &mut self.controller
    }
}

/// The program as a user who is not root, whose these folders are then.
fn in_kvm_group(anteroom: &Path, folder: &Path, providers: &Path) -> Result<Command> {
    let group = std::fs::metadata("/dev/kvm").context("there is no /dev/kvm")?.gid();
    let id = NOBODY_ELSE.to_string();
    for path in [folder, providers, &providers.join("demo.toml")] {
        chown(path, Some(NOBODY_ELSE), Some(NOBODY_ELSE))
            .context("giving the controller's folder away failed")?;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--groups", &group.to_string()]);
    command.arg(anteroom).env("HOME", folder).env("XDG_CACHE_HOME", folder.join("cache"));
    Ok(command)
}

/// A guest has the demo CLI from its image; the host driver finds it in a folder of the PATH, readable
/// by the unprivileged user that its sandboxes run as.
fn programs_for_host_driver(driver: &str) -> Result<Option<tempfile::TempDir>> {
    use std::os::unix::fs::PermissionsExt;
    if driver != "host" {
        return Ok(None);
    }
    let folder = tempfile::Builder::new().prefix("xtask-programs-").tempdir()?;
    let everyone = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), everyone.clone())?;
    let program = folder.path().join("demo-login");
    std::fs::copy(shell::root().join("demo/cli/demo-login"), &program)?;
    std::fs::set_permissions(&program, everyone)?;
    Ok(Some(folder))
}
