//! The digest of a file that is mostly zeros.

use sha2::{Digest, Sha256};

/// What is digested or left out as a whole, in bytes.
pub(crate) const BLOCK: usize = 64 * 1024;

static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// SHA-256 over each block that is not all zeros, in order: its index as a little-endian `u64`, and
/// its bytes; at the end the length of the whole as another. The last block may be shorter. So the
/// same content has the same digest, wherever its file has holes.
pub(crate) struct ContentDigest(Sha256);

impl ContentDigest {
    pub(crate) fn new() -> Self {
        Self(Sha256::new())
    }

    /// Of all of it.
    pub(crate) fn of(content: &[u8]) -> String {
        let mut digest = Self::new();
        digest.update(0, content);
        digest.finish(content.len() as u64)
    }

    /// The next bytes, of which `at` is a whole number of blocks from the start; what lies between
    /// them and those before is zeros.
    pub(crate) fn update(&mut self, at: u64, bytes: &[u8]) {
        for (index, block) in (at / BLOCK as u64..).zip(bytes.chunks(BLOCK)) {
            if !is_zero(block) {
                self.0.update(index.to_le_bytes());
                self.0.update(block);
            }
        }
    }

    /// Lower-case hexadecimal.
    pub(crate) fn finish(mut self, length: u64) -> String {
        self.0.update(length.to_le_bytes());
        hex::encode(self.0.finalize())
    }
}

/// Of at most a block.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    ZEROS.get(..bytes.len()).is_some_and(|zeros| bytes == zeros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_one_that_is_documented() {
        let mut content = vec![0; 3 * BLOCK + 5];
        content[BLOCK + 7] = 1;
        content[3 * BLOCK + 4] = 2;
        let mut digest = ContentDigest::new();
        digest.update(0, &content);
        let mut expected = Sha256::new();
        expected.update(1_u64.to_le_bytes());
        expected.update(&content[BLOCK..2 * BLOCK]);
        expected.update(3_u64.to_le_bytes());
        expected.update(&content[3 * BLOCK..]);
        expected.update((3 * BLOCK as u64 + 5).to_le_bytes());
        assert_eq!(digest.finish(content.len() as u64), hex::encode(expected.finalize()));
    }
}
