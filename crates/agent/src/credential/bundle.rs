//! The credential's files as one: a tar archive (POSIX.1-1988, ustar) with paths from the home on.

use anyhow::{Context, Result};

/// A file of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundledFile {
    /// From the home on.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// Whether an archive holds a path: at most 100 bytes after a slash and 155 before it. Longer ones are put
/// into extensions of the form, which nobody who opens a bundle goes by.
pub fn holds(path: &str) -> bool {
    tar::Header::new_ustar().set_path(path).is_ok()
}

/// The archive of these files; the same files give the same bytes.
pub fn archive(files: &[BundledFile]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(file.content.len() as u64);
        header.set_mode(file.mode);
        header
            .set_path(&file.path)
            .and_then(|()| {
                header.set_cksum();
                archive.append(&header, file.content.as_slice())
            })
            .with_context(|| format!("archiving {} failed", file.path))?;
    }
    archive.into_inner().context("archiving the credential failed")
}
