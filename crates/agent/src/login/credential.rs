//! The credential's files: wait until they are complete and stable, and seal them.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use age::x25519::Recipient;
use anteroom_guest_protocol::{Completeness, CredentialFileSpec, CredentialSpec, MAX_CREDENTIAL};
use anyhow::{Context, Result, anyhow};
use regex::Regex;

pub use super::bundle::{BundledFile, archive};
use super::changes::Changes;
use crate::room::{GUEST_UID, Room, RoomKind};

/// Between two looks that must agree, and between any two: CLIs write in different ways (rename,
/// truncate and write, in pieces), and a guest may change files without end.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Looks that must agree before complete files count as stable.
const AGREEING_LOOKS: u32 = 2;

/// The credential's files, resolved for this room.
pub struct Watched(Vec<WatchedFile>);

struct WatchedFile {
    /// From the home on, as in the bundle.
    name: String,
    path: PathBuf,
    complete: Complete,
    optional: bool,
    max_bytes: u64,
    owner: Option<u32>,
}

enum Complete {
    /// JSON with non-empty strings at these pointers.
    Json(Vec<String>),
    /// Text that matches each.
    Text(Vec<Regex>),
    /// Any bytes.
    Binary,
}

/// What one look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Not all of it yet: wait.
    Incomplete(Missing),
    /// All that the provider file asks for.
    Complete(Vec<BundledFile>),
    /// Something that no amount of waiting makes right.
    Refused(String),
}

/// Why a credential is not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A file is not there.
    File {
        /// Its path in the home.
        name: String,
    },
    /// It is there, and something is not in it.
    Content {
        /// Its path in the home.
        name: String,
        /// What.
        what: String,
    },
}

impl Missing {
    /// Said of a CLI that ended as if all were well.
    pub fn after_success(&self) -> String {
        match self {
            Self::File { name } => format!(
                "the tool ended with success and left no ~/{name}: it keeps its credential somewhere else, which the provider file does not name"
            ),
            Self::Content { name, what } => format!(
                "the tool ended with success, and ~/{name} is there without {what}: the secret itself is somewhere else, such as a keyring, from where it cannot be taken; have the tool keep it in its file"
            ),
        }
    }
}

impl Watched {
    /// What to watch for in this room.
    pub fn new(spec: &CredentialSpec, room: &Room) -> Result<Self> {
        spec.files.iter().map(|file| WatchedFile::new(file, room)).collect::<Result<_>>().map(Self)
    }

    /// Returns when the files are complete and two looks in a row agree; the error is a sentence for
    /// the person.
    pub async fn until_stable(&self) -> Result<(), String> {
        let mut last = None;
        let mut agreeing = 1;
        let mut changes = Changes::new();
        loop {
            for file in &self.0 {
                changes.watch(&file.path);
            }
            let look = self.look();
            agreeing = if last.as_ref() == Some(&look) { agreeing + 1 } else { 1 };
            match &look {
                Look::Complete(_) if agreeing >= AGREEING_LOOKS => return Ok(()),
                Look::Refused(cause) if agreeing >= AGREEING_LOOKS => return Err(cause.clone()),
                Look::Incomplete(_) if agreeing >= AGREEING_LOOKS => changes.next().await,
                Look::Incomplete(_) | Look::Complete(_) | Look::Refused(_) => {}
            }
            last = Some(look);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// One look at all files.
    pub fn look(&self) -> Look {
        let mut files = Vec::new();
        for file in &self.0 {
            match file.look() {
                Ok(Some(found)) => files.push(found),
                Ok(None) => {}
                Err(look) => return look,
            }
        }
        let bytes: usize = files.iter().map(|file| file.content.len()).sum();
        if bytes > MAX_CREDENTIAL {
            return Look::Refused(format!(
                "its files have {bytes} bytes together, at most {MAX_CREDENTIAL} are taken"
            ));
        }
        Look::Complete(files)
    }
}

impl WatchedFile {
    fn new(spec: &CredentialFileSpec, room: &Room) -> Result<Self> {
        let complete = match &spec.complete {
            Completeness::Json { pointers } => Complete::Json(pointers.clone()),
            Completeness::Text { patterns } => Complete::Text(
                patterns
                    .iter()
                    .map(|pattern| Regex::new(pattern))
                    .collect::<Result<_, _>>()
                    .with_context(|| format!("a pattern for {} is none", spec.path))?,
            ),
            Completeness::Binary {} => Complete::Binary,
        };
        Ok(Self {
            name: spec.path.clone(),
            path: room.home.join(&spec.path),
            complete,
            optional: spec.optional,
            max_bytes: spec.max_bytes,
            owner: (room.kind == RoomKind::Guest).then_some(GUEST_UID),
        })
    }

    /// One look at the file; `None` for an optional one that is not there. Hostile by assumption: no
    /// symlink is followed, no FIFO waited on, no more read than may be taken.
    fn look(&self) -> Result<Option<BundledFile>, Look> {
        let refused = |what: String| Err(Look::Refused(format!("{} {what}", self.path.display())));
        let missing = || Look::Incomplete(Missing::File { name: self.name.clone() });
        if let Some(folder) = self.linked_folder() {
            return refused(format!("is behind a symbolic link, {}", folder.display()));
        }
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                return refused("is a symbolic link".into());
            }
            Err(_) if self.optional => return Ok(None),
            Err(_) => return Err(missing()),
        };
        let metadata = file.metadata().map_err(|_| missing())?;
        if !metadata.is_file() {
            return refused("is not a regular file".into());
        }
        if self.owner.is_some_and(|owner| owner != metadata.uid()) {
            return refused(format!("belongs to user {}", metadata.uid()));
        }
        if metadata.len() > self.max_bytes {
            return refused(format!(
                "has {} bytes, at most {} are taken",
                metadata.len(),
                self.max_bytes
            ));
        }
        let mut content = Vec::new();
        file.take(self.max_bytes + 1).read_to_end(&mut content).map_err(|_| missing())?;
        match self.complete.missing_in(&content) {
            Some(_) if self.optional && content.is_empty() => Ok(None),
            Some(what) => Err(Look::Incomplete(Missing::Content { name: self.name.clone(), what })),
            None => Ok(Some(BundledFile {
                path: self.name.clone(),
                mode: metadata.mode() & 0o777,
                content,
            })),
        }
    }

