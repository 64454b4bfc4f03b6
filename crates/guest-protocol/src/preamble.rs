//! The first bytes on a link.

use crate::PROTOCOL_VERSION;

/// Bytes of a preamble.
pub const PREAMBLE_LEN: usize = MAGIC.len() + 2 + 16;

const MAGIC: [u8; 8] = *b"ANTEROOM";

/// Magic, protocol version (`u16` big-endian), nonce. The host sends it, the guest echoes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preamble {
    /// What the sender speaks.
    pub version: u16,
    /// Random, fresh for each connection of the host.
    pub nonce: [u8; 16],
}

/// Bytes that are no preamble this side can work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PreambleError {
    /// The bytes do not start with the magic.
    #[error("the other side does not speak Anteroom's guest protocol")]
    NotAnteroom,
    /// Another version.
    #[error(
        "the other side speaks version {theirs} of the guest protocol, this side {PROTOCOL_VERSION}; rebuild with `cargo xtask build`, which builds both from one tree"
    )]
    Version {
        /// The other side's version.
        theirs: u16,
    },
}

impl Preamble {
    /// A preamble of this build's version.
    #[must_use]
    pub fn new(nonce: [u8; 16]) -> Self {
        Self { version: PROTOCOL_VERSION, nonce }
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; PREAMBLE_LEN] {
        let mut bytes = [0; PREAMBLE_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&self.version.to_be_bytes());
        bytes[10..].copy_from_slice(&self.nonce);
        bytes
    }

    /// Reads a preamble and checks the version.
    ///
    /// # Errors
    /// When the magic is missing or the version is another.
    pub fn decode(bytes: &[u8; PREAMBLE_LEN]) -> Result<Self, PreambleError> {
        let (magic, rest) = bytes.split_at(8);
        if magic != MAGIC {
            return Err(PreambleError::NotAnteroom);
        }
        let version = u16::from_be_bytes([rest[0], rest[1]]);
        if version != PROTOCOL_VERSION {
            return Err(PreambleError::Version { theirs: version });
        }
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&rest[2..]);
        Ok(Self { version, nonce })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preamble_survives_the_wire_and_other_versions_are_named() {
        let sent = Preamble::new([7; 16]);
        assert_eq!(Preamble::decode(&sent.encode()), Ok(sent));
        let mut other = sent.encode();
        other[9] = 99;
        assert_eq!(Preamble::decode(&other), Err(PreambleError::Version { theirs: 99 }));
        other[0] = b'x';
        assert_eq!(Preamble::decode(&other), Err(PreambleError::NotAnteroom));
    }
}
