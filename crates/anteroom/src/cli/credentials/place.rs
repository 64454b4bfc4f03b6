//! Files into a home: all of them or none, over nothing that exists without --force, and never
//! through a link. Each folder is opened from the one above it, and everything is done by its
//! descriptor: what somebody puts in its place meanwhile changes nothing.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anteroom_vault::BundledFile;
use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, fsync, linkat, mkdirat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

const FOLDER: OFlags =
    OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::RDONLY).union(OFlags::CLOEXEC);
const NEW_FILE: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A folder and a name in it.
#[derive(Clone)]
struct Spot {
    folder: Rc<OwnedFd>,
    name: String,
}

/// A file that is ready beside its place.
struct Ready {
    place: Spot,
    /// The file under a name of its own.
    ready: Spot,
    /// Whether a file is in its place, which may be replaced.
    replaces: bool,
    /// For people.
    shown: PathBuf,
}

/// How a file that is in its place is taken back.
enum Undo {
    Remove(Spot),
    /// The file that was there, under a name of its own, goes back to its place.
    PutBack {
        kept: Spot,
        place: Spot,
    },
}

/// A folder that was made.
enum Made {
    Folder(Spot),
    Home(PathBuf),
}

/// Files on their way into a home. Unless it is [`kept`](Placing::keep) all is undone when it is
/// dropped.
pub struct Placing {
    ready: Vec<Ready>,
    undo: Vec<Undo>,
    made: Vec<Made>,
    /// Names of our own, which go in any case.
    scraps: Vec<Spot>,
}

impl Placing {
    /// Whether files can be written into this home; nothing of the look is left.
    pub fn try_home(home: &Path) -> Result<()> {
        let mut placing = Self::prepare(&[], home, false)?;
        let top = placing.open_home(home)?;
        let scrap = placing.own_name(&top);
        let written = placing.write(&scrap, b"");
        written.with_context(|| format!("cannot write to the home directory {}", home.display()))
    }

    /// Writes all files beside their places, which must be free; with `force` they may be taken by
    /// files.
    pub fn prepare(files: &[BundledFile], home: &Path, force: bool) -> Result<Self> {
        let (ready, undo, made, scraps) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut placing = Self { ready, undo, made, scraps };
        let top = placing.open_home(home)?;
        for file in files {
            let shown = home.join(&file.path);
            let ready = placing.prepare_one(file, &top, home, force)?;
            placing.ready.push(Ready { shown, ..ready });
        }
        Ok(placing)
    }

    /// Puts them into their places.
    pub fn commit(&mut self) -> Result<()> {
        for Ready { place, ready, replaces, shown } in std::mem::take(&mut self.ready) {
            let put =
                if replaces { self.replace(&place, &ready) } else { self.put(&place, &ready) };
            put.with_context(|| format!("writing {} failed", shown.display()))?;
        }
        Ok(())
    }

    /// Nothing of it is undone any more.
    pub fn keep(mut self) {
        self.undo.clear();
        self.made.clear();
    }

    fn open_home(&mut self, home: &Path) -> Result<Rc<OwnedFd>> {
        if !home.exists() {
            std::fs::DirBuilder::new()
                .mode(0o700)
                .create(home)
                .with_context(|| format!("creating {} failed", home.display()))?;
            self.made.push(Made::Home(home.to_owned()));
        }
        // The home itself may be behind a link: where it is, is its owner's to say.
        let flags = FOLDER.difference(OFlags::NOFOLLOW);
        let opened = openat(rustix::fs::CWD, home, flags, Mode::empty());
        opened
            .map(Rc::new)
            .with_context(|| format!("cannot open the home directory {}", home.display()))
    }

