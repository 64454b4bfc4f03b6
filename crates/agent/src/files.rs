//! Injected files: written, read back, confirmed by hash.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path};

use anteroom_guest_link::{LinkError, LinkStream, read_message, write_message};
use anteroom_guest_protocol::{FileHeader, FileOutcome, MAX_CONTROL_MESSAGE, MAX_INJECTED_FILE};
use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use crate::guest::{Guest, GuestKind};

/// Takes one file from its stream and answers what became of it.
pub async fn receive(stream: &mut LinkStream, guest: &Guest) -> Result<(), LinkError> {
    let header: FileHeader =
        read_message(stream, MAX_CONTROL_MESSAGE).await?.ok_or(LinkError::Closed)?;
    let outcome = match take(stream, &header, guest).await {
        Ok(sha256) => FileOutcome::Written { sha256 },
        Err(error) => FileOutcome::Refused { cause: format!("{error:#}") },
    };
    write_message(stream, &outcome, MAX_CONTROL_MESSAGE).await
}

async fn take(stream: &mut LinkStream, header: &FileHeader, guest: &Guest) -> Result<String> {
    ensure!(
        header.size <= MAX_INJECTED_FILE,
        "it has {} bytes; at most {MAX_INJECTED_FILE} are allowed",
        header.size
    );
    ensure!(header.mode <= 0o777, "its mode is {:o}; at most 777 is allowed", header.mode);
    let mut content = vec![0; usize::try_from(header.size)?];
    stream.read_exact(&mut content).await.context("its content did not arrive")?;
    place(header, &content, guest)
}

fn place(header: &FileHeader, content: &[u8], guest: &Guest) -> Result<String> {
    let path = guest.resolve(&header.path);
    if guest.kind == GuestKind::Host {
        check_in_home(&path, &guest.home)?;
    }
    let for_end_user = match header.owner.as_str() {
        "person" => true,
        "root" => false,
        other => anyhow::bail!("its owner {other} is unknown; use root or person"),
    };
    if let Some(folder) = path.parent() {
        make_folders(folder, for_end_user, guest)?;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .context("opening it failed")?;
    file.write_all(content).context("writing it failed")?;
    file.set_permissions(Permissions::from_mode(header.mode)).context("setting its mode failed")?;
    if for_end_user {
        guest.give_to_end_user(&path).context("setting its owner failed")?;
    }
    // What counts is what a reader will find, so the hash is of the file, not of what came.
    hash_of(&path).context("reading it back failed")
}

/// On a host only the sandbox's home is the sandbox's. Nothing of it runs yet that could make a link
/// meanwhile.
fn check_in_home(path: &Path, home: &Path) -> Result<()> {
    let below = path.strip_prefix(home).ok();
    let below = below.filter(|rest| {
        let mut parts = rest.components().peekable();
        parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
    });
    let Some(below) = below else {
        bail!(
            "{} is not in the session's home; with the host driver files can only be injected there, as ~/NAME",
            path.display()
        );
    };
    let mut folder = home.to_path_buf();
    for part in below.components() {
        folder.push(part);
        ensure!(!folder.is_symlink(), "{} is a link, which is not followed", folder.display());
    }
    Ok(())
}

fn make_folders(folder: &Path, for_end_user: bool, guest: &Guest) -> Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev() {
        fs::create_dir(path).with_context(|| format!("creating {} failed", path.display()))?;
        if for_end_user {
            guest.give_to_end_user(path).context("setting its folder's owner failed")?;
        }
    }
    Ok(())
}

fn hash_of(path: &Path) -> std::io::Result<String> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX_INJECTED_FILE + 1).read_to_end(&mut content)?;
    Ok(hex::encode(Sha256::digest(&content)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(path: &str) -> FileHeader {
        FileHeader { path: path.into(), owner: "person".into(), mode: 0o640, size: 3 }
    }

    fn guest(folder: &Path) -> Guest {
        Guest {
            kind: GuestKind::Host,
            home: folder.to_path_buf(),
            runtime: folder.to_path_buf(),
            preferences: std::sync::Arc::default(),
        }
    }

    #[test]
    fn a_file_is_placed_with_its_mode_and_hash() {
        let folder = tempfile::tempdir().unwrap();
        let sha256 = place(&header("~/.config/tool/x"), b"abc", &guest(folder.path())).unwrap();
        assert_eq!(sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let path = folder.path().join(".config/tool/x");
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn on_a_host_a_file_stays_in_the_home() {
        let (folder, others) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(others.path(), folder.path().join("out")).unwrap();
        let outside = others.path().join("x");
        for path in ["~/../x", "~/out/x", "~/a/../../x", "~/.", "~", outside.to_str().unwrap()] {
            let refused = place(&header(path), b"abc", &guest(folder.path()));
            assert!(refused.is_err(), "{path}");
        }
        assert!(!outside.exists());
    }

    #[test]
    fn a_symlink_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("x")).unwrap();
        let error = place(&header("~/x"), b"abc", &guest(folder.path())).unwrap_err();
        assert!(format!("{error:#}").contains("is a link"), "{error:#}");
        let in_a_vm = Guest { kind: GuestKind::Vm, ..guest(folder.path()) };
        let error = place(&header("~/x"), b"abc", &in_a_vm).unwrap_err();
        assert!(format!("{error:#}").contains("opening it failed"), "{error:#}");
    }
}
