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
mod tests {
    use std::os::unix::fs::{lchown, symlink};

    use super::*;

    /// A folder where everybody may write, with these bits.
    fn open_folder(mode: u32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
        folder
    }

    /// A file, a link and a tree; only root gives them to another.
    fn left_in(folder: &Path, user: SessionUser) -> Option<[PathBuf; 3]> {
        let left = ["file", "link", "tree"].map(|name| folder.join(name));
        let [file, link, tree] = &left;
        fs::write(file, "x").unwrap();
        symlink("/nowhere", link).unwrap();
        fs::create_dir(tree).unwrap();
        fs::write(tree.join("deep"), "x").unwrap();
        for path in &left {
            lchown(path, Some(user.id()), None).ok()?;
        }
        Some(left)
    }

    fn found_in(folder: &Path, user: SessionUser) -> Vec<PathBuf> {
        let mut found = OrphanedFiles::within([folder], user, 100).found;
        found.sort();
        found
    }

    #[test]
    fn what_the_user_left_is_found_and_removed_and_nobody_else_s() {
        let (user, other) = (SessionUser::try_from(1_900_000_010).unwrap(), 1_900_000_011);
        let folder = open_folder(0o1777);
        let Some(left) = left_in(folder.path(), user) else { return };
        let others = folder.path().join("other");
        fs::write(&others, "x").unwrap();
        lchown(&others, Some(other), None).unwrap();
        assert_eq!(found_in(folder.path(), user), left);
        assert_eq!(remove(&[folder.path()], user).unwrap().len(), 3);
        assert_eq!(found_in(folder.path(), user), [] as [PathBuf; 0]);
        assert!(others.exists());
    }

    #[test]
    fn a_tree_is_removed_also_where_another_could_be_put_in_its_place() {
        let user = SessionUser::try_from(1_900_000_012).unwrap();
        let exchangeable = [(0o777, 0), (0o1777, 65534)];
        for (mode, owner) in exchangeable {
            let folder = open_folder(mode);
            let Some([_, _, tree]) = left_in(folder.path(), user) else { return };
            lchown(folder.path(), Some(owner), None).unwrap();
            assert_eq!(remove(&[folder.path()], user).unwrap().len(), 3);
            assert!(!tree.exists());
            assert_eq!(found_in(folder.path(), user), [] as [PathBuf; 0]);
        }
    }

    #[test]
    fn a_folder_for_everybody_that_the_user_made_stays_with_what_others_have_in_it() {
        let (user, other) = (SessionUser::try_from(1_900_000_017).unwrap(), 1_900_000_018);
        let folder = open_folder(0o1777);
        let Some(left) = left_in(folder.path(), user) else { return };
        let sockets = &left[2];
        let others = sockets.join("X2");
        fs::write(&others, "x").unwrap();
        lchown(&others, Some(other), None).unwrap();
        lchown(sockets.join("deep"), Some(user.id()), None).unwrap();
        let folders = [folder.path(), sockets.as_path()];
        remove(&folders, user).unwrap();
        assert!(others.exists() && !sockets.join("deep").exists());
        let found = fs::metadata(sockets).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o7777), (0, 0o1777));
        assert_eq!(OrphanedFiles::within(folders, user, 100).found, [] as [PathBuf; 0]);
    }

    #[test]
    fn what_took_the_place_of_a_tree_stays() {
        let (user, other) = (SessionUser::try_from(1_900_000_015).unwrap(), 1_900_000_016);
        let folder = open_folder(0o777);
        let Some([file, link, tree]) = left_in(folder.path(), user) else { return };
        let others = folder.path().join("others");
        fs::create_dir(&others).unwrap();
        fs::write(others.join("kept"), "x").unwrap();
        lchown(&others, Some(other), None).unwrap();
        remove_folder(&others, user).unwrap();
        // Neither what a link leads to nor what is no folder.
        fs::remove_file(&link).unwrap();
        symlink(&tree, &link).unwrap();
        assert!(remove_folder(&link, user).is_err() && remove_folder(&file, user).is_err());
        assert!(others.join("kept").exists() && tree.join("deep").exists());
    }

    #[test]
    fn a_link_in_a_folder_s_place_is_followed_only_where_the_machine_has_it_so() {
        let user = SessionUser::try_from(1_900_000_014).unwrap();
        let folder = open_folder(0o1777);
        let Some(left) = left_in(folder.path(), user) else { return };
        let beside = tempfile::tempdir().unwrap();
        let link = beside.path().join("link");
        symlink(folder.path(), &link).unwrap();
        lchown(&link, Some(65534), None).unwrap();
        assert_eq!(remove(&[link.as_path()], user).unwrap(), [] as [PathBuf; 0]);
        assert_eq!(found_in(&link, user), [] as [PathBuf; 0]);
        assert_eq!(found_in(folder.path(), user), left);
        lchown(&link, Some(0), None).unwrap();
        assert_eq!(found_in(&link, user).len(), 3);
    }

    #[test]
    fn a_folder_without_end_is_reported() {
        let user = SessionUser::try_from(1_900_000_013).unwrap();
        let folder = open_folder(0o1777);
        for name in ["a", "b", "c"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let within = |most| OrphanedFiles::within([folder.path()], user, most).unseen.len();
        assert_eq!((within(3), within(2)), (0, 1));
    }
}
