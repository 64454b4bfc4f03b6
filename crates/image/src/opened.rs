//! An image whose files are open and checked: what was verified is what boots.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use crate::hash::sha256_of;
use crate::manifest::{FileRecord, Manifest};
use crate::store::{ImageError, KERNEL, MANIFEST, MODULES, ROOT, read_manifest};

/// A checked image. Its files stay open: whoever boots it gets those that were checked, whatever has
/// their names by then.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its folder.
    pub dir: PathBuf,
    /// What it is made of.
    pub manifest: Manifest,
    /// What a VM boots.
    pub files: ImageFiles,
    seen: ImageStamp,
}

/// The files that a VM boots, open for reading.
#[derive(Clone, Debug)]
pub struct ImageFiles {
    /// The root file system.
    pub root: Arc<OwnedFd>,
    /// The unpacked kernel.
    pub kernel: Arc<OwnedFd>,
    /// The initramfs of kernel modules.
    pub modules: Arc<OwnedFd>,
}

/// Keeps an image from being removed, until dropped.
#[derive(Debug)]
pub struct ImageHold(#[expect(dead_code, reason = "the lock is what counts")] Flock<File>);

/// Which files have the names of an image's, and when they were last changed: while it stays the same, so do
/// their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageStamp([(u64, FileStamp); 3]);

/// Of a file: any change of a byte changes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct FileStamp {
    inode: u64,
    bytes: u64,
    modified_ns: i128,
    changed_ns: i128,
}

/// What is remembered of a file that was hashed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hashed {
    stamp: FileStamp,
    sha256: String,
}

impl Image {
    /// Opens each file once, and checks what it opened against the manifest. A full hash takes seconds, so it is
    /// remembered in `cache_dir`, bound to the file's inode, size and times.
    ///
    /// # Errors
    /// When a file is missing or changed; it is named.
    pub fn open(dir: &Path, cache_dir: &Path) -> Result<Self, ImageError> {
        let manifest = read_manifest(dir)?;
        let cache =
            cache_dir.join(format!("verified-{}-{}.json", manifest.name, manifest.recipe_digest));
        let mut known: BTreeMap<String, Hashed> = fs::read(&cache)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let mut hashed = false;
        let mut checked = |name: &str| {
            let record = manifest.files.get(name).ok_or_else(|| ImageError::BadManifest {
                path: dir.join(MANIFEST),
                source: serde_json::Error::custom(format!("it does not list {name}")),
            })?;
            let Checked { file, seen, was_hashed } =
                check(&dir.join(name), record, known.get(name))?;
            if was_hashed {
                let sha256 = record.sha256.clone();
                known.insert(name.to_owned(), Hashed { stamp: seen.1.clone(), sha256 });
                hashed = true;
            }
            Ok((Arc::new(OwnedFd::from(file)), seen))
        };
        let [(root, root_seen), (kernel, kernel_seen), (modules, modules_seen)] =
            [checked(ROOT)?, checked(KERNEL)?, checked(MODULES)?];
        if hashed {
            // Only a cache: without it the next start hashes again.
            let _ = fs::create_dir_all(cache_dir);
            let _ = fs::write(&cache, serde_json::to_vec(&known).unwrap_or_default());
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            manifest,
            files: ImageFiles { root, kernel, modules },
            seen: ImageStamp([root_seen, kernel_seen, modules_seen]),
        })
    }

    /// Whether the open files are those in the image's folder, and as they were checked. An inode that is open
    /// is nobody else's, so that their names' stamps say both.
    #[must_use]
    pub fn is_current(&self) -> bool {
        ImageStamp::of(&self.dir).is_some_and(|now| now == self.seen)
    }

    /// Where the root file system lies.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.join(ROOT)
    }

    /// Marks it as in use.
    ///
    /// # Errors
    /// When the system refuses that.
    pub fn hold(&self) -> Result<ImageHold, ImageError> {
        let path = self.root();
        self.files.hold().map_err(|source| ImageError::FileUnreadable { path, source })
    }
}

impl ImageFiles {
    /// Marks the image as in use. By its root, not the manifest, which a verification replaces.
    ///
    /// # Errors
    /// When the system refuses that.
    pub fn hold(&self) -> io::Result<ImageHold> {
        // A lock is shared by all that have copies of one descriptor, and any of them unlocks it.
        let own = File::open(format!("/proc/self/fd/{}", self.root.as_raw_fd()))?;
        let lock = Flock::lock(own, FlockArg::LockSharedNonblock);
        lock.map(ImageHold).map_err(|(_, errno)| errno.into())
    }

