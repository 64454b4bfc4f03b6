//! The declared secrets of the keyring.

use std::path::PathBuf;

use anteroom_guest_protocol::{KeyringItem, KeyringSpec, MAX_CREDENTIAL, keyring_entry};

use super::bundle::BundledFile;
use super::complete::Complete;
use super::keyring;
use super::look::Look;
use super::missing::Missing;
use super::watched_file::{WatchedFile, owner};
use crate::guest::Guest;

/// Secrets, resolved for this sandbox.
pub struct WatchedKeyring {
    /// As the provider file has them.
    pub secrets: Vec<KeyringSpec>,
    home: PathBuf,
    owner: Option<u32>,
}

impl WatchedKeyring {
    /// What a provider file declares, in this sandbox.
    pub fn new(secrets: Vec<KeyringSpec>, guest: &Guest) -> Self {
        Self { secrets, home: guest.home.clone(), owner: owner(guest) }
    }

    /// The declared secrets, as the bundle has them.
    pub fn look(&self) -> Result<Vec<BundledFile>, Look> {
        let mut items = Vec::new();
        if !self.secrets.is_empty() {
            for name in keyring::files(&self.home) {
                let file = WatchedFile {
                    declared: name.clone(),
                    home: self.home.clone(),
                    complete: Complete::Binary,
                    optional: true,
                    max_bytes: MAX_CREDENTIAL as u64,
                    owner: self.owner,
                };
                let text = file.look_at(&name)?.map(|file| file.content).unwrap_or_default();
                items.extend(keyring::items(&String::from_utf8_lossy(&text)));
            }
        }
        let mut taken: Vec<KeyringItem> = Vec::new();
        for secret in &self.secrets {
            let found = match keyring::declared(secret, &items) {
                keyring::Found::Items(found) => found,
                keyring::Found::Undeclared(name) => {
                    return Err(Look::Refused(format!(
                        "its secret in the keyring also has the attribute {name}, which [[credential.keyring]] of the provider file does not name"
                    )));
                }
            };
            if found.is_empty() && !secret.optional {
                let attributes = secret.attributes.clone();
                return Err(Look::Incomplete(Missing::Secret { attributes }));
            }
            // Base64 has four characters for three bytes.
            let bytes = |item: &KeyringItem| item.secret_base64.len() as u64 / 4 * 3;
            if let Some(large) = found.iter().map(bytes).find(|bytes| *bytes > secret.max_bytes + 2)
            {
                return Err(Look::Refused(format!(
                    "its secret in the keyring has {large} bytes; at most {} are allowed",
                    secret.max_bytes
                )));
            }
            taken
                .extend(found.into_iter().filter(|item| !taken.contains(item)).collect::<Vec<_>>());
        }
        let entry = |(n, item): (usize, &KeyringItem)| {
            let content = keyring::entry(item).map_err(|error| Look::Refused(error.to_string()))?;
            Ok(BundledFile { path: keyring_entry(n), mode: 0o600, content })
        };
        taken.iter().enumerate().map(entry).collect()
    }
}
