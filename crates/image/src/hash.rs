//! Digests of files.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

/// Lower-case hexadecimal SHA-256 of a file, from its beginning.
pub(crate) fn sha256_of(file: &File) -> io::Result<String> {
    let (mut hash, mut at) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1024 * 1024];
    loop {
        match file.read_at(&mut buffer, at)? {
            0 => return Ok(hex::encode(hash.finalize())),
            count => {
                hash.update(&buffer[..count]);
                at += count as u64;
            }
        }
    }
}