    fn prepare_one(
        &mut self,
        file: &BundledFile,
        top: &Rc<OwnedFd>,
        home: &Path,
        force: bool,
    ) -> Result<Ready> {
        let shown = home.join(&file.path);
        let mut parts: Vec<&str> = file.path.split('/').collect();
        let name = parts.pop().unwrap_or_default().to_owned();
        let mut folder = top.clone();
        let mut at = home.to_owned();
        for part in parts {
            at.push(part);
            folder = self.enter(&folder, part, &at)?;
        }
        let place = Spot { folder: folder.clone(), name };
        let replaces = match statat(&folder, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => false,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot inspect {}", shown.display()));
            }
            Ok(found) if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile => {
                bail!("{} is not a regular file; move it away first", shown.display())
            }
            Ok(_) if !force => bail!("{} already exists; --force replaces it", shown.display()),
            Ok(_) => true,
        };
        let ready = self.own_name(&folder);
        self.write(&ready, &file.content)
            .with_context(|| format!("cannot write next to {}", shown.display()))?;
        Ok(Ready { place, ready, replaces, shown })
    }

    /// The folder in a folder, which is made when it is not there.
    fn enter(&mut self, above: &Rc<OwnedFd>, name: &str, shown: &Path) -> Result<Rc<OwnedFd>> {
        let open = || openat(above.as_fd(), name, FOLDER, Mode::empty());
        let opened = match open() {
            Err(Errno::NOENT) => {
                mkdirat(above.as_fd(), name, Mode::RWXU)
                    .with_context(|| format!("creating {} failed", shown.display()))?;
                let folder = Spot { folder: above.clone(), name: name.to_owned() };
                self.made.push(Made::Folder(folder));
                open()
            }
            opened => opened,
        };
        match opened {
            Ok(folder) => Ok(Rc::new(folder)),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(anyhow!(
                "{} is not a folder, or is a link to one; move it away first",
                shown.display()
            )),
            Err(error) => Err(error).with_context(|| format!("opening {} failed", shown.display())),
        }
    }

    /// A name that nobody else has, and that goes in the end.
    fn own_name(&mut self, folder: &Rc<OwnedFd>) -> Spot {
        let name = format!(".anteroom-{:016x}", rand::random::<u64>());
        let spot = Spot { folder: folder.clone(), name };
        self.scraps.push(spot.clone());
        spot
    }

    fn write(&self, spot: &Spot, content: &[u8]) -> std::io::Result<()> {
        // Nobody else may read it, and nobody may run it.
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(openat(&spot.folder, &spot.name, NEW_FILE, mode)?);
        rustix::fs::fchmod(&file, mode)?;
        file.write_all(content)?;
        file.sync_all()
    }

    /// Where nothing is: a hard link fails where something has come meanwhile.
    fn put(&mut self, place: &Spot, ready: &Spot) -> Result<()> {
        let none = AtFlags::empty();
        match linkat(&ready.folder, &ready.name, &place.folder, &place.name, none) {
            Err(Errno::EXIST) => bail!("something else was created there in the meantime"),
            linked => linked?,
        }
        self.undo.push(Undo::Remove(place.clone()));
        Ok(fsync(&place.folder)?)
    }

    /// Where a file is: its readers see the old one or the new one.
    fn replace(&mut self, place: &Spot, ready: &Spot) -> Result<()> {
        let kept = self.own_name(&place.folder);
        linkat(&place.folder, &place.name, &kept.folder, &kept.name, AtFlags::empty())?;
        renameat(&ready.folder, &ready.name, &place.folder, &place.name)?;
        self.undo.push(Undo::PutBack { kept, place: place.clone() });
        Ok(fsync(&place.folder)?)
    }
}

impl Drop for Placing {
    fn drop(&mut self) {
        for undo in self.undo.drain(..).rev() {
            let _ = match undo {
                Undo::Remove(place) => remove(&place, AtFlags::empty()),
                Undo::PutBack { kept, place } => {
                    renameat(&kept.folder, &kept.name, &place.folder, &place.name)
                }
            };
        }
        for scrap in &self.scraps {
            let _ = remove(scrap, AtFlags::empty());
        }
        for made in self.made.drain(..).rev() {
            match made {
                Made::Folder(folder) => {
                    let _ = remove(&folder, AtFlags::REMOVEDIR);
                }
                Made::Home(home) => {
                    let _ = std::fs::remove_dir(home);
                }
            }
        }
    }
}

fn remove(spot: &Spot, flags: AtFlags) -> rustix::io::Result<()> {
    unlinkat(&spot.folder, &spot.name, flags)
}

#[cfg(test)]
mod tests;
