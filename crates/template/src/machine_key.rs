//! The key that this machine signs its templates with.

use std::fmt;
use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anteroom_private::{PrivateError, quoted};
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use ed25519_dalek::{Signature, Signer, SigningKey};
use rustix::fs::OFlags;

/// No key's file is longer, in bytes.
const MAX_FILE: u64 = 4096;
/// What is signed begins with it: a signature of something else is never one of a manifest.
const CONTEXT: &[u8] = b"anteroom template manifest\0";

/// This machine's Ed25519 key for templates.
#[derive(Clone)]
pub struct MachineKey(SigningKey);

/// The key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MachineKeyError {
    /// Its file cannot be read.
    #[error("reading the key of templates {} failed", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its folder or file cannot be written, or others can change its folder.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// Others could have read or changed it, or it is not a file; and how to mend that.
    #[error("{0}")]
    Refused(String),
    /// The file holds no key.
    #[error(
        "{} does not contain an Ed25519 key in PKCS#8 PEM; move it away to create a new one, and make the templates again",
        .0.display()
    )]
    NotAKey(PathBuf),
}

impl fmt::Debug for MachineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let public = hex::encode(self.0.verifying_key().as_bytes());
        f.debug_tuple("MachineKey").field(&public).finish()
    }
}

impl MachineKey {
    /// Reads the key (PKCS#8 PEM), or makes one in a file and, where there is none, a folder for this
    /// user alone. Templates that were signed with one that is gone have to be made again.
    ///
    /// # Errors
    /// When the file cannot be used, or others could have read or changed it.
    pub fn load_or_create(path: &Path) -> Result<Self, MachineKeyError> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(path)?,
            Err(source) => return Err(unreadable(path)(source)),
            Ok(_) => {}
        }
        Self::read(path)
    }

    fn create(path: &Path) -> Result<(), MachineKeyError> {
        let folder = folder_of(path);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(PrivateError::from)?;
        let key = SigningKey::from_bytes(&rand::random());
        let pem = key.to_pkcs8_pem(LineEnding::LF);
        let pem = pem.map_err(|_| MachineKeyError::NotAKey(path.to_path_buf()))?;
        match anteroom_private::write_new(path, pem.as_bytes()) {
            // Somebody else was faster: theirs is the key.
            Err(PrivateError::Exists) => Ok(()),
            written => written.map_err(MachineKeyError::from),
        }
    }

    fn read(path: &Path) -> Result<Self, MachineKeyError> {
        anteroom_private::check_used(&[folder_of(path)])?;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = i32::try_from(flags.bits()).unwrap_or_default();
        let file = File::options().read(true).custom_flags(flags).open(path);
        let file = file.map_err(unreadable(path))?;
        // Of what was opened, which nobody can exchange any more.
        check(path, &file.metadata().map_err(unreadable(path))?)?;
        let mut text = String::new();
        file.take(MAX_FILE).read_to_string(&mut text).map_err(unreadable(path))?;
        let key = SigningKey::from_pkcs8_pem(&text);
        key.map(Self).map_err(|_| MachineKeyError::NotAKey(path.to_path_buf()))
    }

    pub(crate) fn sign(&self, manifest: &[u8]) -> [u8; Signature::BYTE_SIZE] {
        self.0.sign(&signed(manifest)).to_bytes()
    }

    pub(crate) fn has_signed(&self, manifest: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|signature| {
            self.0.verifying_key().verify_strict(&signed(manifest), &signature).is_ok()
        })
    }
}

fn signed(manifest: &[u8]) -> Vec<u8> {
    [CONTEXT, manifest].concat()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> MachineKeyError {
    move |source| MachineKeyError::Unreadable { path: path.to_path_buf(), source }
}

fn check(path: &Path, found: &Metadata) -> Result<(), MachineKeyError> {
    let we = rustix::process::geteuid().as_raw();
    let (shown, mode) = (path.display(), found.mode() & 0o7777);
    let refused = |why: String| Err(MachineKeyError::Refused(why));
    if !found.is_file() || found.nlink() != 1 {
        return refused(format!(
            "{shown} is not a regular file with one name; move it away: `mv {q} {q}.away`",
            q = quoted(path)
        ));
    }
    if found.uid() != we {
        return refused(format!(
            "{shown} belongs to the user {}, but this command runs as the user {we}; run it as the owner, or pass another file",
            found.uid()
        ));
    }
    if mode & 0o077 != 0 {
        return refused(format!(
            "{shown} is open to others (mode {mode:04o}); close it with `chmod 0600 {}`",
            quoted(path)
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn said(path: &Path) -> String {
        MachineKey::load_or_create(path).unwrap_err().to_string()
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_is_made_once_for_its_owner_alone_and_signs_for_itself_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys/templates.pem");
        let first = MachineKey::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        let again = MachineKey::load_or_create(&path).unwrap();
        let other = MachineKey::load_or_create(&folder.path().join("other.pem")).unwrap();
        let signature = first.sign(b"manifest");
        assert!(again.has_signed(b"manifest", &signature));
        assert!(!again.has_signed(b"Manifest", &signature));
        assert!(!again.has_signed(b"manifest", &signature[1..]));
        assert!(!other.has_signed(b"manifest", &signature));
        // Of the bytes alone, without the context.
        assert!(!first.has_signed(b"manifest", &first.0.sign(b"manifest").to_bytes()));
        assert!(!format!("{first:?}").contains(&hex::encode(first.0.to_bytes())));
    }

    #[test]
    fn a_key_that_others_could_have_read_or_changed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("templates.pem");
        MachineKey::load_or_create(&path).unwrap();
        mode(&path, 0o640);
        assert!(said(&path).contains("is open to others (mode 0640); close it with `chmod 0600"));
        mode(&path, 0o600);
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(said(&link).starts_with("reading the key of templates"));
        fs::hard_link(&path, folder.path().join("second")).unwrap();
        assert!(said(&path).contains("not a regular file with one name"));
        fs::remove_file(folder.path().join("second")).unwrap();
        mode(folder.path(), 0o777);
        assert!(said(&path).contains("others can write to the folder"));
        mode(folder.path(), 0o700);
        MachineKey::load_or_create(&path).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
            assert!(said(&path).contains("belongs to the user 12345"));
        }
    }

    #[test]
    fn what_is_not_a_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("templates.pem");
        for content in ["", "nonsense", &"x".repeat(10_000)] {
            fs::write(&path, content).unwrap();
            mode(&path, 0o600);
            assert!(said(&path).contains("does not contain an Ed25519 key"));
        }
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(said(&path).contains("not a regular file"));
    }
}
