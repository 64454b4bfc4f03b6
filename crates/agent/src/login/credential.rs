//! The credential file: wait until it is complete and stable, freeze the CLI, seal.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use age::x25519::Recipient;
use anteroom_guest_protocol::CredentialSpec;
use anyhow::{Context, Result, anyhow};

use super::changes::Changes;
use crate::room::{GUEST_UID, Room, RoomKind};

/// Between two looks that must agree, and between any two: CLIs write in different ways (rename,
/// truncate and write, in pieces), and a guest may change files without end.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Looks that must agree before a complete file counts as stable.
const AGREEING_LOOKS: u32 = 2;

/// Where and what, resolved for this room.
#[derive(Clone, Debug)]
pub struct Watched {
    path: PathBuf,
    required: Vec<String>,
    max_bytes: u64,
    owner: Option<u32>,
}

/// What one look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// No file yet, or not all of it: wait.
    Incomplete,
    /// All that the provider file asks for.
    Complete(Vec<u8>),
    /// Something that no amount of waiting makes right.
    Refused(String),
}

impl Watched {
    /// What to watch for in this room.
    pub fn new(spec: &CredentialSpec, room: &Room) -> Self {
        Self {
            path: room.resolve(&spec.path),
            required: spec.required.clone(),
            max_bytes: spec.max_bytes,
            owner: (room.kind == RoomKind::Guest).then_some(GUEST_UID),
        }
    }

    /// Returns when the file is complete and two looks in a row agree; the error is a sentence for
    /// the person.
    pub async fn until_stable(&self) -> Result<(), String> {
        let mut last = Look::Incomplete;
        let mut agreeing = 1;
        let mut changes = Changes::new();
        loop {
            changes.watch(&self.path);
            let look = self.look();
            agreeing = if look == last { agreeing + 1 } else { 1 };
            match &look {
                Look::Complete(_) if agreeing >= AGREEING_LOOKS => return Ok(()),
                Look::Refused(cause) if agreeing >= AGREEING_LOOKS => return Err(cause.clone()),
                Look::Incomplete | Look::Complete(_) | Look::Refused(_) => {}
            }
            if look == Look::Incomplete && agreeing >= AGREEING_LOOKS {
                changes.next().await;
            }
            last = look;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// One look at the file. Hostile by assumption: no symlink is followed, no FIFO waited on, no
    /// more read than may be taken.
    pub fn look(&self) -> Look {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                return Look::Refused(format!("{} is a symbolic link", self.path.display()));
            }
            Err(_) => return Look::Incomplete,
        };
        let Ok(metadata) = file.metadata() else { return Look::Incomplete };
        if !metadata.is_file() {
            return Look::Refused(format!("{} is not a regular file", self.path.display()));
        }
        if self.owner.is_some_and(|owner| owner != metadata.uid()) {
            return Look::Refused(format!(
                "{} belongs to user {}",
                self.path.display(),
                metadata.uid()
            ));
        }
        if metadata.len() > self.max_bytes {
            return Look::Refused(format!(
                "{} has {} bytes, at most {} are taken",
                self.path.display(),
                metadata.len(),
                self.max_bytes
            ));
        }
        let mut content = Vec::new();
        match file.take(self.max_bytes + 1).read_to_end(&mut content) {
            Ok(_) if self.is_complete(&content) => Look::Complete(content),
            Ok(_) | Err(_) => Look::Incomplete,
        }
    }

    /// Half-written JSON does not parse, so a parse with every required field is completeness.
    fn is_complete(&self, content: &[u8]) -> bool {
        let Ok(json) = serde_json::from_slice::<serde_json::Value>(content) else { return false };
        self.required.iter().all(|pointer| {
            json.pointer(pointer).and_then(|v| v.as_str()).is_some_and(|s| !s.is_empty())
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Seals to an age X25519 recipient (`age1…`); the bytes are an age file.
pub fn seal(content: &[u8], recipient: &str) -> Result<Vec<u8>> {
    let recipient: Recipient =
        recipient.parse().map_err(|cause| anyhow!("the recipient is no age key: {cause}"))?;
    age::encrypt(&recipient, content).context("sealing failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(folder: &Path) -> Watched {
        Watched {
            path: folder.join("auth.json"),
            required: vec!["/tokens/access".into()],
            max_bytes: 100,
            owner: None,
        }
    }

    #[test]
    fn only_a_whole_file_with_every_field_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let watched = watched(folder.path());
        let cases: [(&str, bool); 5] = [
            ("", false),
            (r#"{"tokens":{"access":"a""#, false),
            (r#"{"tokens":{"access":""}}"#, false),
            (r#"{"tokens":{}}"#, false),
            (r#"{"tokens":{"access":"a"}}"#, true),
        ];
        assert_eq!(watched.look(), Look::Incomplete);
        for (content, complete) in cases {
            std::fs::write(&watched.path, content).unwrap();
            assert_eq!(matches!(watched.look(), Look::Complete(_)), complete, "{content}");
        }
    }

    #[test]
    fn links_pipes_and_large_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let watched = watched(folder.path());
        let refused = |watched: &Watched| match watched.look() {
            Look::Refused(cause) => cause,
            other => panic!("{other:?}"),
        };
        std::os::unix::fs::symlink("/etc/hostname", &watched.path).unwrap();
        assert!(refused(&watched).ends_with("is a symbolic link"));
        std::fs::remove_file(&watched.path).unwrap();
        nix::unistd::mkfifo(&watched.path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(refused(&watched).ends_with("is not a regular file"));
        std::fs::remove_file(&watched.path).unwrap();
        std::fs::write(&watched.path, vec![b' '; 101]).unwrap();
        assert!(refused(&watched).ends_with("has 101 bytes, at most 100 are taken"));
    }

    #[test]
    fn what_is_sealed_opens_with_the_identity_alone() {
        let identity = age::x25519::Identity::generate();
        let sealed = seal(b"secret", &identity.to_public().to_string()).unwrap();
        assert_eq!(age::decrypt(&identity, &sealed).unwrap(), b"secret");
        assert!(age::decrypt(&age::x25519::Identity::generate(), &sealed).is_err());
        assert!(seal(b"secret", "age1nonsense").is_err());
    }
}