    /// A folder between the home and the file that is a symbolic link.
    fn linked_folder(&self) -> Option<&Path> {
        let below_home = Path::new(&self.name).components().count().saturating_sub(1);
        let mut folders = self.path.ancestors().skip(1).take(below_home);
        folders.find(|folder| folder.is_symlink())
    }
}

impl Complete {
    /// The first thing that is not there. Half-written JSON does not parse, so a parse with every
    /// required field is completeness.
    fn missing_in(&self, content: &[u8]) -> Option<String> {
        match self {
            Self::Json(pointers) => {
                let Ok(json) = serde_json::from_slice::<serde_json::Value>(content) else {
                    return Some("an end of its JSON".to_owned());
                };
                let is_there = |pointer: &&String| {
                    json.pointer(pointer).and_then(|v| v.as_str()).is_some_and(|s| !s.is_empty())
                };
                pointers.iter().find(|pointer| !is_there(pointer)).cloned()
            }
            Self::Text(patterns) => {
                let Ok(text) = std::str::from_utf8(content) else {
                    return Some("text".to_owned());
                };
                let missing = patterns.iter().find(|pattern| !pattern.is_match(text));
                missing.map(|pattern| format!("what matches {pattern}"))
            }
            Self::Binary => content.is_empty().then(|| "a byte in it".to_owned()),
        }
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

    fn watched(folder: &Path, files: &[(&str, Completeness, bool)]) -> Watched {
        let room = Room {
            kind: RoomKind::Host,
            home: folder.to_path_buf(),
            runtime: folder.to_path_buf(),
            person: crate::room::Person::default(),
        };
        let files = files.iter().map(|(path, complete, optional)| CredentialFileSpec {
            path: (*path).to_owned(),
            complete: complete.clone(),
            optional: *optional,
            max_bytes: 100,
        });
        Watched::new(&CredentialSpec { files: files.collect(), status: None }, &room).unwrap()
    }

    fn json() -> Completeness {
        Completeness::Json { pointers: vec!["/tokens/access".into()] }
    }

    #[test]
    fn only_a_whole_file_with_every_field_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let watched = watched(folder.path(), &[("auth.json", json(), false)]);
        let cases: [(&str, bool); 5] = [
            ("", false),
            (r#"{"tokens":{"access":"a""#, false),
            (r#"{"tokens":{"access":""}}"#, false),
            (r#"{"tokens":{}}"#, false),
            (r#"{"tokens":{"access":"a"}}"#, true),
        ];
        let none = Missing::File { name: "auth.json".into() };
        assert_eq!(watched.look(), Look::Incomplete(none));
        for (content, complete) in cases {
            std::fs::write(folder.path().join("auth.json"), content).unwrap();
            assert_eq!(matches!(watched.look(), Look::Complete(_)), complete, "{content}");
        }
    }

    #[test]
    fn several_files_are_one_credential_with_their_modes() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let text = Completeness::Text { patterns: vec![r"(?m)^\s+oauth_token: \S+".into()] };
        let any = Completeness::Json { pointers: vec![] };
        let files = [(".a/hosts.yml", text, false), (".b.json", any, true)];
        let watched = watched(folder.path(), &files);
        std::fs::create_dir(folder.path().join(".a")).unwrap();
        let path = folder.path().join(".a/hosts.yml");
        std::fs::write(&path, "github.com:\n    user: ada\n").unwrap();
        let Look::Incomplete(missing) = watched.look() else { panic!() };
        assert!(missing.after_success().contains("keyring"), "{}", missing.after_success());
        std::fs::write(&path, "github.com:\n    oauth_token: gho_x\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let Look::Complete(found) = watched.look() else { panic!() };
        assert_eq!((found.len(), found[0].mode), (1, 0o640));
        std::fs::write(folder.path().join(".b.json"), "{}").unwrap();
        let Look::Complete(found) = watched.look() else { panic!() };
        let bytes = archive(&found).unwrap();
        assert_eq!(bytes, archive(&found).unwrap());
        let mut archive = tar::Archive::new(&bytes[..]);
        let names = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().into_owned());
        assert_eq!(names.collect::<Vec<_>>(), [Path::new(".a/hosts.yml"), Path::new(".b.json")]);
    }

    #[test]
    fn links_pipes_and_large_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.json");
        let watched = watched(
            folder.path(),
            &[("auth.json", json(), false), (".linked/x/auth.json", json(), true)],
        );
        let refused = |watched: &Watched| match watched.look() {
            Look::Refused(cause) => cause,
            other => panic!("{other:?}"),
        };
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(refused(&watched).ends_with("is a symbolic link"));
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(refused(&watched).ends_with("is not a regular file"));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, vec![b' '; 101]).unwrap();
        assert!(refused(&watched).ends_with("has 101 bytes, at most 100 are taken"));
        std::fs::write(&path, r#"{"tokens":{"access":"a"}}"#).unwrap();
        std::os::unix::fs::symlink("/tmp", folder.path().join(".linked")).unwrap();
        assert!(refused(&watched).contains("is behind a symbolic link"));
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
