//! The key that a controller signs envelopes with, and its public half, as those who open credentials
//! have it.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

/// A controller's Ed25519 key.
#[derive(Clone)]
pub struct ControllerKey {
    key: SigningKey,
    public: PublicKey,
}

/// Its public half.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    key: VerifyingKey,
    pem: String,
    id: String,
}

/// The key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ControllerKeyError {
    /// Its file cannot be read or written.
    #[error("opening the controller's key {} failed", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file holds no key.
    #[error("{} does not contain an Ed25519 key in PKCS#8 PEM; restore it from a backup, or move it away to create a new one", .0.display())]
    NotAKey(PathBuf),
    /// No public key.
    #[error(
        "this is not an Ed25519 public key in PEM; use what `anteroom credentials key` prints, which starts with -----BEGIN PUBLIC KEY-----"
    )]
    NotAPublicKey,
}

impl fmt::Debug for ControllerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ControllerKey").field(&self.public).finish()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

impl ControllerKey {
    /// Opens the key, or makes it. What was signed with one that is gone is signed anew when it is
    /// asked for, so that nothing is lost with it.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn open(path: &Path) -> Result<Self, ControllerKeyError> {
        match Self::read(path) {
            Err(ControllerKeyError::File { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Self::create(path)
            }
            read => read,
        }
    }

    /// Reads the key.
    ///
    /// # Errors
    /// When the file is not there or holds none.
    pub fn read(path: &Path) -> Result<Self, ControllerKeyError> {
        let failed = |source| ControllerKeyError::File { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let key = SigningKey::from_pkcs8_pem(&text);
        let key = key.map_err(|_| ControllerKeyError::NotAKey(path.to_owned()))?;
        Self::of(key).ok_or_else(|| ControllerKeyError::NotAKey(path.to_owned()))
    }

    fn create(path: &Path) -> Result<Self, ControllerKeyError> {
        let failed = |source| ControllerKeyError::File { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let key = SigningKey::from_bytes(&rand::random());
        let pem = key.to_pkcs8_pem(LineEnding::LF);
        let pem = pem.map_err(|_| ControllerKeyError::NotAKey(path.to_owned()))?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(path)
            .map_err(failed)?;
        file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        Self::of(key).ok_or_else(|| ControllerKeyError::NotAKey(path.to_owned()))
    }

    fn of(key: SigningKey) -> Option<Self> {
        let public = PublicKey::of(key.verifying_key())?;
        Some(Self { key, public })
    }

    /// What verifies its signatures.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.key.sign(message).to_vec()
    }
}

impl PublicKey {
    /// Reads SPKI PEM (RFC 8410).
    ///
    /// # Errors
    /// When it is none, or of another kind.
    pub fn from_pem(text: &str) -> Result<Self, ControllerKeyError> {
        let key = VerifyingKey::from_public_key_pem(text.trim()).ok();
        key.and_then(Self::of).ok_or(ControllerKeyError::NotAPublicKey)
    }

    fn of(key: VerifyingKey) -> Option<Self> {
        let der = key.to_public_key_der().ok()?;
        let pem = key.to_public_key_pem(LineEnding::LF).ok()?;
        Some(Self { key, pem, id: hex::encode(Sha256::digest(der.as_bytes())) })
    }

    /// The SPKI PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of its SPKI DER, in hexadecimal.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.key.verify_strict(message, &signature).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vault/controller.pem");
        let first = ControllerKey::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o400);
        let again = ControllerKey::open(&path).unwrap();
        assert_eq!(again.public(), first.public());
        assert_eq!(&PublicKey::from_pem(first.public().pem()).unwrap(), first.public());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "nonsense").unwrap();
        assert!(matches!(ControllerKey::open(&path), Err(ControllerKeyError::NotAKey(_))));
        assert!(PublicKey::from_pem("nonsense").is_err());
    }
}
