//! What this machine offers, found out by trying it.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::{Cgroup, Enclosure, Limits, SessionUser, kernel_limits_files};

/// Whether this machine lets whoever runs Anteroom do something for its sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum HostCapability {
    /// It was tried and works.
    Available {},
    /// It was tried and does not.
    Unavailable {
        /// What the system said, one sentence without its full stop.
        why: String,
    },
}

impl HostCapability {
    fn of(tried: Result<(), String>) -> Self {
        tried.map_or_else(|why| Self::Unavailable { why }, |()| Self::Available {})
    }

    /// Whether it works.
    #[must_use]
    pub fn is_available(&self) -> bool {
        matches!(self, Self::Available {})
    }
}

/// What this machine lets whoever runs Anteroom do for its sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCapabilities {
    /// A user for each session.
    pub users: HostCapability,
    /// A file tree and namespaces for each VM.
    pub namespaces: HostCapability,
    /// A cgroup for each VM.
    pub cgroups: HostCapability,
    /// Landlock.
    pub landlock: HostCapability,
}

impl HostCapabilities {
    /// Tries everything, with this program in the enclosure where it is installed; takes some hundredths
    /// of a second.
    #[must_use]
    pub fn here(program: Option<&Path>) -> Self {
        if !nix::unistd::geteuid().is_root() {
            let why = "Anteroom does not run as root";
            let refused = || HostCapability::Unavailable { why: why.to_owned() };
            return Self {
                users: refused(),
                namespaces: refused(),
                cgroups: refused(),
                landlock: landlock(),
            };
        }
        let user = SessionUser::unused(|_| false);
        let user =
            user.ok_or_else(|| "every user id in the range for sessions is in use".to_owned());
        let users = user.clone().and_then(|user| as_user(user).map_err(|error| error.to_string()));
        let namespaces = user.and_then(|user| {
            let program = program.unwrap_or(Path::new("/bin/true"));
            enclosed(program, user).map_err(|error| error.to_string())
        });
        Self {
            users: HostCapability::of(users),
            namespaces: HostCapability::of(namespaces),
            cgroups: HostCapability::of(in_cgroup()),
            landlock: landlock(),
        }
    }

    /// What is not offered, each with its reason, as a sentence says it.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let all = [
            ("a user of its own", &self.users),
            ("namespaces of its own", &self.namespaces),
            ("a cgroup of its own", &self.cgroups),
            ("file access limited by Landlock", &self.landlock),
        ];
        all.into_iter()
            .filter_map(|(what, offer)| match offer {
                HostCapability::Available {} => None,
                HostCapability::Unavailable { why } => Some(format!("{what} ({why})")),
            })
            .collect()
    }
}

/// What one session gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Its user; none keeps whoever runs Anteroom.
    pub user: Option<SessionUser>,
    /// What the machine offers.
    pub host: HostCapabilities,
}

impl Confinement {
    /// Everything that this machine offers, for a VM that no controller keeps a record of.
    #[must_use]
    pub fn of_this_machine(program: Option<&Path>) -> Self {
        let host = HostCapabilities::here(program);
        let user = if host.users.is_available() { SessionUser::unused(|_| false) } else { None };
        Self { user, host }
    }

    /// The user whose processes go into namespaces of their own, where there are such.
    #[must_use]
    pub fn enclosed(&self) -> Option<SessionUser> {
        self.user.filter(|_| self.host.namespaces.is_available())
    }
}

fn landlock() -> HostCapability {
    let why = "this kernel has no Landlock, or does not enable it";
    HostCapability::of(kernel_limits_files().then_some(()).ok_or_else(|| why.to_owned()))
}

fn quiet(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("--version").env_clear().stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn as_user(user: SessionUser) -> io::Result<()> {
    ended(quiet(Path::new("/bin/true")).uid(user.id()).gid(user.id()).status()?)
}

fn enclosed(program: &Path, user: SessionUser) -> io::Result<()> {
    let enclosure = Enclosure::for_program(program, &[], None, user)?;
    let mut command = quiet(program);
    // SAFETY: only system calls, whose arguments were made before the fork.
    #[expect(unsafe_code, reason = "pre_exec runs between fork and exec")]
    unsafe {
        command.pre_exec(move || {
            enclosure.enter()?;
            user.assume(&[])?;
            Ok(())
        });
    }
    ended(Enclosure::own_pid_namespace(|| command.status())??)
}

fn in_cgroup() -> Result<(), String> {
    let limits = Limits { memory_bytes: 16 << 20, pids: 2, cpus: 1 };
    let name = format!("probe-{}", std::process::id());
    let chain = |error: crate::ConfineError| format!("{error}: {}", error.source);
    let group = Cgroup::make(&name, &limits).map_err(chain)?;
    group.remove().map_err(chain)
}

fn ended(status: std::process::ExitStatus) -> io::Result<()> {
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("the program that tried it ended with {status}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_reported_with_its_reason() {
        let refused = HostCapability::Unavailable { why: "because".to_owned() };
        let host = HostCapabilities {
            users: HostCapability::Available {},
            namespaces: refused.clone(),
            cgroups: refused,
            landlock: HostCapability::Available {},
        };
        let expected = ["namespaces of its own (because)", "a cgroup of its own (because)"];
        assert_eq!(host.missing(), expected);
    }

    #[test]
    fn root_is_offered_a_user_and_others_get_the_reason_why_not() {
        let host = HostCapabilities::here(None);
        assert_eq!(host.users.is_available(), nix::unistd::geteuid().is_root(), "{host:?}");
    }

    /// The tree is made where it hides nothing that belongs to it.
    #[test]
    fn a_program_may_be_anywhere() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::copy("/bin/true", &program).unwrap();
        let [here, elsewhere] = [&program, Path::new("/bin/true")]
            .map(|program| HostCapabilities::here(Some(program)).namespaces);
        assert_eq!(here, elsewhere);
    }
}
