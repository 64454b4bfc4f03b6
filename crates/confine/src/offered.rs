//! What this machine offers, found out by trying it.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::{Cgroup, Enclosure, Limits, SessionUser, kernel_limits_files};

/// Whether something is offered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "offer", rename_all = "snake_case")]
pub enum Offer {
    /// It was tried and works.
    Given {},
    /// It was tried and does not.
    Refused {
        /// What the system said, one sentence without its full stop.
        why: String,
    },
}

impl Offer {
    fn of(tried: Result<(), String>) -> Self {
        tried.map_or_else(|why| Self::Refused { why }, |()| Self::Given {})
    }

    /// Whether it works.
    #[must_use]
    pub fn is_given(&self) -> bool {
        matches!(self, Self::Given {})
    }
}

/// What this machine lets whoever runs Anteroom do for its sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// A user for each session.
    pub users: Offer,
    /// A file tree and namespaces for each VM.
    pub namespaces: Offer,
    /// A cgroup for each VM.
    pub cgroups: Offer,
    /// Landlock.
    pub landlock: Offer,
}

impl Offered {
    /// Tries everything, with this program in the enclosure where it is installed; takes some hundredths
    /// of a second.
    #[must_use]
    pub fn here(program: Option<&Path>) -> Self {
        if !nix::unistd::geteuid().is_root() {
            let why = "Anteroom does not run as root";
            let refused = || Offer::Refused { why: why.to_owned() };
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
            users: Offer::of(users),
            namespaces: Offer::of(namespaces),
            cgroups: Offer::of(in_cgroup()),
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
                Offer::Given {} => None,
                Offer::Refused { why } => Some(format!("{what} ({why})")),
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
    pub offered: Offered,
}

impl Confinement {
    /// Everything that this machine offers, for a VM that no controller keeps a record of.
    #[must_use]
    pub fn of_this_machine(program: Option<&Path>) -> Self {
        let offered = Offered::here(program);
        let user = if offered.users.is_given() { SessionUser::unused(|_| false) } else { None };
        Self { user, offered }
    }

    /// The user whose processes go into namespaces of their own, where there are such.
    #[must_use]
    pub fn enclosed(&self) -> Option<SessionUser> {
        self.user.filter(|_| self.offered.namespaces.is_given())
    }
}

fn landlock() -> Offer {
    let why = "this kernel has no Landlock, or does not enable it";
    Offer::of(kernel_limits_files().then_some(()).ok_or_else(|| why.to_owned()))
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
    let enclosure = Enclosure::for_program(program, &[], user)?;
    let mut command = quiet(program);
    // SAFETY: only system calls, whose arguments were made before the fork.
    #[expect(unsafe_code, reason = "pre_exec runs between fork and exec")]
    unsafe {
        command.pre_exec(move || {
            enclosure.enter()?;
            user.become_it(&[])?;
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
        let refused = Offer::Refused { why: "because".to_owned() };
        let offered = Offered {
            users: Offer::Given {},
            namespaces: refused.clone(),
            cgroups: refused,
            landlock: Offer::Given {},
        };
        let expected = ["namespaces of its own (because)", "a cgroup of its own (because)"];
        assert_eq!(offered.missing(), expected);
    }

    #[test]
    fn root_is_offered_a_user_and_others_get_the_reason_why_not() {
        let offered = Offered::here(None);
        assert_eq!(offered.users.is_given(), nix::unistd::geteuid().is_root(), "{offered:?}");
    }
}
