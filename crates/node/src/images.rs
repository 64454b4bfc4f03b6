//! Golden images of this machine: opened and checked once, and open from then on, so that a start neither hashes
//! nor copies one, and a VM boots what was checked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anteroom_guest_link::chain;
use anteroom_image::{Image, ImageError};
use anteroom_session::{EndReason, SetupStep};

/// One for each image's folder: whoever asks for an image that is being checked waits for it, others do not.
type Slot = Arc<Mutex<Option<Arc<Image>>>>;

/// The images that are open. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Images {
    cache_dir: PathBuf,
    slots: Arc<Mutex<HashMap<PathBuf, Slot>>>,
}

impl Images {
    /// None is open yet; `cache_dir` has what is remembered of files that were hashed.
    pub fn new(cache_dir: PathBuf) -> Self {
        Self { cache_dir, slots: Arc::default() }
    }

    /// The image in a folder. It is opened and checked, for seconds perhaps, where it is not open, or its files are
    /// not those any more.
    pub fn open(&self, dir: &Path) -> Result<Arc<Image>, ImageError> {
        let slot = Arc::clone(locked(&self.slots).entry(dir.to_path_buf()).or_default());
        let mut known = locked(&slot);
        if let Some(image) = known.as_ref().filter(|image| image.is_current()) {
            return Ok(Arc::clone(image));
        }
        *known = None;
        let image = Arc::new(Image::open(dir, &self.cache_dir)?);
        *known = Some(Arc::clone(&image));
        Ok(image)
    }

    /// The same for a session that starts.
    pub async fn open_for_session(&self, dir: PathBuf) -> Result<Arc<Image>, EndReason> {
        let images = self.clone();
        let opened = tokio::task::spawn_blocking(move || images.open(&dir)).await;
        let opened = opened.map_err(|error| EndReason::SessionSetupFailed {
            step: SetupStep::CheckImage,
            cause: error.to_string(),
        })?;
        opened.map_err(|error| EndReason::ImageRefused { cause: chain(&error) })
    }

    /// Closes those that were replaced or removed: their space is free when nothing else has them open.
    pub fn close_others(&self) {
        locked(&self.slots).retain(|_, slot| match slot.try_lock() {
            Ok(known) => known.as_ref().is_some_and(|image| image.is_current()),
            // It is being checked.
            Err(_) => true,
        });
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// SHA-256 of "x".
    const DIGEST: &str = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";

    /// An image whose files are all "x".
    fn image_in(folder: &Path) -> PathBuf {
        let file = serde_json::json!({ "sha256": DIGEST, "bytes": 1 });
        let names = ["root.erofs", "vmlinux", "modules.cpio"];
        let files: serde_json::Map<_, _> =
            names.into_iter().map(|name| (name.to_owned(), file.clone())).collect();
        let manifest = serde_json::json!({
            "format": 1, "name": "demo", "recipe_digest": "0", "suite": "", "mirror": "",
            "kernel": "", "created_at": 0, "build_ms": {}, "files": files, "packages": [],
        });
        let dir = folder.join("image");
        fs::create_dir(&dir).unwrap();
        for name in names {
            fs::write(dir.join(name), "x").unwrap();
        }
        fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
        dir
    }

    #[tokio::test]
    async fn an_image_is_opened_once_until_a_file_of_it_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, images) = (image_in(folder.path()), Images::new(folder.path().join("cache")));
        let first = images.open(&dir).unwrap();
        assert!(Arc::ptr_eq(&first, &images.open_for_session(dir.clone()).await.unwrap()));
        images.close_others();
        assert!(Arc::ptr_eq(&first, &images.open(&dir).unwrap()));

        let kernel = dir.join("vmlinux");
        fs::rename(&kernel, folder.path().join("kept")).unwrap();
        fs::write(&kernel, "y").unwrap();
        let refused = images.open_for_session(dir.clone()).await.err().unwrap();
        let EndReason::ImageRefused { cause } = refused else { panic!("{refused:?}") };
        assert!(cause.contains("vmlinux was changed: it has SHA-256"), "{cause}");

        fs::write(&kernel, "x").unwrap();
        let second = images.open(&dir).unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&second, &images.open(&dir).unwrap()));
        drop(first);
        fs::remove_dir_all(&dir).unwrap();
        images.close_others();
        assert_eq!(Arc::strong_count(&second), 1, "nobody else has it open");
    }
}
