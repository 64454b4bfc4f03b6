//! Why a template cannot be made, loaded or removed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::made_for::Difference;

/// A template that cannot be made, loaded or removed. `image` is the image's name everywhere.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The image has none.
    #[error("there is no template of the image {image} in {}; make one with `anteroom image snapshot {image}`", dir.display())]
    NoTemplate {
        /// Of which image.
        image: String,
        /// Where was looked.
        dir: PathBuf,
    },
    /// There is no template of that id to remove.
    #[error("there is no template {id} in {}; see `anteroom image list`", dir.display())]
    NothingToRemove {
        /// As it was asked for.
        id: String,
        /// Where was looked.
        dir: PathBuf,
    },
    /// Its signature is not of this machine's key.
    #[error("the template in {} is not signed with this machine's key, because it was made on another machine or its manifest was changed; make it again with `anteroom image snapshot {image}`", dir.display())]
    NotSigned {
        /// Of which image.
        image: String,
        /// Its folder.
        dir: PathBuf,
    },
    /// The memory or the state is not what the manifest says.
    #[error("the template's file {} was changed: it has {found}, the manifest says {expected}; make the template again with `anteroom image snapshot {image}`", path.display())]
    FileChanged {
        /// Of which image.
        image: String,
        /// The file.
        path: PathBuf,
        /// As the manifest has it.
        expected: String,
        /// As it is.
        found: String,
    },
    /// It was made for something else than what is here.
    #[error("the template was {difference}; make it again with `anteroom image snapshot {image}`")]
    MadeForAnother {
        /// Of which image.
        image: String,
        /// The first field that differs, of the template that differs in the fewest.
        difference: Difference,
    },
    /// Its manifest is of another version.
    #[error("the template in {} has version {found}, this program reads version {expected}; make it again with `anteroom image snapshot {image}`", dir.display())]
    WrongVersion {
        /// Of which image.
        image: String,
        /// Its folder.
        dir: PathBuf,
        /// As the manifest has it.
        found: u32,
        /// As it has to be.
        expected: u32,
    },
    /// It is larger or smaller than any can be.
    #[error(
        "the template's {what} has {found} bytes, but must have {expected}; make it again with `anteroom image snapshot {image}`"
    )]
    WrongSize {
        /// Of which image.
        image: String,
        /// The memory, the state or the manifest.
        what: &'static str,
        /// How many bytes it has.
        found: u64,
        /// How many it must have, as a sentence says it.
        expected: String,
    },
    /// A file is missing or unreadable.
    #[error("the template's file {} cannot be read; make the template again with `anteroom image snapshot {image}`", path.display())]
    Unreadable {
        /// Of which image.
        image: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The manifest was signed here and is not understood all the same.
    #[error("the template's manifest {} is not understood; make the template again with `anteroom image snapshot {image}`", path.display())]
    BadManifest {
        /// Of which image.
        image: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// This machine has no memory for it.
    #[error(
        "the template's {what} of {bytes} bytes cannot be put into memory; free some memory, or remove the template"
    )]
    NoMemory {
        /// The memory or the state.
        what: &'static str,
        /// Its length with all holes.
        bytes: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What the VMM saved cannot be read.
    #[error(
        "the {what} of the VM cannot be read; make the template again with `anteroom image snapshot {image}`"
    )]
    NotSaved {
        /// Of which image.
        image: String,
        /// The memory or the state.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its disk is full.
    #[error("there is no space left on the disk for the template's {}; free some, and make the template again", path.display())]
    DiskFull {
        /// The file or folder.
        path: PathBuf,
        /// As the system says it.
        #[source]
        source: io::Error,
    },
    /// It cannot be written or removed.
    #[error("writing or removing the template's {} failed; make sure that its folder can be written", path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody wanted it to end.
    #[error("writing the template was stopped; none was made")]
    Stopped,
    /// Somebody else makes or removes one, and takes long.
    #[error("another command has changed the templates in {} for {} s; wait for its end, and try again", dir.display(), waited.as_secs())]
    Busy {
        /// Where templates of the image are.
        dir: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
}

impl TemplateError {
    pub(crate) fn unwritable(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path, source }
            }
            _ => Self::Unwritable { path, source },
        }
    }

    pub(crate) fn unreadable(image: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Unreadable { image: image.to_owned(), path: path.to_path_buf(), source }
    }
}
