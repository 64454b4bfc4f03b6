//! Injected files: written, read back, confirmed by hash.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anteroom_guest_link::{LinkError, LinkStream, read_message, write_message};
use anteroom_guest_protocol::{FileHeader, FileOutcome, MAX_CONTROL_MESSAGE, MAX_INJECTED_FILE};
use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use crate::room::Room;

/// Takes one file from its stream and answers what became of it.
pub async fn receive(stream: &mut LinkStream, room: &Room) -> Result<(), LinkError> {
    let header: FileHeader =
        read_message(stream, MAX_CONTROL_MESSAGE).await?.ok_or(LinkError::Closed)?;
    let outcome = match take(stream, &header, room).await {
        Ok(sha256) => FileOutcome::Written { sha256 },
        Err(error) => FileOutcome::Refused { cause: format!("{error:#}") },
    };
    write_message(stream, &outcome, MAX_CONTROL_MESSAGE).await
}

async fn take(stream: &mut LinkStream, header: &FileHeader, room: &Room) -> Result<String> {
    ensure!(
        header.size <= MAX_INJECTED_FILE,
        "it has {} bytes, at most {MAX_INJECTED_FILE} are taken",
        header.size
    );
    ensure!(header.mode <= 0o777, "its mode is {:o}, at most 777 is taken", header.mode);
    let mut content = vec![0; usize::try_from(header.size)?];
    stream.read_exact(&mut content).await.context("its bytes did not come")?;
    place(header, &content, room)
}

fn place(header: &FileHeader, content: &[u8], room: &Room) -> Result<String> {
    let path = room.resolve(&header.path);
    let for_person = match header.owner.as_str() {
        "person" => true,
        "root" => false,
        other => anyhow::bail!("its owner {other} is not known; it can be root or person"),
    };
    if let Some(folder) = path.parent() {
        make_folders(folder, for_person, room)?;
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
    if for_person {
        room.give_to_person(&path).context("setting its owner failed")?;
    }
    // What counts is what a reader will find, so the hash is of the file, not of what came.
    hash_of(&path).context("reading it back failed")
}

fn make_folders(folder: &Path, for_person: bool, room: &Room) -> Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev() {
        fs::create_dir(path).with_context(|| format!("creating {} failed", path.display()))?;
        if for_person {
            room.give_to_person(path).context("setting its folder's owner failed")?;
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
    use crate::room::RoomKind;

    fn header(path: &str) -> FileHeader {
        FileHeader { path: path.into(), owner: "person".into(), mode: 0o640, size: 3 }
    }

    fn room(folder: &Path) -> Room {
        Room {
            kind: RoomKind::Host,
            home: folder.to_path_buf(),
            runtime: folder.to_path_buf(),
            person: crate::room::Person::default(),
        }
    }

    #[test]
    fn a_file_is_placed_with_its_mode_and_hash() {
        let folder = tempfile::tempdir().unwrap();
        let sha256 = place(&header("~/.config/tool/x"), b"abc", &room(folder.path())).unwrap();
        assert_eq!(sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let path = folder.path().join(".config/tool/x");
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn a_symlink_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("x")).unwrap();
        let error = place(&header("~/x"), b"abc", &room(folder.path())).unwrap_err();
        assert!(format!("{error:#}").contains("opening it failed"));
    }
}
