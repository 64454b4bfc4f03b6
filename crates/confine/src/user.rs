//! The user of one session.

use std::io;
use std::ops::RangeInclusive;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::seen::runs_as;

/// The user, and the group, that one session's processes run as. Nothing else on this machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct SessionUser(u32);

/// How often all of a user's processes are killed before that is given up: each round takes some milliseconds.
const KILL_ROUNDS: u32 = 100;

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

    /// Kills everything that runs as the user, by one of its own processes: the kernel signals all of them under
    /// one lock, so that none can fork away from it. Again while any is seen that has not ended yet.
    ///
    /// # Errors
    /// When no process can be started for it, or after many rounds something is still seen.
    pub fn kill_all(self) -> io::Result<()> {
        for _ in 0..KILL_ROUNDS {
            self.kill_once()?;
            if processes_of(self).is_empty() {
                return Ok(());
            }
        }
        Err(Errno::EBUSY.into())
    }

    fn kill_once(self) -> io::Result<()> {
        let mut command = Command::new("/bin/true");
        // SAFETY: only system calls, whose arguments were made before the fork.
        #[expect(unsafe_code, reason = "pre_exec runs between fork and exec")]
        unsafe {
            command.pre_exec(move || {
                self.assume(&[])?;
                // All but this one. Where it may signal none the answer is the same, if there are others' (kill(2)
                // of Linux, signal.c): whether one was left has to be looked at.
                match kill(Pid::from_raw(-1), Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => Ok(()),
                    Err(error) => Err(error.into()),
                }
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

    /// Only root runs as another user.
    #[test]
    fn a_user_of_whom_nothing_runs_has_nothing_left_to_kill() {
        let user = SessionUser::unused(|_| false).unwrap();
        match user.kill_all() {
            Err(error) if !Uid::effective().is_root() => {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            }
            killed => killed.unwrap(),
        }
    }
}
