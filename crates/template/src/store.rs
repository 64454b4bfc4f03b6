//! Templates are written, listed and removed.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::copy::{CopyError, Grain, IsStopped, copy};
use crate::digest::ContentDigest;
use crate::error::TemplateError;
use crate::folder::{
    Folder, MANIFEST, MEMORY, PICTURE, SIGNATURE, STATE, all, check_manifest, check_size,
    image_name, templates,
};
use crate::machine_key::MachineKey;
use crate::made_for::{TemplateFor, is_id};
use crate::manifest::{MAX_PICTURE, MAX_STATE, Manifest, Recorded, VERSION, memory_bytes};

/// What is not a template yet or no longer. Only one command at a time has it; where it lies without
/// one, that command was killed.
const TEMPORARY: &str = ".temporary";

/// How long another command is waited for that writes a template: some seconds on most disks.
const OTHERS: Duration = Duration::from_secs(120);

/// How often it is looked whether that has ended: no system waits for a lock with a limit.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a VMM saved of a VM, and what for.
#[derive(Debug)]
pub struct Saved<'a> {
    /// All that has to be the same where it is used.
    pub made_for: TemplateFor,
    /// What the guest waits for before it goes on.
    pub wake_token: String,
    /// The guest's memory of `made_for.memory_mib`, which nobody changes meanwhile. It is read from
    /// its start, and its holes are skipped; its position is moved.
    pub memory: &'a File,
    /// The state of its devices, of at most [`MAX_STATE`]; read in the same way.
    pub state: &'a File,
    /// What its screen shows, as a PNG of at most [`MAX_PICTURE`].
    pub picture: &'a [u8],
}

/// A template on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its folder's name, 16 hexadecimal digits.
    pub id: String,
    /// Its folder.
    pub dir: PathBuf,
    /// What it was made for.
    pub made_for: TemplateFor,
    /// When it was made, in milliseconds since the Unix epoch.
    pub made_unix_ms: u64,
    /// What its files take of the disk.
    pub bytes: u64,
}

/// Writes a template of the image in `image_dir`, signed with `key`, in place of an older one that
/// was made for the same. The older one stays whole until the new one is; whatever fails or is
/// killed, one of the two is there. What a killed command left is removed. Where another command writes
/// one of the image, its end is waited for, some minutes at most. It ends soon after `is_stopped` says so.
///
/// # Errors
/// When what was saved has a wrong size or cannot be read, the disk is full, the folder cannot be
/// written, another command does not end, or it was stopped. Nothing of the new one is left then.
pub fn write(
    image_dir: &Path,
    key: &MachineKey,
    saved: &Saved<'_>,
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Result<Summary, TemplateError> {
    let image = image_name(image_dir);
    let length = |what, file: &File| {
        let image = image.clone();
        let failed = |source| TemplateError::NotSaved { image, what, source };
        file.metadata().map(|found| found.len()).map_err(failed)
    };
    let (memory, state) = (length(MEMORY, saved.memory)?, length(STATE, saved.state)?);
    let expected = memory_bytes(&saved.made_for);
    check_size(&image, MEMORY, memory, expected..=expected)?;
    check_size(&image, STATE, state, 0..=MAX_STATE)?;
    check_size(&image, PICTURE, saved.picture.len() as u64, 0..=MAX_PICTURE)?;
    let place = Place::lock(image_dir, OTHERS, is_stopped)?;
    let temporary = place.temporary()?;
    let new = New::create(&image, &temporary.0, is_stopped)?;
    let memory = new.copy(MEMORY, saved.memory, memory)?;
    let state = new.copy(STATE, saved.state, state)?;
    let picture = new.keep(PICTURE, saved.picture)?;
    let manifest = Manifest {
        version: VERSION,
        made_for: saved.made_for.clone(),
        made_unix_ms: now_unix_ms(),
        wake_token: saved.wake_token.clone(),
        memory,
        state,
        picture,
    };
    new.sign(key, &manifest)?;
    let dir = place.dir.join(manifest.made_for.id());
    place.exchange(&temporary.0, &dir)?;
    // What is temporary now is the older one.
    drop(temporary);
    Ok(summary(dir, manifest))
}

/// Removes a template, by its id. One that is loaded stays in its memory.
///
/// # Errors
/// When there is none, it cannot be removed, or another command that writes one of the image does not end.
pub fn remove(image_dir: &Path, id: &str) -> Result<(), TemplateError> {
    let dir = templates(image_dir);
    let place = dir.join(id);
    // Not a path of the caller's.
    if !is_id(id) || fs::symlink_metadata(&place).is_err() {
        return Err(TemplateError::NothingToRemove { id: id.to_owned(), dir });
    }
    let locked = Place::lock(image_dir, OTHERS, &|| false)?;
    let temporary = locked.temporary()?;
    // In one step: what is half removed must not look like a template.
    fs::rename(&place, &temporary.0).map_err(TemplateError::unwritable(&place))?;
    fs::remove_dir_all(&temporary.0).map_err(TemplateError::unwritable(&temporary.0))
}

/// All templates of the image in `image_dir`, oldest first, as their manifests say; no signature is
/// checked. Folders without a manifest that is understood are left out.
#[must_use]
pub fn list(image_dir: &Path) -> Vec<Summary> {
    let manifest = |dir: &PathBuf| Folder::open(image_dir, dir.clone()).ok()?.manifest().ok();
    let mut all: Vec<Summary> = all(image_dir)
        .into_iter()
        .filter_map(|dir| manifest(&dir).map(|manifest| summary(dir, manifest)))
        .collect();
    all.sort_by(|one, other| (one.made_unix_ms, &one.id).cmp(&(other.made_unix_ms, &other.id)));
    all
}

/// About how much memory the template with this id takes once it is loaded: what it takes on the disk. Nothing
/// where there is none.
#[must_use]
pub fn bytes_to_load(image_dir: &Path, id: &str) -> u64 {
    taken(&templates(image_dir).join(id), &[MEMORY, STATE])
}

fn taken(dir: &Path, files: &[&str]) -> u64 {
    let found = files.iter().filter_map(|name| fs::symlink_metadata(dir.join(name)).ok());
    found.map(|found| found.blocks() * 512).sum()
}

fn summary(dir: PathBuf, manifest: Manifest) -> Summary {
    Summary {
        id: dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        bytes: taken(&dir, &[MEMORY, STATE, PICTURE, MANIFEST, SIGNATURE]),
        made_for: manifest.made_for,
        made_unix_ms: manifest.made_unix_ms,
        dir,
    }
}

fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Where an image's templates are, while one command alone changes them.
struct Place {
    dir: PathBuf,
    /// Locked until it is closed.
    open: File,
}

impl Place {
    /// Waits for another command, for so long.
    fn lock(
        image_dir: &Path,
        limit: Duration,
        is_stopped: IsStopped<'_>,
    ) -> Result<Self, TemplateError> {
        let dir = templates(image_dir);
        let failed = || TemplateError::unwritable(&dir);
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(failed())?,
        }
        let open = File::open(&dir).map_err(failed())?;
        let began = Instant::now();
        loop {
            let waited = began.elapsed();
            match open.try_lock() {
                Ok(()) => return Ok(Self { dir, open }),
                Err(fs::TryLockError::Error(error)) => return Err(failed()(error)),
                Err(fs::TryLockError::WouldBlock) if is_stopped() => {
                    return Err(TemplateError::Stopped);
                }
                Err(fs::TryLockError::WouldBlock) if waited >= limit => {
                    return Err(TemplateError::Busy { dir, waited });
                }
                Err(fs::TryLockError::WouldBlock) => std::thread::sleep(LOOK_AGAIN),
            }
        }
    }

    /// Nothing yet; what is there goes when it is dropped, as what was left by others goes now.
    fn temporary(&self) -> Result<Temporary, TemplateError> {
        let dir = self.dir.join(TEMPORARY);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(TemplateError::unwritable(&dir))?,
        }
        Ok(Temporary(dir))
    }

    /// Puts a folder where another one may be, which is where that folder was then; in one step, so
    /// that there is no moment without either. On the disk when this returns.
    fn exchange(&self, new: &Path, place: &Path) -> Result<(), TemplateError> {
        let renamed = match renameat_with(CWD, new, CWD, place, RenameFlags::EXCHANGE) {
            Err(Errno::NOENT) => renameat_with(CWD, new, CWD, place, RenameFlags::NOREPLACE),
            exchanged => exchanged,
        };
        let renamed = renamed.map_err(io::Error::from).and_then(|()| self.open.sync_all());
        renamed.map_err(TemplateError::unwritable(place))
    }
}

struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // What stays is removed by the next command.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A template that is being written.
struct New<'a> {
    image: &'a str,
    dir: &'a Path,
    is_stopped: IsStopped<'a>,
}

impl<'a> New<'a> {
    fn create(
        image: &'a str,
        dir: &'a Path,
        is_stopped: IsStopped<'a>,
    ) -> Result<Self, TemplateError> {
        let made = DirBuilder::new().mode(0o700).create(dir);
        made.map_err(TemplateError::unwritable(dir))?;
        Ok(Self { image, dir, is_stopped })
    }

    fn copy(&self, what: &'static str, from: &File, bytes: u64) -> Result<Recorded, TemplateError> {
        let (file, path) = self.file(what)?;
        let digest = copy(from, &file, bytes, Grain::Block, self.is_stopped);
        let digest = digest.map_err(|error| match error {
            CopyError::Stopped => TemplateError::Stopped,
            CopyError::Write(error) => TemplateError::unwritable(&path)(error),
            CopyError::Read(source) => {
                TemplateError::NotSaved { image: self.image.to_owned(), what, source }
            }
        })?;
        // Disks that give out space late say only here that there is none.
        file.sync_all().map_err(TemplateError::unwritable(&path))?;
        Ok(Recorded { bytes, digest })
    }

    fn keep(&self, name: &str, content: &[u8]) -> Result<Recorded, TemplateError> {
        self.write(name, content)?;
        Ok(Recorded { bytes: content.len() as u64, digest: ContentDigest::of(content) })
    }

    fn sign(&self, key: &MachineKey, manifest: &Manifest) -> Result<(), TemplateError> {
        let bytes = serde_json::to_vec_pretty(manifest).expect("a manifest has a JSON");
        check_manifest(self.image, &bytes)?;
        for (name, content) in [(SIGNATURE, &key.sign(&bytes)[..]), (MANIFEST, &bytes)] {
            self.write(name, content)?;
        }
        let synced = File::open(self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(TemplateError::unwritable(self.dir))
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), TemplateError> {
        let (mut file, path) = self.file(name)?;
        let written = file.write_all(content).and_then(|()| file.sync_all());
        written.map_err(TemplateError::unwritable(&path))
    }

    fn file(&self, name: &str) -> Result<(File, PathBuf), TemplateError> {
        let path = self.dir.join(name);
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(TemplateError::unwritable(&path))?;
        Ok((file, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_does_not_end_is_not_waited_for_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("demo");
        fs::create_dir(&dir).unwrap();
        let first = Place::lock(&dir, Duration::ZERO, &|| false).unwrap();
        let error = Place::lock(&dir, Duration::ZERO, &|| false).err().unwrap();
        assert!(error.to_string().starts_with("another command has changed the templates in"));
        drop(first);
        Place::lock(&dir, Duration::ZERO, &|| true).unwrap();
    }
}
