//! An opened credential: files with their paths from a home on.

use std::io::Read;
use std::path::{Component, Path, PathBuf};

use crate::{MAX_SEALED, parse_identity};

/// Files of a credential at most.
const MAX_FILES: usize = 64;

/// A file of a credential.
#[derive(Clone, PartialEq, Eq)]
pub struct BundledFile {
    /// From the home on; has no `..`.
    pub path: PathBuf,
    /// Permission bits, at most `0o777`.
    pub mode: u32,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// A credential that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The identity is none.
    #[error("the identity holds no age key; it is the line that starts with AGE-SECRET-KEY-1")]
    NotAnIdentity,
    /// Not sealed, or to another key.
    #[error("opening it with this identity failed; it is sealed to another key, or damaged")]
    NotOpened(#[source] age::DecryptError),
    /// What was sealed is no bundle of ours.
    #[error("what was sealed is no bundle of files: {0}")]
    NotABundle(String),
}

/// Opens a sealed credential with an identity, in the form that age-keygen writes.
///
/// # Errors
/// When it cannot be opened or holds what may not be restored.
pub fn open_bundle(sealed: &[u8], identity: &str) -> Result<Vec<BundledFile>, BundleError> {
    let identity = parse_identity(identity).ok_or(BundleError::NotAnIdentity)?;
    let bytes = age::decrypt(&identity, sealed).map_err(BundleError::NotOpened)?;
    let wrong = |problem: String| BundleError::NotABundle(problem);
    let mut archive = tar::Archive::new(bytes.as_slice());
    let entries = archive.entries().map_err(|error| wrong(error.to_string()))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| wrong(error.to_string()))?;
        let path = entry.path().map_err(|error| wrong(error.to_string()))?.into_owned();
        if entry.header().entry_type() != tar::EntryType::Regular || !stays_in(&path) {
            return Err(wrong(format!("{} is no file of a home", path.display())));
        }
        if files.len() == MAX_FILES {
            return Err(wrong(format!("it has more than {MAX_FILES} files")));
        }
        let mode = entry.header().mode().map_err(|error| wrong(error.to_string()))? & 0o777;
        let mut content = Vec::new();
        let read = entry.take(MAX_SEALED as u64).read_to_end(&mut content);
        read.map_err(|error| wrong(error.to_string()))?;
        files.push(BundledFile { path, mode, content });
    }
    match files.is_empty() {
        true => Err(wrong("it is empty".to_owned())),
        false => Ok(files),
    }
}

/// Whether a path leads nowhere but down.
fn stays_in(path: &Path) -> bool {
    let mut parts = path.components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use age::secrecy::ExposeSecret;
    use age::x25519::Identity;

    use super::*;

    fn sealed(identity: &Identity, entries: &[(&str, tar::EntryType)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, kind) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_mode(0o4600);
            header.set_size(2);
            // Written by hand: the crate refuses to write what it should refuse to read.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            archive.append(&header, &b"{}"[..]).unwrap();
        }
        age::encrypt(&identity.to_public(), &archive.into_inner().unwrap()).unwrap()
    }

    #[test]
    fn only_files_below_a_home_come_out() {
        let identity = Identity::generate();
        let text = identity.to_string();
        let open = |entries: &[(&str, tar::EntryType)]| {
            open_bundle(&sealed(&identity, entries), text.expose_secret())
        };
        let files = open(&[(".codex/auth.json", tar::EntryType::Regular)]).unwrap();
        assert_eq!((files.len(), files[0].mode), (1, 0o600));
        assert_eq!(files[0].path, Path::new(".codex/auth.json"));
        for path in ["../x", "/etc/x", "a/../../x"] {
            assert!(open(&[(path, tar::EntryType::Regular)]).is_err(), "{path}");
        }
        assert!(open(&[("a", tar::EntryType::Symlink)]).is_err());
        assert!(open(&[]).is_err());
        let other = Identity::generate().to_string();
        let bytes = sealed(&identity, &[("a", tar::EntryType::Regular)]);
        assert!(open_bundle(&bytes, other.expose_secret()).is_err());
        assert!(open_bundle(&bytes, "nonsense").is_err());
        assert!(open_bundle(b"nonsense", text.expose_secret()).is_err());
    }
}
