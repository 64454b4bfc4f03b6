//! The user of one session.

use std::io;
use std::ops::RangeInclusive;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sched::sched_yield;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::seen::runs_as;

/// The user, and the group, that one session's processes run as. Nothing else on this machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct SessionUser(u32);

/// How often all of a user's processes are killed before that is given up.
const KILL_ROUNDS: u32 = 10_000;

/// A number that is no session's user.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not the id of a session's user")]
pub struct NoSessionUser(u32);

impl SessionUser {
    /// Ids that systemd's table of user ids (UIDS-GIDS) leaves to nobody: no account and no container
    /// has them unless somebody chose so.
    pub const RANGE: RangeInclusive<u32> = 1_900_000_000..=1_900_065_535;

    /// One that no process on this machine runs as, and that `taken` does not name; `None` when there
    /// is no such.
    pub fn unused(taken: impl Fn(Self) -> bool) -> Option<Self> {
        // From a random one on, round the range: so one that was used lately is seldom next.
        let (first, last) = (*Self::RANGE.start(), *Self::RANGE.end());
        let begin = rand::rng().random_range(Self::RANGE);
        (begin..=last)
            .chain(first..begin)
            .map(Self)
            .find(|user| !taken(*user) && processes_of(*user).is_empty())
    }

    /// Its user id, which is its group's too.
    #[must_use]
    pub fn id(self) -> u32 {
        self.0
    }

    /// Kills everything that runs as the user, by one of its own processes: the kernel goes through all of
    /// them at once, so that none can fork away from it.
    ///
    /// # Errors
    /// When no process can be started for it, or after many rounds something still lives.
    pub fn kill_all(self) -> io::Result<()> {
        let mut command = Command::new("/bin/true");
        // SAFETY: only system calls, whose arguments were made before the fork.
        #[expect(unsafe_code, reason = "pre_exec runs between fork and exec")]
        unsafe {
            command.pre_exec(move || {
                self.assume(&[])?;
                for _ in 0..KILL_ROUNDS {
                    // All but this one (kill(2)).
                    match kill(Pid::from_raw(-1), Signal::SIGKILL) {
                        Err(Errno::ESRCH) => return Ok(()),
                        Err(error) => return Err(error.into()),
                        Ok(()) => {}
                    }
                    sched_yield()?;
                }
                Err(Errno::EBUSY.into())
            });
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().map(drop)
    }

    /// Makes this process, and all its threads, the user's for ever, in its own group and these. The
    /// capabilities go with root. Only system calls.
    ///
    /// # Errors
    /// When the kernel refuses: the process must not go on then.
    pub fn assume(self, groups: &[Gid]) -> nix::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.0), Gid::from_raw(self.0));
        setgroups(groups)?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)
    }
}

impl TryFrom<u32> for SessionUser {
    type Error = NoSessionUser;

    fn try_from(id: u32) -> Result<Self, NoSessionUser> {
        if Self::RANGE.contains(&id) { Ok(Self(id)) } else { Err(NoSessionUser(id)) }
    }
}

impl From<SessionUser> for u32 {
    fn from(user: SessionUser) -> Self {
        user.0
    }
}

impl std::fmt::Display for SessionUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Every process that runs as this user, this one apart.
#[must_use]
pub fn processes_of(user: SessionUser) -> Vec<i32> {
    let own = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok().filter(|name| *name != own)?;
            let pid = name.parse().ok()?;
            runs_as(pid, user.id()).then_some(pid)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_outside_of_the_range_becomes_a_session_s_user() {
        for id in [0, 1000, 65534, 1_899_999_999, 1_900_065_536, u32::MAX] {
            assert!(SessionUser::try_from(id).is_err(), "{id}");
        }
        assert_eq!(SessionUser::try_from(1_900_000_007).unwrap().id(), 1_900_000_007);
    }

    #[test]
    fn a_taken_one_is_not_given_again() {
        let only = SessionUser(1_900_001_234);
        assert_eq!(SessionUser::unused(|user| user != only), Some(only));
        assert_eq!(SessionUser::unused(|_| true), None);
    }
}
