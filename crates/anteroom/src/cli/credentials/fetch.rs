//! A sealed credential from the controller, with the envelope that says what may come out of it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anteroom_vault::{Envelope, PublicKey};
use anyhow::{Context, Result, bail};

use super::super::client::Client;
use super::super::output;
use super::trust;

/// What a controller gave.
pub struct Fetched {
    /// An age file.
    pub sealed: Vec<u8>,
    /// DSSE, as JSON.
    envelope_json: Vec<u8>,
    /// The same, verified.
    pub envelope: Envelope,
    key: PublicKey,
}

/// Fetches a session's credential.
pub fn fetch(client: &Client, session: &str) -> Result<Fetched> {
    let at = |what: &str| format!("/api/auth/session/{session}/credentials{what}");
    let sealed = client.get(&at(""))?;
    let envelope_json = client.get(&at("/envelope"))?;
    let key = controller_key(client)?;
    let envelope = Envelope::verify(&envelope_json, std::slice::from_ref(&key))
        .context("the controller's envelope was not accepted")?;
    let of = envelope.statement().session.to_string();
    if of != session {
        bail!("the controller returned the envelope of session {of} for session {session}");
    }
    Ok(Fetched { sealed, envelope_json, envelope, key })
}

/// The controller's public key.
pub fn controller_key(client: &Client) -> Result<PublicKey> {
    let pem = String::from_utf8(client.get("/api/credentials/key")?);
    let pem = pem.context("the controller's key is not text")?;
    PublicKey::from_pem(&pem).context("cannot parse the controller's key")
}

impl Fetched {
    /// Writes credential and envelope beside each other, and trusts the controller from now on.
    pub fn save(&self, path: &Path, force: bool) -> Result<()> {
        output::write(path, &self.sealed, force)?;
        output::write(&beside(path), &self.envelope_json, force)?;
        trust::keep_key(&self.key)
    }
}

/// Whether a credential and its envelope can be written there.
pub fn check_output(path: &Path, force: bool) -> Result<()> {
    output::check(path, force)?;
    output::check(&beside(path), force)
}

/// Where the envelope of a credential is, unless said otherwise.
pub fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".envelope.json");
    name.into()
}
