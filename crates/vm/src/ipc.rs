//! Shared memory, semaphores and message queues of System V that a session's user left: they outlive
//! their processes, where a sandbox has no IPC namespace of its own to go with.

use std::fmt;
use std::fs;
use std::io;

use anteroom_confine::SessionUser;
use nix::errno::Errno;
use nix::libc;

/// What the kernel keeps by numbers (sysvipc(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Memory,
    Semaphores,
    Queue,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Memory, Self::Semaphores, Self::Queue];

    fn list(self) -> &'static str {
        match self {
            Self::Memory => "/proc/sysvipc/shm",
            Self::Semaphores => "/proc/sysvipc/sem",
            Self::Queue => "/proc/sysvipc/msg",
        }
    }
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    kind: Kind,
    id: i32,
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.list(), self.id)
    }
}

impl Shared {
    /// All that the user made, whomever it was given to since. A kernel without them has no lists.
    pub(crate) fn of(user: SessionUser) -> Vec<Self> {
        let of_kind = |kind: Kind| {
            let list = fs::read_to_string(kind.list()).unwrap_or_default();
            made_by(&list, user.id()).into_iter().map(move |id| Self { kind, id })
        };
        Kind::ALL.into_iter().flat_map(of_kind).collect()
    }

    /// Removes it; one that is gone is fine.
    pub(crate) fn remove(self) -> io::Result<()> {
        let Self { kind, id } = self;
        // SAFETY: only numbers, and a null pointer that this command does not read.
        #[expect(unsafe_code, reason = "nix has none of these calls")]
        let done = unsafe {
            match kind {
                Kind::Memory => libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()),
                Kind::Semaphores => libc::semctl(id, 0, libc::IPC_RMID),
                Kind::Queue => libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()),
            }
        };
        match Errno::result(done) {
            Ok(_) | Err(Errno::EINVAL | Errno::EIDRM) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The numbers in the second column of a list, of which this user is the maker.
fn made_by(list: &str, user: u32) -> Vec<i32> {
    let mut lines = list.lines();
    let names = lines.next().unwrap_or_default();
    let Some(maker) = names.split_whitespace().position(|name| name == "cuid") else {
        return Vec::new();
    };
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_its = fields.get(maker)?.parse() == Ok(user);
        fields.get(1)?.parse().ok().filter(|_| is_its)
    };
    lines.filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    /// Only root starts a process of another user.
    #[test]
    fn what_a_user_left_in_the_kernel_is_found_and_removed() {
        let Some(user) = SessionUser::unused(|_| false) else { return };
        let mut command = Command::new("/usr/bin/perl");
        command.args(["-e", "shmget(0, 64, 01600); semget(0, 1, 01600); msgget(0, 01600)"]);
        let Ok(ended) = command.env_clear().uid(user.id()).gid(user.id()).status() else { return };
        assert!(ended.success());
        let left = Shared::of(user);
        let kinds: Vec<Kind> = left.iter().map(|shared| shared.kind).collect();
        assert_eq!(kinds, Kind::ALL);
        let removed = crate::remove_orphaned_files(user).unwrap();
        assert_eq!(removed.len(), 3, "{removed:?}");
        assert_eq!(Shared::of(user), []);
        assert!(left.into_iter().all(|shared| shared.remove().is_ok()), "what is gone is fine");
    }

    #[test]
    fn it_goes_by_the_maker() {
        let list = "key msqid perms cbytes qnum lspid lrpid uid gid cuid cgid stime\n\
                    0 7 600 0 0 0 0 1 1 1900000001 1 0\n0 8 600 0 0 0 0 1900000001 1 1 1 0\n";
        assert_eq!(made_by(list, 1_900_000_001), [7]);
        assert_eq!(made_by("", 1_900_000_001), [0; 0]);
    }
}
