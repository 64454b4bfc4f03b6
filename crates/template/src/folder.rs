//! Where templates lie, and how what lies there is read.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};

use crate::error::TemplateError;
use crate::machine_key::MachineKey;
use crate::made_for::is_id;
use crate::manifest::{MAX_MANIFEST, Manifest, NotUnderstood, VERSION};

pub(crate) const MEMORY: &str = "memory";
pub(crate) const STATE: &str = "state";
pub(crate) const PICTURE: &str = "picture.png";
pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const SIGNATURE: &str = "manifest.sig";

/// Longer than any signature, in bytes.
const MAX_SIGNATURE: u64 = 128;

/// The folder of an image's templates.
pub(crate) fn templates(image_dir: &Path) -> PathBuf {
    image_dir.join(crate::FOLDER)
}

/// The image's name, as commands take it: images lie in `<name>/<recipe digest>`.
pub(crate) fn image_name(image_dir: &Path) -> String {
    let name = image_dir.parent().and_then(Path::file_name);
    name.map_or_else(|| "NAME".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The folders of all templates.
pub(crate) fn all(image_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(templates(image_dir));
    let entries = entries.into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_id));
    named.map(|entry| entry.path()).collect()
}

/// An open folder of a template: what is opened in it is of one template, also when another takes its
/// place meanwhile.
pub(crate) struct Folder {
    pub(crate) dir: PathBuf,
    image: String,
    open: File,
}

impl Folder {
    pub(crate) fn open(image_dir: &Path, dir: PathBuf) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = rustix::fs::open(&dir, flags, Mode::empty())?.into();
        Ok(Self { dir, image: image_name(image_dir), open })
    }

    /// A regular file in it.
    pub(crate) fn file(&self, name: &str) -> Result<File, TemplateError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // A pipe's other end is not waited for.
        let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = openat(&self.open, name, flags, Mode::empty())
            .map_err(io::Error::from)
            .map(File::from)
            .and_then(|file| match file.metadata()?.is_file() {
                true => Ok(file),
                false => Err(io::Error::other("it is not a regular file")),
            });
        opened.map_err(TemplateError::unreadable(&self.image, &self.dir.join(name)))
    }

    /// A small file's bytes; of a longer one, one more than `most`.
    pub(crate) fn bytes(&self, name: &str, most: u64) -> Result<Vec<u8>, TemplateError> {
        let mut bytes = Vec::new();
        let read = self.file(name)?.take(most + 1).read_to_end(&mut bytes);
        read.map_err(TemplateError::unreadable(&self.image, &self.dir.join(name)))?;
        Ok(bytes)
    }

    /// The manifest, which says nothing that can be trusted.
    pub(crate) fn manifest(&self) -> Result<Manifest, TemplateError> {
        self.understood(&self.manifest_bytes()?)
    }

    /// The manifest, if this key has signed it.
    pub(crate) fn signed_manifest(&self, key: &MachineKey) -> Result<Manifest, TemplateError> {
        let bytes = self.manifest_bytes()?;
        if !key.has_signed(&bytes, &self.bytes(SIGNATURE, MAX_SIGNATURE)?) {
            let (image, dir) = (self.image.clone(), self.dir.clone());
            return Err(TemplateError::NotSigned { image, dir });
        }
        self.understood(&bytes)
    }

    fn manifest_bytes(&self) -> Result<Vec<u8>, TemplateError> {
        let bytes = self.bytes(MANIFEST, MAX_MANIFEST)?;
        check_manifest(&self.image, &bytes)?;
        Ok(bytes)
    }

    fn understood(&self, bytes: &[u8]) -> Result<Manifest, TemplateError> {
        let image = self.image.clone();
        Manifest::from_json(bytes).map_err(|why| match why {
            NotUnderstood::Version(found) => {
                let dir = self.dir.clone();
                TemplateError::WrongVersion { image, dir, found, expected: VERSION }
            }
            NotUnderstood::Json(source) => {
                TemplateError::BadManifest { image, path: self.dir.join(MANIFEST), source }
            }
        })
    }
}

/// Refuses a manifest that is too long.
pub(crate) fn check_manifest(image: &str, bytes: &[u8]) -> Result<(), TemplateError> {
    check_size(image, "manifest", bytes.len() as u64, 0..=MAX_MANIFEST)
}

/// Refuses a file that is too short or too long.
pub(crate) fn check_size(
    image: &str,
    what: &'static str,
    found: u64,
    expected: std::ops::RangeInclusive<u64>,
) -> Result<(), TemplateError> {
    if expected.contains(&found) {
        return Ok(());
    }
    let expected = match expected.into_inner() {
        (least, most) if least == most => most.to_string(),
        (_, most) => format!("at most {most}"),
    };
    Err(TemplateError::WrongSize { image: image.to_owned(), what, found, expected })
}
