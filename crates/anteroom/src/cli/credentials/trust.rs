//! Which controllers' envelopes are gone by here, and which identities open credentials here.
//!
//! A controller's public key comes by its API, from a call with an API key (it is kept from then on),
//! from the state folder of a controller of this machine, or from a file that is named.

use std::path::{Path, PathBuf};

use anteroom_controller::{CONTROLLER_KEY, default_dir};
use anteroom_vault::{ControllerKey, PublicKey, create_identity, recipient_of};
use anyhow::{Context, Result, bail};

/// The most that a key's or an identity's file holds, in bytes.
const MAX_KEY_FILE: u64 = 64 * 1024;

/// What this user keeps for credentials of controllers elsewhere.
pub fn data_dir() -> PathBuf {
    default_dir("XDG_DATA_HOME", ".local/share", "/var/lib/anteroom")
}

fn kept_keys() -> PathBuf {
    data_dir().join("controllers")
}

/// The identity that `credentials receive` made.
pub fn own_identity() -> PathBuf {
    data_dir().join("identity.txt")
}

/// The keys that are trusted here: the one that is named alone, or that of this machine's controller
/// and those of controllers that were called.
pub fn trusted_keys(named: Option<&Path>, state_dir: &Path) -> Result<Vec<PublicKey>> {
    if let Some(path) = named {
        let key = PublicKey::from_pem(&read(path)?);
        return Ok(vec![key.with_context(|| format!("{} is not used", path.display()))?]);
    }
    let own = ControllerKey::read(&state_dir.join(CONTROLLER_KEY)).ok();
    let mut keys: Vec<PublicKey> = own.iter().map(|key| key.public().clone()).collect();
    for entry in std::fs::read_dir(kept_keys()).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "pem") {
            let key = PublicKey::from_pem(&read(&path)?);
            keys.push(key.with_context(|| format!("{} is not used", path.display()))?);
        }
    }
    Ok(keys)
}

/// Trusts a controller from now on: somebody called it with an API key.
pub fn keep_key(key: &PublicKey) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let folder = kept_keys();
    let path = folder.join(format!("{}.pem", key.id()));
    if path.exists() {
        return Ok(());
    }
    let failed = || format!("cannot save the controller's key in {}", folder.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).with_context(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(&folder).with_context(failed)?;
    std::io::Write::write_all(&mut file, key.pem().as_bytes()).with_context(failed)?;
    file.persist(&path).with_context(failed)?;
    Ok(())
}

/// The identity that a credential is sealed to, among the usual ones: the vault's of this machine,
/// and this user's own.
pub fn identity_for(recipient: &str, state_dir: &Path) -> Result<String> {
    let places = [state_dir.join("vault/identity.txt"), own_identity()];
    for place in &places {
        let text = read(place).unwrap_or_default();
        if recipient_of(&text).as_deref() == Some(recipient) {
            return Ok(text);
        }
    }
    let [vault, own] = places.map(|place| place.display().to_string());
    bail!(
        "it is sealed to {recipient}, whose identity is neither in {vault} nor in {own}; pass its file with -i"
    )
}

/// This user's identity, which is made the first time; and its recipient.
pub fn identity_or_new(path: &Path) -> Result<(String, String)> {
    if !path.exists() {
        create_identity(path)?;
    }
    let text = read(path)?;
    let recipient = recipient_of(&text)
        .with_context(|| format!("{} does not contain an age identity", path.display()))?;
    Ok((text, recipient))
}

/// A small text file, or a pipe: what another command prints.
pub fn read(path: &Path) -> Result<String> {
    anteroom_private::read_text_or_pipe(path, MAX_KEY_FILE)
        .with_context(|| format!("reading {} failed", path.display()))
}