    /// The bytes of the initramfs of kernel modules.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read_modules(&self) -> io::Result<Vec<u8>> {
        let file = File::from(self.modules.try_clone()?);
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

impl ImageStamp {
    /// Of the image in this folder; `None` where a file is missing.
    #[must_use]
    pub fn of(dir: &Path) -> Option<Self> {
        let of = |name| fs::metadata(dir.join(name)).ok().map(|metadata| stamp(&metadata));
        Some(Self([of(ROOT)?, of(KERNEL)?, of(MODULES)?]))
    }
}

/// The device of a file, which is another after a start of the machine, and the rest of its stamp.
fn stamp(metadata: &Metadata) -> (u64, FileStamp) {
    let nanoseconds =
        |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    let stamp = FileStamp {
        inode: metadata.ino(),
        bytes: metadata.len(),
        modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
    };
    (metadata.dev(), stamp)
}

/// A file as it was checked.
struct Checked {
    file: File,
    seen: (u64, FileStamp),
    was_hashed: bool,
}

fn check(path: &Path, record: &FileRecord, known: Option<&Hashed>) -> Result<Checked, ImageError> {
    let unreadable = |source| ImageError::FileUnreadable { path: path.to_path_buf(), source };
    let changed = |found: String, expected: String| ImageError::FileChanged {
        path: path.to_path_buf(),
        expected,
        found,
    };
    let file = File::open(path).map_err(unreadable)?;
    let look = || file.metadata().map(|metadata| stamp(&metadata)).map_err(unreadable);
    let seen = look()?;
    if seen.1.bytes != record.bytes {
        return Err(changed(format!("{} bytes", seen.1.bytes), format!("{} bytes", record.bytes)));
    }
    if known.is_some_and(|known| known.stamp == seen.1 && known.sha256 == record.sha256) {
        return Ok(Checked { file, seen, was_hashed: false });
    }
    let found = sha256_of(&file).map_err(unreadable)?;
    if found != record.sha256 {
        return Err(changed(format!("SHA-256 {found}"), record.sha256.clone()));
    }
    if look()? != seen {
        let while_read = "other times than when its check began".to_owned();
        return Err(changed(while_read, record.sha256.clone()));
    }
    Ok(Checked { file, seen, was_hashed: true })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::image_in;
    use crate::store::{find, remove};

    fn content(file: &OwnedFd) -> String {
        let file = File::from(file.try_clone().unwrap());
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_changed_or_missing_file_is_refused_by_name_even_after_it_was_verified() {
        let folder = tempfile::tempdir().unwrap();
        let dir = image_in(folder.path());
        let cache = folder.path().join("cache");
        Image::open(&dir, &cache).unwrap();
        Image::open(&dir, &cache).unwrap();
        fs::write(dir.join(KERNEL), "kernex").unwrap();
        let error = Image::open(&dir, &cache).unwrap_err().to_string();
        assert!(error.contains("vmlinux was changed: it has SHA-256"), "{error}");
        fs::remove_file(dir.join(KERNEL)).unwrap();
        let error = Image::open(&dir, &cache).unwrap_err().to_string();
        assert!(error.contains("vmlinux cannot be read"), "{error}");
    }

    #[test]
    fn what_was_opened_is_what_is_booted_and_a_file_in_its_place_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let dir = image_in(folder.path());
        let image = Image::open(&dir, folder.path()).unwrap();
        assert!(image.is_current());
        for (name, of) in [(ROOT, "root"), (KERNEL, "kernel"), (MODULES, "modules")] {
            // Of the same content, length and time of change.
            let (path, other) = (dir.join(name), folder.path().join("other"));
            fs::write(&other, of).unwrap();
            let modified = fs::metadata(&path).unwrap().modified().unwrap();
            File::options().write(true).open(&other).unwrap().set_modified(modified).unwrap();
            fs::rename(&path, folder.path().join("kept")).unwrap();
            assert!(!image.is_current(), "{name} is missing");
            fs::rename(&other, &path).unwrap();
            assert!(!image.is_current(), "{name} was replaced");
            let again = Image::open(&dir, folder.path()).unwrap();
            assert!(again.is_current());
            fs::write(&path, of.to_uppercase()).unwrap();
            assert!(!again.is_current(), "{name} was written");
            fs::write(&path, of).unwrap();
        }
        assert_eq!(content(&image.files.root), "root");
        assert_eq!(content(&image.files.kernel), "kernel");
        assert_eq!(image.files.read_modules().unwrap(), b"modules");
    }

    #[test]
    fn a_manifest_that_lists_not_all_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dir = image_in(folder.path());
        let mut manifest = read_manifest(&dir).unwrap();
        manifest.files.remove(KERNEL);
        fs::write(dir.join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
        let error = Image::open(&dir, folder.path()).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(cause, "it does not list vmlinux");
    }
    #[test]
    fn an_image_in_use_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let dir = image_in(folder.path());
        let image = Image::open(&dir, folder.path()).unwrap();
        let hold = image.hold().unwrap();
        let second = image.files.hold().unwrap();
        drop(hold);
        assert!(matches!(remove(folder.path(), "demo"), Err(ImageError::InUse { .. })));
        drop(second);
        assert_eq!(find(folder.path(), "demo").unwrap().dir, dir);
        // One that is only open is in nobody's use.
        assert_eq!(remove(folder.path(), "0123456789abcdef").unwrap().len(), 1);
        assert!(matches!(find(folder.path(), "demo"), Err(ImageError::NoSuchImage { .. })));
        assert!(!image.is_current());
        assert_eq!(image.files.read_modules().unwrap(), b"modules");
    }
}
