//! Who a credential is sealed to: the caller's key, or the vault's own; and what may come out of it.
//!
//! Sealing itself happens in the guest (`anteroom-agent`); the host only ever holds age files. The
//! vault's identity is for callers that give no key, and for the operator who opens theirs.
//!
//! A guest is not to be trusted, also about what it sealed: the controller signs an [`Envelope`] with
//! the names that the provider file declares, and [`open_bundle`] takes nothing else.
#![forbid(unsafe_code)]

mod bundle;
mod controller_key;
mod envelope;

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret;
use age::x25519::{Identity, Recipient};

pub use bundle::{Bundle, BundleError, BundledFile, BundledSecret, open_bundle};
pub use controller_key::{ControllerKey, ControllerKeyError, PublicKey};
pub use envelope::{Declared, Envelope, EnvelopeError, MAX_ENVELOPE, PAYLOAD_TYPE, Statement};

/// The first line of every age file (age-encryption.org/v1).
const AGE_HEADER: &[u8] = b"age-encryption.org/v1\n";

/// The largest sealed credential taken, in bytes.
pub const MAX_SEALED: usize = 2 * 1024 * 1024;

/// The shortest file to one key: header of at least this size, a nonce of 16 bytes, a tag of 16.
const MIN_SEALED: usize = 180;

/// The vault's public half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vault {
    recipient: String,
}

/// The vault cannot be used, or a key or sealed file is none.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The identity file cannot be read or written.
    #[error("opening the identity {} failed", path.display())]
    Identity {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file holds no identity.
    #[error("{} does not contain an age identity; restore it from your backup", .0.display())]
    NotAnIdentity(PathBuf),
    /// There are credentials and no key to open them. A new one would only hide that.
    #[error("the vault's identity {} is missing, and credentials sealed to it exist; restore it from your backup", .0.display())]
    Sealed(PathBuf),
    /// A caller's key is none.
    #[error(
        "the recipient is not an age X25519 key: {0}; create one with `age-keygen` and send the line that starts with age1"
    )]
    NotARecipient(&'static str),
    /// A guest sent something else than an age file.
    #[error("the guest's credential is not an age file of at most {MAX_SEALED} bytes")]
    NotSealed,
}

impl Vault {
    /// Opens the vault's identity, or makes it when `holds_credentials` is false.
    ///
    /// # Errors
    /// When the file cannot be used, or is missing while credentials exist.
    pub fn open(path: &Path, holds_credentials: bool) -> Result<Self, VaultError> {
        let failed = |source| VaultError::Identity { path: path.to_path_buf(), source };
        let identity = match std::fs::read_to_string(path) {
            Ok(text) => parse_identity(&text)
                .ok_or_else(|| VaultError::NotAnIdentity(path.to_path_buf()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && holds_credentials => {
                return Err(VaultError::Sealed(path.to_path_buf()));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                create(path, 0o400).map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        Ok(Self { recipient: identity.to_public().to_string() })
    }

    /// The key that credentials are sealed to when the caller gives none.
    #[must_use]
    pub fn recipient(&self) -> &str {
        &self.recipient
    }
}

/// The form that age-keygen writes: comments, and one line with the secret key.
fn parse_identity(text: &str) -> Option<Identity> {
    text.lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with('#'))?
        .parse()
        .ok()
}

/// The recipient of an identity, in the form that age-keygen writes, if it is one.
#[must_use]
pub fn recipient_of(identity: &str) -> Option<String> {
    Some(parse_identity(identity)?.to_public().to_string())
}

/// Makes an identity of an end user's or a workspace's own in a new file that nobody else may read; its
/// recipient.
///
/// # Errors
/// When the file is there already or cannot be written.
pub fn create_identity(path: &Path) -> Result<String, VaultError> {
    let failed = |source| VaultError::Identity { path: path.to_path_buf(), source };
    create(path, 0o600).map(|identity| identity.to_public().to_string()).map_err(failed)
}

/// A recipient whose identity nobody keeps, for a credential that nobody is to have.
#[must_use]
pub fn nobody() -> String {
    Identity::generate().to_public().to_string()
}

fn create(path: &Path, mode: u32) -> std::io::Result<Identity> {
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let identity = Identity::generate();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let secret = identity.to_string();
    writeln!(file, "# public key: {}\n{}", identity.to_public(), secret.expose_secret())?;
    file.sync_all()?;
    Ok(identity)
}

/// Checks a caller's key; its one spelling.
///
/// # Errors
/// When it is no X25519 recipient.
pub fn check_recipient(text: &str) -> Result<String, VaultError> {
    text.parse::<Recipient>().map(|key| key.to_string()).map_err(VaultError::NotARecipient)
}

/// Checks that bytes are an age file for keys, by its whole header; nobody here could open it.
///
/// # Errors
/// When they are not, or are too many.
pub fn check_sealed(bytes: &[u8]) -> Result<(), VaultError> {
    if !bytes.starts_with(AGE_HEADER) || bytes.len() > MAX_SEALED {
        return Err(VaultError::NotSealed);
    }
    match age::Decryptor::new(bytes) {
        // A header alone: not even the nonce and the first chunk's tag.
        Ok(file) if !file.is_scrypt() && bytes.len() >= MIN_SEALED => Ok(()),
        _ => Err(VaultError::NotSealed),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_identity_is_made_once_and_never_silently_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vault/identity.txt");
        let first = Vault::open(&path, false).unwrap();
        assert_eq!(Vault::open(&path, true).unwrap(), first);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o400);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Vault::open(&path, true), Err(VaultError::Sealed(_))));
        std::fs::write(&path, "nonsense").unwrap();
        assert!(matches!(Vault::open(&path, false), Err(VaultError::NotAnIdentity(_))));
    }

    #[test]
    fn keys_and_sealed_files_are_distinguished_from_others() {
        let key = Identity::generate().to_public();
        check_recipient(&key.to_string()).unwrap();
        assert!(check_recipient("age1x").is_err() && check_recipient("ssh-ed25519 AAAA").is_err());
        check_sealed(&age::encrypt(&key, b"secret").unwrap()).unwrap();
        assert!(check_sealed(b"{\"access_token\":1}").is_err());
        assert!(check_sealed(b"age-encryption.org/v1\nand then nothing of it").is_err());
        let phrase = age::secrecy::SecretString::from("guessable");
        let with_phrase = age::encrypt(&age::scrypt::Recipient::new(phrase), b"secret").unwrap();
        assert!(check_sealed(&with_phrase).is_err());
    }
}
