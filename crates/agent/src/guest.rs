//! The guest from the inside: a VM of its own, or processes on the host.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use anteroom_guest_protocol::{HOST_DISPLAY_FILE, Locale, Preferences, SANDBOX_ENV};
use anyhow::{Context, Result};

/// The guest user of every image: the recipe's `person`.
pub const GUEST_UID: u32 = 1000;

/// The name of that user.
pub const END_USER: &str = "person";

/// In a home: what programs keep while they run, their `XDG_RUNTIME_DIR`.
pub const RUNTIME: &str = ".run";

/// In the agent's own folder: the programs that are run in the place of browser openers.
pub const OPENERS: &str = "openers";

/// Where its programs live, and how they are started.
#[derive(Clone, Debug)]
pub struct Guest {
    /// What it is.
    pub kind: GuestKind,
    /// The home of the end user.
    pub home: PathBuf,
    /// The agent's own folder: sockets, X authority, openers. Gone with the sandbox.
    pub runtime: PathBuf,
    /// What programs that are started from now on can know of the end user; not set before there is one.
    pub preferences: Arc<OnceLock<Preferences>>,
}

/// What a guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestKind {
    /// A VM: services run as the guest user, the agent as root.
    Vm,
    /// Processes on the host, no isolation: everything runs as whoever started the agent.
    Host,
}

impl Guest {
    /// The guest in a VM; its folders exist since [`crate::pid1::enter_image`].
    pub fn in_vm() -> Self {
        Self {
            kind: GuestKind::Vm,
            home: PathBuf::from("/home/person"),
            runtime: PathBuf::from("/run/anteroom"),
            preferences: Arc::default(),
        }
    }

    /// The guest on the host, in the folder that the driver made and will remove.
    pub fn on_host() -> Result<Self> {
        let folder = PathBuf::from(
            std::env::var_os("ANTEROOM_RUNTIME_DIR").context("ANTEROOM_RUNTIME_DIR is not set")?,
        );
        let guest = Self {
            kind: GuestKind::Host,
            home: folder.join("home"),
            runtime: folder.join("run"),
            preferences: Arc::default(),
        };
        for path in [&guest.home, &guest.runtime, &guest.temporary()] {
            std::fs::create_dir_all(path)
                .with_context(|| format!("creating {} failed", path.display()))?;
        }
        let agent = std::env::current_exe().context("finding the agent's own path failed")?;
        std::fs::copy(&agent, guest.agent())
            .context("copying the agent into its sandbox failed")?;
        Ok(guest)
    }

    /// The agent's own binary inside the sandbox.
    pub fn agent(&self) -> PathBuf {
        self.runtime.join("agent")
    }

    /// Where programs on the host put what is temporary, so that it goes with the sandbox.
    fn temporary(&self) -> PathBuf {
        self.runtime.join("tmp")
    }

    /// Folder of the programs that are run in the place of browser openers; first in the CLI's PATH.
    pub fn openers(&self) -> PathBuf {
        self.runtime.join(OPENERS)
    }

    /// A folder of `XDG_DATA_DIRS`: in a guest the machine's own.
    pub fn share(&self) -> PathBuf {
        match self.kind {
            GuestKind::Vm => PathBuf::from("/usr/local/share"),
            GuestKind::Host => self.runtime.join("share"),
        }
    }

    /// A folder of `XDG_CONFIG_DIRS`: in a guest the machine's own.
    pub fn settings(&self) -> PathBuf {
        match self.kind {
            GuestKind::Vm => PathBuf::from("/etc/xdg"),
            GuestKind::Host => self.runtime.join("xdg"),
        }
    }

    /// The file with the X server's access cookie.
    pub fn xauthority(&self) -> PathBuf {
        self.runtime.join("Xauthority")
    }

    /// Where the number of the X server is written down on a host.
    pub fn display_file(&self) -> PathBuf {
        self.runtime.with_file_name(HOST_DISPLAY_FILE)
    }

    /// `path` of a provider file or an injected file; `~/` is the end user's home.
    pub fn resolve(&self, path: &str) -> PathBuf {
        match path.strip_prefix("~/") {
            Some(rest) => self.home.join(rest),
            None => PathBuf::from(path),
        }
    }

    /// The end user's language, where it is known.
    pub fn locale(&self) -> Option<&Locale> {
        self.preferences.get()?.locale.as_ref()
    }

    /// Where the C library looks for locales.
    pub fn locales(&self) -> PathBuf {
        match self.kind {
            GuestKind::Vm => PathBuf::from("/usr/lib/locale"),
            GuestKind::Host => self.runtime.join("locales"),
        }
    }

    /// A command that runs as the end user, with a clean environment and the sandbox's PATH.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", &self.home)
            .env("USER", END_USER)
            .env("PATH", self.path_variable())
            .env("LANG", "C.UTF-8")
            .env("XDG_RUNTIME_DIR", self.home.join(RUNTIME))
            .env("XAUTHORITY", self.xauthority())
            // Chromium looks for a bus every 2 s when none is named.
            .env("DBUS_SESSION_BUS_ADDRESS", "disabled:")
            .env("DBUS_SYSTEM_BUS_ADDRESS", "disabled:")
            .current_dir(&self.home);
        if let Some(locale) = self.locale() {
            command.env("LANG", locale.posix());
            command.env("LANGUAGE", locale.to_string().replace('-', "_"));
        }
        if let Some(zone) = self.preferences.get().and_then(|known| known.time_zone.as_ref()) {
            command.env("TZ", zone);
        }
        if let Some(sandbox) = std::env::var_os(SANDBOX_ENV) {
            command.env(SANDBOX_ENV, sandbox);
        }
        match self.kind {
            GuestKind::Vm => {
                use std::os::unix::process::CommandExt;
                command.uid(GUEST_UID).gid(GUEST_UID);
            }
            GuestKind::Host => {
                command.env("TMPDIR", self.temporary());
                command.env("LOCPATH", self.locales());
                command.env("XDG_DATA_DIRS", first(&self.share(), "/usr/local/share:/usr/share"));
                command.env("XDG_CONFIG_DIRS", first(&self.settings(), "/etc/xdg"));
            }
        }
        command
    }

    /// The same as the guest's root; on a host as whoever runs the agent.
    pub fn root_command(&self, program: &str) -> Command {
        let mut command = self.command(program);
        if self.kind == GuestKind::Vm {
            use std::os::unix::process::CommandExt;
            command.uid(0).gid(0).env("HOME", "/root").env("USER", "root");
        }
        command
    }

    /// `PATH` of the sandbox's programs.
    pub fn path_variable(&self) -> OsString {
        match (self.kind, std::env::var_os("PATH")) {
            (GuestKind::Host, Some(host_path)) => first(&self.openers(), &host_path),
            _ => first(
                &self.openers(),
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ),
        }
    }

    /// Gives `path` to the end user.
    pub fn give_to_end_user(&self, path: &Path) -> std::io::Result<()> {
        match self.kind {
            GuestKind::Vm => std::os::unix::fs::lchown(path, Some(GUEST_UID), Some(GUEST_UID)),
            GuestKind::Host => Ok(()),
        }
    }
}

/// A list of folders as variables have it, with one before the others.
fn first(folder: &Path, others: impl AsRef<OsStr>) -> OsString {
    let mut list = folder.as_os_str().to_owned();
    list.push(":");
    list.push(others);
    list
}
