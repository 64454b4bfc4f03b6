//! Sealing to the credential's recipient.

use age::x25519::Recipient;
use anyhow::{Context, Result, anyhow};

/// Seals to an age X25519 recipient (`age1…`); the bytes are an age file.
pub fn seal(content: &[u8], recipient: &str) -> Result<Vec<u8>> {
    let recipient: Recipient = recipient
        .parse()
        .map_err(|cause| anyhow!("the recipient is not a valid age key: {cause}"))?;
    age::encrypt(&recipient, content).context("sealing failed")
}
