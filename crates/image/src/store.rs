//! Images on disk: found, listed, removed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::manifest::{Manifest, VerificationRef};

pub(crate) const ROOT: &str = "root.erofs";
pub(crate) const KERNEL: &str = "vmlinux";
pub(crate) const MODULES: &str = "modules.cpio";
pub(crate) const MANIFEST: &str = "manifest.json";

/// A line of `anteroom image list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSummary {
    /// The recipe's name.
    pub name: String,
    /// The recipe's digest.
    pub digest: String,
    /// Its folder.
    pub dir: PathBuf,
    /// Kernel release.
    pub kernel: String,
    /// Seconds since the Unix epoch.
    pub created_at: u64,
    /// Of all files together.
    pub bytes: u64,
    /// Whether it is the newest of its name: whoever asks for the name gets it.
    pub is_default: bool,
    /// What runs in its sandboxes beside the sandbox's own services.
    pub services: Vec<anteroom_guest_protocol::ServiceSpec>,
    /// What was verified of it.
    pub verifications: Vec<VerificationRef>,
}

/// An image that cannot be used or removed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no image of that name.
    #[error("there is no image {name} in {}; build it from its recipe with `anteroom image build RECIPE`", dir.display())]
    NoSuchImage {
        /// Asked for.
        name: String,
        /// Where was looked.
        dir: PathBuf,
    },
    /// There is no image of that name or digest to remove.
    #[error("there is no image {name} in {}; see `anteroom image list`", dir.display())]
    NothingToRemove {
        /// Asked for.
        name: String,
        /// Where was looked.
        dir: PathBuf,
    },
    /// A file is missing or unreadable.
    #[error("the image's file {} cannot be read; build the image again", path.display())]
    FileUnreadable {
        /// The file, by its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not what the manifest says.
    #[error("the image's file {} was changed: it has {found}, the manifest says {expected}; build the image again", path.display())]
    FileChanged {
        /// The file, by its path.
        path: PathBuf,
        /// As the manifest has it.
        expected: String,
        /// As it is.
        found: String,
    },
    /// The manifest is no manifest.
    #[error("the image's manifest {} cannot be read; build the image again", path.display())]
    BadManifest {
        /// The file, by its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A session uses it.
    #[error("the image in {} is in use by a session or a verification; end that first", dir.display())]
    InUse {
        /// Its folder.
        dir: PathBuf,
    },
}

pub(crate) fn read_manifest(dir: &Path) -> Result<Manifest, ImageError> {
    let path = dir.join(MANIFEST);
    let bytes = fs::read(&path)
        .map_err(|source| ImageError::FileUnreadable { path: path.clone(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| ImageError::BadManifest { path, source })
}

/// All images, oldest first. Folders without a manifest are no images.
#[must_use]
pub fn list(images_dir: &Path) -> Vec<ImageSummary> {
    let mut images: Vec<ImageSummary> = folders(images_dir)
        .iter()
        .flat_map(|name| folders(name))
        .filter_map(|dir| {
            let manifest = read_manifest(&dir).ok()?;
            let bytes = manifest.files.values().map(|file| file.bytes).sum();
            Some(ImageSummary {
                name: manifest.name,
                digest: manifest.recipe_digest,
                dir,
                kernel: manifest.kernel,
                created_at: manifest.created_at,
                bytes,
                is_default: false,
                services: manifest.services,
                verifications: manifest.verifications,
            })
        })
        .collect();
    images.sort_by_key(|image| image.created_at);
    let mut seen = BTreeSet::new();
    for image in images.iter_mut().rev() {
        image.is_default = seen.insert(image.name.clone());
    }
    images
}

/// The newest image of a name.
///
/// # Errors
/// When there is none, or only one with a damaged manifest.
pub fn find(images_dir: &Path, name: &str) -> Result<ImageSummary, ImageError> {
    let newest = list(images_dir).into_iter().find(|image| image.name == name && image.is_default);
    if let Some(image) = newest {
        return Ok(image);
    }
    for dir in folders(&images_dir.join(name)).iter().filter(|dir| dir.join(MANIFEST).exists()) {
        read_manifest(dir)?;
    }
    Err(ImageError::NoSuchImage { name: name.to_owned(), dir: images_dir.to_path_buf() })
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

/// Removes every image of that name, or the one of that digest; says what was removed.
///
/// # Errors
/// When there is none, or one is in use (those before it are gone then).
pub fn remove(images_dir: &Path, name_or_digest: &str) -> Result<Vec<ImageSummary>, ImageError> {
    let wanted: Vec<ImageSummary> = list(images_dir)
        .into_iter()
        .filter(|image| image.name == name_or_digest || image.digest == name_or_digest)
        .collect();
    if wanted.is_empty() {
        let name = name_or_digest.to_owned();
        return Err(ImageError::NothingToRemove { name, dir: images_dir.to_path_buf() });
    }
    for image in &wanted {
        let root = image.dir.join(ROOT);
        let unreadable = |path: &Path| {
            let path = path.to_path_buf();
            move |source| ImageError::FileUnreadable { path, source }
        };
        // An image whose root is gone is in nobody's use.
        let _lock = match File::open(&root) {
            Ok(file) => Flock::lock(file, FlockArg::LockExclusiveNonblock)
                .map(Some)
                .map_err(|_| ImageError::InUse { dir: image.dir.clone() })?,
            Err(_) => None,
        };
        // The manifest first: what is half removed must not look like an image.
        let manifest = image.dir.join(MANIFEST);
        fs::remove_file(&manifest).map_err(unreadable(&manifest))?;
        fs::remove_dir_all(&image.dir).map_err(unreadable(&image.dir))?;
    }
    Ok(wanted)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::hash::sha256_of;
    use crate::manifest::FileRecord;

    /// A tiny image; its folder.
    pub(crate) fn image_in(images_dir: &Path) -> PathBuf {
        let dir = images_dir.join("demo/0123456789abcdef");
        fs::create_dir_all(&dir).unwrap();
        let mut files = BTreeMap::new();
        for (name, content) in [(ROOT, "root"), (KERNEL, "kernel"), (MODULES, "modules")] {
            fs::write(dir.join(name), content).unwrap();
            let sha256 = sha256_of(&File::open(dir.join(name)).unwrap()).unwrap();
            files.insert(name.to_owned(), FileRecord { sha256, bytes: content.len() as u64 });
        }
        let manifest = Manifest {
            services: Vec::new(),
            programs: Vec::new(),
            verifications: Vec::new(),
            format: 1,
            name: "demo".into(),
            recipe_digest: "0123456789abcdef".into(),
            suite: "bookworm".into(),
            mirror: "x".into(),
            kernel: "6.1".into(),
            created_at: 1,
            build_ms: BTreeMap::new(),
            files,
            packages: vec![],
        };
        fs::write(dir.join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
        dir
    }

    #[test]
    fn a_damaged_manifest_is_distinguished_from_a_missing_image() {
        let folder = tempfile::tempdir().unwrap();
        let dir = image_in(folder.path());
        fs::write(dir.join(MANIFEST), "{").unwrap();
        assert!(matches!(find(folder.path(), "demo"), Err(ImageError::BadManifest { .. })));
        assert!(matches!(find(folder.path(), "other"), Err(ImageError::NoSuchImage { .. })));
    }

    #[test]
    fn of_each_name_the_newest_is_the_default_and_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let first = image_in(folder.path());
        for (digest, name, created_at) in [("22", "demo", 3), ("33", "demo", 2), ("44", "other", 9)]
        {
            let mut manifest = read_manifest(&first).unwrap();
            (manifest.name, manifest.recipe_digest) = (name.into(), digest.into());
            manifest.created_at = created_at;
            let dir = folder.path().join(name).join(digest);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
        }
        let listed = list(folder.path());
        let defaults: Vec<_> =
            listed.iter().map(|image| (&image.digest[..2], image.is_default)).collect();
        assert_eq!(defaults, [("01", false), ("33", false), ("22", true), ("44", true)]);
        assert_eq!(find(folder.path(), "demo").unwrap().digest, "22");
    }
}
