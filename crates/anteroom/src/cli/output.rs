//! Files that commands write for their user: known to be possible before anything is done for them,
//! and nothing that exists is replaced without --force.

use std::path::Path;

use anteroom_private::{self as private, PrivateError};
use anyhow::{Context, Result, bail};
use nix::unistd::{AccessFlags, access};

/// Whether a file can be written there: what has nowhere to go is noticed before anybody signs in for
/// it.
pub fn check(path: &Path, force: bool) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    if !folder.is_dir() {
        bail!(
            "the folder {} does not exist; create it, or choose another file with -o",
            folder.display()
        );
    }
    access(folder, AccessFlags::W_OK).with_context(|| {
        format!("cannot write to the folder {}; choose another file with -o", folder.display())
    })?;
    if path.is_dir() {
        bail!("{} is a folder; name a file with -o", path.display());
    }
    if path.symlink_metadata().is_ok() && !force {
        return Err(exists(path));
    }
    Ok(())
}

/// Writes a file that its owner alone may read.
pub fn write(path: &Path, bytes: &[u8], force: bool) -> Result<()> {
    if force {
        return Ok(private::write(path, bytes)?);
    }
    match private::write_new(path, bytes) {
        // It came after the look.
        Err(PrivateError::Exists) => Err(exists(path)),
        written => Ok(written?),
    }
}

fn exists(path: &Path) -> anyhow::Error {
    anyhow::anyhow!(
        "{} already exists; --force replaces it, or choose another file with -o",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_exists_is_replaced_unless_forced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        check(&path, false).unwrap();
        write(&path, b"first", false).unwrap();
        for refused in [check(&path, false), write(&path, b"second", false)] {
            let refused = refused.unwrap_err().to_string();
            assert!(refused.ends_with("choose another file with -o"), "{refused}");
            assert!(refused.contains("out already exists; --force replaces it"), "{refused}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        check(&path, true).unwrap();
        write(&path, b"second", true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_place_where_nothing_can_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none/out");
        let said = check(&missing, true).unwrap_err().to_string();
        assert!(said.contains(&format!("{} does not exist", missing.parent().unwrap().display())));
        // What came and went between the look and the writing shows no name of our own.
        let said = format!("{:#}", write(&missing, b"x", true).unwrap_err());
        assert!(said.contains("none/out failed") && !said.contains(".anteroom-"), "{said}");
        assert!(check(folder.path(), true).is_err());
    }
}
