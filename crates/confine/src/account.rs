//! An account of a session's user, which its own processes see and nobody else.
//!
//! Many programs do not run as a user who has no name: D-Bus, GNOME's keyring, Node's `os.userInfo`.

use std::ffi::CString;
use std::fs::Permissions;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::SessionUser;

/// Files that lie over those of the machine. Written before the fork; entered after it, without an
/// allocation.
#[derive(Debug)]
pub struct Account {
    over: Vec<(CString, CString)>,
}

impl Account {
    /// Writes the machine's accounts and one more, with this home, into a folder.
    ///
    /// # Errors
    /// When they cannot be read or written.
    pub fn write(folder: &Path, home: &Path, user: SessionUser) -> io::Result<Self> {
        let id = user.id();
        // No name that the machine's own rules, sudo's for one, could mean.
        let lines = [
            ("passwd", format!("anteroom-{id}:x:{id}:{id}::{}:/bin/sh\n", home.display())),
            ("group", format!("anteroom-{id}:x:{id}:\n")),
        ];
        let mut over = Vec::new();
        for (name, line) in lines {
            let (theirs, ours) = (Path::new("/etc").join(name), folder.join(name));
            let mut text = std::fs::read_to_string(&theirs)?;
            if !text.ends_with('\n') {
                text.push('\n');
            }
            std::fs::write(&ours, text + &line)?;
            // Whatever this process's umask.
            std::fs::set_permissions(&ours, Permissions::from_mode(0o644))?;
            over.push((
                CString::new(ours.as_os_str().as_bytes())?,
                CString::new(theirs.as_os_str().as_bytes())?,
            ));
        }
        Ok(Self { over })
    }

    /// Moves this process, which has just been forked, to where the account is, and away from shared
    /// memory, semaphores and message queues of others: its own go with its last process. Needs root.
    ///
    /// # Errors
    /// When the kernel refuses a part: the process must not go on then.
    pub fn enter(&self) -> nix::Result<()> {
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC)?;
        // What the machine mounts later is seen here too, and nothing the other way.
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
        for (ours, theirs) in &self.over {
            mount(Some(ours.as_c_str()), theirs.as_c_str(), none, MsFlags::MS_BIND, none)?;
        }
        Ok(())
    }
}
