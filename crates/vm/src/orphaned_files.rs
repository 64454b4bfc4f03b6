//! What a session's user left in the folders where everybody may write: outside of its own folder, which
//! its name identifies, the files are identified by their owner.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anteroom_confine::SessionUser;
use nix::fcntl::OFlag;

use crate::host::{RemoveError, gone, remove_tree, remove_trees};
use crate::ipc::Shared;

/// Where everybody may write, on most machines. What lies deeper in a folder of somebody else's is not
/// looked for.
const OPEN: [&str; 7] = [
    "/tmp",
    "/tmp/.X11-unix",
    "/tmp/.ICE-unix",
    "/var/tmp",
    "/dev/shm",
    "/dev/mqueue",
    "/run/lock",
];

/// Entries of a folder that are looked at.
const MOST_ENTRIES: usize = 100_000;

/// Entries that one program is to remove: of the longest names, as many as a command line takes.
const AT_A_TIME: usize = 1000;

/// In a folder with this bit nobody but an entry's owner, the folder's and root may put another in its
/// place.
const STICKY: u32 = 0o1000;

/// What is the user's in these folders.
pub(crate) struct OrphanedFiles {
    pub(crate) found: Vec<PathBuf>,
    /// Folders that could not be looked at, or not to their end.
    pub(crate) unseen: Vec<(PathBuf, io::Error)>,
}

impl OrphanedFiles {
    /// Looks in the folders of this machine.
    pub(crate) fn of(user: SessionUser) -> Self {
        Self::within(OPEN.iter().map(Path::new), user, MOST_ENTRIES)
    }

    fn within<'a>(
        folders: impl IntoIterator<Item = &'a Path>,
        user: SessionUser,
        most: usize,
    ) -> Self {
        let mut orphaned_files = Self { found: Vec::new(), unseen: Vec::new() };
        for path in folders {
            let looked = OpenFolder::at(path).and_then(|folder| match folder {
                None => Ok(()),
                Some(folder) => {
                    folder.each_of(user, most, |name, _| orphaned_files.found.push(path.join(name)))
                }
            });
            if let Err(error) = looked {
                orphaned_files.unseen.push((path.to_owned(), error));
            }
        }
        orphaned_files
    }
}

/// A folder as it was opened: whatever takes its name afterwards is another.
struct OpenFolder {
    /// Ours by way of /proc, for programs that are started too.
    path: PathBuf,
    /// Whether its entries cannot be exchanged by others than their owners.
    holds_names: bool,
    _open: File,
}

impl OpenFolder {
    /// `None` where there is none. A link is followed where the machine has it so, as /var/tmp to /tmp;
    /// one that anybody else has put there leads nowhere.
    fn at(path: &Path) -> io::Result<Option<Self>> {
        let found = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found?,
        };
        let is_ours =
            |found: &fs::Metadata| [0, nix::unistd::geteuid().as_raw()].contains(&found.uid());
        let flags = match (found.is_symlink(), is_ours(&found)) {
            (true, false) => return Ok(None),
            (true, true) => OFlag::O_DIRECTORY,
            (false, _) => OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW,
        };
        let open = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
        let metadata = open.metadata()?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), open.as_raw_fd());
        let holds_names = is_ours(&metadata) && metadata.mode() & STICKY != 0;
        Ok(Some(Self { path: path.into(), holds_names, _open: open }))
    }

    /// The user's entries, by name.
    fn each_of(
        &self,
        user: SessionUser,
        most: usize,
        mut found: impl FnMut(&Path, &fs::Metadata),
    ) -> io::Result<()> {
        for (count, entry) in fs::read_dir(&self.path)?.enumerate() {
            if count == most {
                return Err(io::Error::other(format!("it has more than {most} entries")));
            }
            let entry = entry?;
            // One that has gone since is nobody's.
            if let Ok(metadata) = entry.metadata()
                && metadata.uid() == user.id()
            {
                found(Path::new(&entry.file_name()), &metadata);
            }
        }
        Ok(())
    }
}

/// Removes what the user, whose processes are gone, left in the folders where everybody may write; what it
/// was. It goes by the owner, whom only root can give to something. One of these folders itself, as X makes
/// its own where there is none, stays for others who have something in it, and is this process's from then on.
///
/// # Errors
/// When something of it cannot be removed; the rest is.
pub fn remove_orphaned_files(user: SessionUser) -> Result<Vec<PathBuf>, RemoveError> {
    let shared = Shared::of(user).into_iter().map(|shared| {
        let reported = PathBuf::from(shared.to_string());
        gone(&reported, shared.remove()).map(|()| reported)
    });
    let shared: Result<Vec<PathBuf>, RemoveError> = shared.collect();
    let mut removed = remove(&OPEN.map(Path::new), user)?;
    removed.extend(shared?);
    Ok(removed)
}

fn remove(folders: &[&Path], user: SessionUser) -> Result<Vec<PathBuf>, RemoveError> {
    let mut failed = None;
    let mut removed = Vec::new();
    for path in folders {
        // A folder that could not be checked is reported by the check afterwards.
        let Ok(Some(folder)) = OpenFolder::at(path) else { continue };
        let _ = folder.each_of(user, MOST_ENTRIES, |name, metadata| {
            let (entry, reported) = (folder.path.join(name), path.join(name));
            let stays = metadata.is_dir() && folders.contains(&reported.as_path());
            let done = match metadata.is_dir() {
                false => fs::remove_file(&entry),
                true if stays => take_over(&entry, user),
                true if folder.holds_names => remove_tree(&entry),
                true => remove_folder(&entry, user),
            };
            match gone(&reported, done) {
                Ok(()) if stays => {}
                Ok(()) => removed.push(reported),
                Err(error) => failed = Some(error),
            }
        });
    }
    failed.map_or(Ok(removed), Err)
}

/// A folder of the user's, whatever takes its name from now on; none where it is somebody else's.
fn opened(path: &Path, user: SessionUser) -> io::Result<Option<File>> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let open = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    let owner = open.metadata()?.uid();
    Ok((owner == user.id()).then_some(open))
}

/// A folder for everybody that the user made, which is for everybody still.
fn take_over(path: &Path, user: SessionUser) -> io::Result<()> {
    let Some(open) = opened(path, user)? else { return Ok(()) };
    std::os::unix::fs::fchown(&open, Some(nix::unistd::geteuid().as_raw()), None)?;
    open.set_permissions(fs::Permissions::from_mode(0o1777))
}

/// A folder of the user's in one where somebody else could put another in its place: what is removed is
/// in the one that was opened. An empty one that took its name since can be removed by who put it there.
fn remove_folder(path: &Path, user: SessionUser) -> io::Result<()> {
    let Some(open) = opened(path, user)? else { return Ok(()) };
    let opened = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), open.as_raw_fd()));
    let entries = fs::read_dir(&opened)?.map(|entry| entry.map(|entry| entry.path()));
    let entries: Vec<PathBuf> = entries.collect::<io::Result<_>>()?;
    entries.chunks(AT_A_TIME).try_for_each(remove_trees)?;
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests;
