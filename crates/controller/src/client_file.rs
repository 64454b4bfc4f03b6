//! What a client on this machine reads to find the controller.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use anteroom_private::PrivateError;
use anteroom_session::ProviderId;
use serde_json::json;

/// The providers whose terms the operator overrides, as the file names them; for `doctor`.
pub const OVERRIDES: &str = "allowVaultCustody";

/// A file with the controller's address and a key.
#[derive(Clone, Debug)]
pub struct ClientFile {
    /// Where it is.
    pub path: PathBuf,
    /// The API's address.
    pub url: String,
    /// Where media comes in.
    pub media: SocketAddr,
    /// The providers whose terms the operator overrides.
    pub vault_custody: BTreeSet<ProviderId>,
}

impl ClientFile {
    /// Writes it, with this key.
    pub fn write(&self, key: &str) -> Result<(), PrivateError> {
        let Self { path, url, media, vault_custody } = self;
        let json = json!({
            "url": url, "apiKey": key, "media": media.to_string(), OVERRIDES: vault_custody,
        });
        anteroom_private::write(path, json.to_string().as_bytes())
    }
}
