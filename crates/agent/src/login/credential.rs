//! The credential's files: wait until they are complete and stable, and seal them.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use age::x25519::Recipient;
use anteroom_guest_protocol::{
    Completeness, CredentialFileSpec, CredentialSpec, KeyringItem, KeyringSpec, MAX_BUNDLE_ENTRIES,
    MAX_CREDENTIAL, SQLITE_COMPANIONS, deletes_a_file, keyring_entry, name_matches,
};
use anyhow::{Context, Result, anyhow};
use regex::Regex;

use super::bundle;
pub use super::bundle::{BundledFile, archive};
use super::changes::Changes;
use super::keyring;
use crate::room::{GUEST_UID, Room, RoomKind};

/// Between two looks that must agree, and between any two: CLIs write in different ways (rename,
/// truncate and write, in pieces), and a guest may change files without end.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Looks that must agree before complete files count as stable.
const AGREEING_LOOKS: u32 = 2;

/// Names that are looked at in a folder, when a file's is only known afterwards.
const MAX_NAMES: usize = 4096;

/// The credential's files, resolved for this room.
pub struct Watched {
    files: Vec<WatchedFile>,
    secrets: Vec<KeyringSpec>,
    home: PathBuf,
    owner: Option<u32>,
    /// What was there when the person's turn began.
    before: RefCell<Option<Look>>,
}

struct WatchedFile {
    /// From the home on, as the provider file has it: with a `*` perhaps.
    declared: String,
    home: PathBuf,
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
        /// Its path in the home, as it is declared.
        name: String,
    },
    /// It is there, and something is not right with its content.
    Content {
        /// Its path in the home.
        name: String,
        /// What, so that it goes on after "is there": "without /token".
        what: String,
    },
    /// A secret is not in the keyring.
    Secret {
        /// By which it is meant.
        attributes: BTreeMap<String, String>,
    },
}

impl Missing {
    /// Said of a CLI that ended as if all were well. Where else its secret is was not seen.
    pub fn after_success(&self) -> String {
        match self {
            Self::File { name } => format!(
                "the tool ended with success, and there is no ~/{name}; find out where it keeps its credential, and name that in the provider file"
            ),
            Self::Secret { attributes } => {
                let pairs: Vec<_> =
                    attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!(
                    "the tool ended with success, and the keyring's files hold no secret with {} that is read without a password (one of the collection `session` is in none); find out where it keeps its credential, and name that in the provider file",
                    pairs.join(", ")
                )
            }
            Self::Content { name, what } => format!(
                "the tool ended with success, and ~/{name} is there {what}; find out what it keeps where, and name that in the provider file"
            ),
        }
    }
}

impl Watched {
    /// What to watch for in this room.
    pub fn new(spec: &CredentialSpec, room: &Room) -> Result<Self> {
        let files = spec.files.iter().map(|file| WatchedFile::new(file, room));
        Ok(Self {
            files: files.collect::<Result<_>>()?,
            secrets: spec.keyring.clone(),
            home: room.home.clone(),
            owner: owner(room),
            before: RefCell::default(),
        })
    }

    /// The tool gives its address: what is there now is not what the person's sign-in leaves.
    pub fn turn_begins(&self) {
        let mut before = self.before.borrow_mut();
        if before.is_none() {
            *before = Some(self.look());
        }
    }

    /// What was found was no sign-in.
    pub fn waits_for_another(&self, look: Look) {
        self.before.replace(Some(look));
    }

    /// Whether this is another look than when the person's turn began: then the tool has written since.
    pub fn is_news(&self, look: &Look) -> bool {
        self.before.borrow().as_ref().is_some_and(|before| before != look)
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.secrets.is_empty()
    }

    /// Whether a look can tell by itself that somebody has signed in: of bytes of which nothing is
    /// read it can only tell that they are there.
    pub fn tells(&self) -> bool {
        self.files.iter().any(|file| !file.optional && !matches!(file.complete, Complete::Binary))
            || self.secrets.iter().any(|secret| !secret.optional)
    }

    /// Returns when the files are complete and two looks in a row agree; the error is a sentence for
    /// the person.
    pub async fn until_stable(&self) -> Result<(), String> {
        let mut last = None;
        let mut agreeing = 1;
        let mut changes = Changes::new();
        loop {
            for file in &self.files {
                changes.watch(&file.home.join(&file.declared));
            }
            if !self.secrets.is_empty() {
                changes.watch(&self.home.join(keyring::FOLDER).join("*"));
            }
            let look = self.look();
            // A database may be written without end; it is copied while its tool stands still.
            let settled = self.but_for_databases(&look);
            agreeing = if last.as_ref() == Some(&settled) { agreeing + 1 } else { 1 };
            match &look {
                // A tool opens its database when it starts: what counts is what it writes after its turn.
                Look::Complete(_) if !self.tells() && !self.is_news(&look) => {
                    changes.next().await;
                }
                Look::Complete(_) if agreeing >= AGREEING_LOOKS => return Ok(()),
                Look::Refused(cause) if agreeing >= AGREEING_LOOKS => return Err(cause.clone()),
                Look::Incomplete(_) if agreeing >= AGREEING_LOOKS => changes.next().await,
                Look::Incomplete(_) | Look::Complete(_) | Look::Refused(_) => {}
            }
            last = Some(settled);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// A look without the content of files of which nothing is read.
    fn but_for_databases(&self, look: &Look) -> Look {
        let Look::Complete(files) = look else { return look.clone() };
        let mut files = files.clone();
        for declared in self.files.iter().filter(|file| matches!(file.complete, Complete::Binary)) {
            let its = files.iter_mut().filter(|file| {
                name_matches(&declared.declared, &file.path) || declared.is_companion(&file.path)
            });
            its.for_each(|file| file.content.clear());
        }
        Look::Complete(files)
    }

    /// One look at all files.
    pub fn look(&self) -> Look {
        let mut files = Vec::new();
        for file in &self.files {
            match file.look() {
                Ok(found) => files.extend(found),
                Err(look) => return look,
            }
        }
        match self.look_at_secrets() {
            Ok(found) => files.extend(found),
            Err(look) => return look,
        }
        if files.len() > MAX_BUNDLE_ENTRIES {
            let count = files.len();
            return Look::Refused(format!(
                "it has {count} files, at most {MAX_BUNDLE_ENTRIES} are taken"
            ));
        }
        if let Some(file) = files.iter().find(|file| deletes_a_file(&file.path, &file.content)) {
            return Look::Refused(format!(
                "{} names another file, which SQLite would remove where the credential is opened",
                file.path
            ));
        }
        if let Some(file) = files.iter().find(|file| !bundle::holds(&file.path)) {
            return Look::Refused(format!(
                "the path {} is too long: at most 100 bytes after a slash and 155 before it are taken",
                file.path
            ));
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

impl Watched {
    /// The declared secrets of the keyring, as the bundle has them.
    fn look_at_secrets(&self) -> Result<Vec<BundledFile>, Look> {
        let mut items = Vec::new();
        if !self.secrets.is_empty() {
            for name in keyring::files(&self.home) {
                let file = WatchedFile {
                    declared: name.clone(),
                    home: self.home.clone(),
                    complete: Complete::Binary,
                    optional: true,
                    max_bytes: MAX_CREDENTIAL as u64,
                    owner: self.owner,
                };
                let text = file.look_at(&name)?.map(|file| file.content).unwrap_or_default();
                items.extend(keyring::items(&String::from_utf8_lossy(&text)));
            }
        }
        let mut taken: Vec<KeyringItem> = Vec::new();
        for secret in &self.secrets {
            let found = match keyring::declared(secret, &items) {
                keyring::Found::Items(found) => found,
                keyring::Found::Undeclared(name) => {
                    return Err(Look::Refused(format!(
                        "its secret in the keyring also has the attribute {name}, which [[credential.keyring]] of the provider file does not name"
                    )));
                }
            };
            if found.is_empty() && !secret.optional {
                let attributes = secret.attributes.clone();
                return Err(Look::Incomplete(Missing::Secret { attributes }));
            }
            // Base64 has four characters for three bytes.
            let bytes = |item: &KeyringItem| item.secret_base64.len() as u64 / 4 * 3;
            if let Some(large) = found.iter().map(bytes).find(|bytes| *bytes > secret.max_bytes + 2)
            {
                return Err(Look::Refused(format!(
                    "its secret in the keyring has {large} bytes, at most {} are taken",
                    secret.max_bytes
                )));
            }
            taken
                .extend(found.into_iter().filter(|item| !taken.contains(item)).collect::<Vec<_>>());
        }
        let entry = |(n, item): (usize, &KeyringItem)| {
            let content = keyring::entry(item).map_err(|error| Look::Refused(error.to_string()))?;
            Ok(BundledFile { path: keyring_entry(n), mode: 0o600, content })
        };
        taken.iter().enumerate().map(entry).collect()
    }
}

/// Whose the files must be.
fn owner(room: &Room) -> Option<u32> {
    (room.kind == RoomKind::Guest).then_some(GUEST_UID)
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
            declared: spec.path.clone(),
            home: room.home.clone(),
            complete,
            optional: spec.optional,
            max_bytes: spec.max_bytes,
            owner: owner(room),
        })
    }

    /// One look at the file, or at each that has such a name; none for an optional one that is not
    /// there.
    fn look(&self) -> Result<Vec<BundledFile>, Look> {
        let mut found = Vec::new();
        let mut missing = None;
        for name in self.names() {
            match self.look_at(&name) {
                Ok(Some(file)) => found.push(file),
                Ok(None) => {}
                Err(Look::Incomplete(what)) => missing = missing.or(Some(what)),
                Err(look) => return Err(look),
            }
        }
        if found.iter().any(|file| !self.is_companion(&file.path)) {
            return Ok(found);
        }
        // Of files whose names are not known beforehand, others may be called alike.
        let waits = !self.optional || !self.declared.contains('*');
        match missing {
            Some(missing) if waits => Err(Look::Incomplete(missing)),
            None if !self.optional => {
                Err(Look::Incomplete(Missing::File { name: self.declared.clone() }))
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The names that this file may have, of those that are there when it is known by a pattern; and
    /// what SQLite keeps beside it.
    fn names(&self) -> Vec<String> {
        let declared = Path::new(&self.declared);
        let mut names = if self.declared.contains('*') {
            let folder = declared.parent().unwrap_or(Path::new(""));
            let listed = std::fs::read_dir(self.home.join(folder)).into_iter().flatten().flatten();
            let mut names: Vec<String> = listed
                .take(MAX_NAMES)
                .filter_map(|entry| {
                    folder.join(entry.file_name()).into_os_string().into_string().ok()
                })
                .filter(|name| name_matches(&self.declared, name))
                .collect();
            names.sort();
            names
        } else {
            vec![self.declared.clone()]
        };
        if matches!(self.complete, Complete::Binary) {
            let companions = |name: &String| SQLITE_COMPANIONS.map(|end| format!("{name}{end}"));
            names.extend(names.clone().iter().flat_map(companions));
            names.sort();
            names.dedup();
        }
        names
    }

    /// Whether this name is not the file's own, but of what SQLite may keep beside it.
    fn is_companion(&self, name: &str) -> bool {
        let beside = |end| {
            let of = name.strip_suffix(end);
            of.is_some_and(|of| name_matches(&self.declared, of))
        };
        matches!(self.complete, Complete::Binary) && SQLITE_COMPANIONS.into_iter().any(beside)
    }

    /// One look at one file. Hostile by assumption: no symlink is followed, no FIFO waited on, no more
    /// read than may be taken.
    fn look_at(&self, name: &str) -> Result<Option<BundledFile>, Look> {
        let path = self.home.join(name);
        let refused = |what: String| Err(Look::Refused(format!("{} {what}", path.display())));
        let missing = || Look::Incomplete(Missing::File { name: name.to_owned() });
        let optional = self.optional || self.is_companion(name);
        if let Some(folder) = linked_folder(&path, name) {
            return refused(format!("is behind a symbolic link, {}", folder.display()));
        }
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                return refused("is a symbolic link".into());
            }
            Err(_) if optional => return Ok(None),
            Err(error) if !is_absent(&error) => {
                let what = format!("and cannot be opened ({error})");
                return Err(Look::Incomplete(Missing::Content { name: name.to_owned(), what }));
            }
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
        match self.complete.wrong_with(&content) {
            Some(_) if optional && content.is_empty() => Ok(None),
            Some(what) => Err(Look::Incomplete(Missing::Content { name: name.to_owned(), what })),
            None => Ok(Some(BundledFile {
                path: name.to_owned(),
                mode: metadata.mode() & 0o777,
                content,
            })),
        }
    }
}

/// Whether there is nothing of that name.
fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// A folder between the home and the file of this name that is a symbolic link.
fn linked_folder<'a>(path: &'a Path, name: &str) -> Option<&'a Path> {
    let below_home = Path::new(name).components().count().saturating_sub(1);
    let mut folders = path.ancestors().skip(1).take(below_home);
    folders.find(|folder| folder.is_symlink())
}

impl Complete {
    /// What is wrong with the content first, so that it goes on after "is there". Half-written JSON
    /// does not parse, so a parse with every required field is completeness.
    fn wrong_with(&self, content: &[u8]) -> Option<String> {
        if content.is_empty() {
            return Some("and empty".to_owned());
        }
        match self {
            Self::Json(pointers) => {
                let Some(text) = text_of(content) else {
                    return Some("and is not text in UTF-8 or UTF-16".to_owned());
                };
                let json = match serde_json::from_str::<serde_json::Value>(&text) {
                    Ok(json) => json,
                    Err(error) => {
                        let (line, column) = (error.line(), error.column());
                        return Some(format!(
                            "and is no JSON from line {line}, column {column} on"
                        ));
                    }
                };
                pointers.iter().find_map(|pointer| match json.pointer(pointer) {
                    None | Some(serde_json::Value::Null) => Some(format!("without {pointer}")),
                    Some(value) => match value.as_str() {
                        Some("") => Some(format!("and its {pointer} is empty")),
                        Some(_) => None,
                        None => Some(format!("and its {pointer} is no text in quotes")),
                    },
                })
            }
            Self::Text(patterns) => {
                let Some(text) = text_of(content) else {
                    return Some("and is not text in UTF-8 or UTF-16".to_owned());
                };
                let missing = patterns.iter().find(|pattern| !pattern.is_match(&text));
                missing.map(|pattern| format!("without what matches {pattern}"))
            }
            Self::Binary => None,
        }
    }
}

/// A file's text without its byte order mark, which also tells how it is encoded.
fn text_of(content: &[u8]) -> Option<Cow<'_, str>> {
    let utf_16 = |content: &[u8], character: fn([u8; 2]) -> u16| {
        let (pairs, rest) = content.as_chunks::<2>();
        let text = char::decode_utf16(pairs.iter().map(|pair| character(*pair)));
        let text: String = text.collect::<Result<_, _>>().ok()?;
        rest.is_empty().then_some(Cow::Owned(text))
    };
    match content {
        [0xef, 0xbb, 0xbf, text @ ..] => std::str::from_utf8(text).ok().map(Cow::Borrowed),
        [0xff, 0xfe, text @ ..] => utf_16(text, u16::from_le_bytes),
        [0xfe, 0xff, text @ ..] => utf_16(text, u16::from_be_bytes),
        text => std::str::from_utf8(text).ok().map(Cow::Borrowed),
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
        let files = files.collect();
        let spec = CredentialSpec {
            files,
            keyring: vec![],
            printed: vec![],
            awaits_screen: false,
            status: None,
        };
        Watched::new(&spec, &room).unwrap()
    }

    fn names(watched: &Watched) -> Vec<String> {
        match watched.look() {
            Look::Complete(files) => files.into_iter().map(|file| file.path).collect(),
            other => panic!("{other:?}"),
        }
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
        let said = missing.after_success();
        assert!(said.contains("~/.a/hosts.yml is there without what matches"), "{said}");
        assert!(!said.contains("keyring"), "nobody looked: {said}");
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
    fn a_path_that_only_an_extension_of_the_archive_could_hold_is_refused_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        for (name, fits) in [("n".repeat(100), true), ("n".repeat(101), false)] {
            let path = format!("{}/{name}", "d".repeat(100));
            let watched = watched(folder.path(), &[(&path, json(), false)]);
            std::fs::create_dir_all(folder.path().join("d".repeat(100))).unwrap();
            std::fs::write(folder.path().join(&path), r#"{"tokens":{"access":"x"}}"#).unwrap();
            match watched.look() {
                Look::Complete(found) if fits => {
                    let bytes = archive(&found).unwrap();
                    let mut archive = tar::Archive::new(&bytes[..]);
                    let mut entries = archive.entries().unwrap().raw(true);
                    let entry = entries.next().unwrap().unwrap();
                    assert_eq!(entry.path_bytes(), path.as_bytes());
                }
                Look::Refused(cause) if !fits => assert!(cause.contains(&name), "{cause}"),
                look => panic!("{look:?}"),
            }
        }
    }

    #[test]
    fn what_is_there_and_not_as_it_should_be_is_not_told_as_missing() {
        let folder = tempfile::tempdir().unwrap();
        let complete = Completeness::Json { pointers: vec!["/a".into()] };
        let watched = watched(folder.path(), &[("c.json", complete, false)]);
        let said = || {
            let Look::Incomplete(missing) = watched.look() else { panic!() };
            missing.after_success()
        };
        assert!(said().contains("there is no ~/c.json"), "{}", said());
        for (content, what) in [
            (r#"{"b":1}"#, "is there without /a"),
            (r#"{"a":null}"#, "is there without /a"),
            (r#"{"a":12}"#, "is there and its /a is no text"),
            (r#"{"a":""}"#, "is there and its /a is empty"),
        ] {
            std::fs::write(folder.path().join("c.json"), content).unwrap();
            assert!(said().contains(what), "{}", said());
        }
        std::fs::remove_file(folder.path().join("c.json")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("c.json")).unwrap();
        assert!(said().contains("is there and cannot be opened"), "{}", said());
    }

    #[test]
    fn bytes_that_came_after_the_turn_began_are_the_tool_s_own_news() {
        let folder = tempfile::tempdir().unwrap();
        let watched = watched(folder.path(), &[("s.db", Completeness::Binary {}, false)]);
        std::fs::write(folder.path().join("s.db"), "opened").unwrap();
        assert!(!watched.is_news(&watched.look()), "nobody's turn has begun");
        watched.turn_begins();
        assert!(!watched.is_news(&watched.look()));
        std::fs::write(folder.path().join("s.db"), "signed in").unwrap();
        assert!(watched.is_news(&watched.look()));
    }

    #[test]
    fn a_byte_order_mark_is_passed_over_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let text = Completeness::Text { patterns: vec!["^token=.".into()] };
        let watched = watched(folder.path(), &[("a.json", json(), false), ("b", text, false)]);
        let (json, text) = (r#"{"tokens":{"access":"ä"}}"#, "token=ä");
        let utf_8 = |text: &str| [&[0xef, 0xbb, 0xbf], text.as_bytes()].concat();
        let utf_16 = |text: &str, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(bytes).collect()
        };
        type Form<'a> = &'a dyn Fn(&str) -> Vec<u8>;
        let forms: [Form; 4] = [
            &|text| text.as_bytes().to_vec(),
            &utf_8,
            &|text| utf_16(text, u16::to_le_bytes),
            &|text| utf_16(text, u16::to_be_bytes),
        ];
        for form in forms {
            std::fs::write(folder.path().join("a.json"), form(json)).unwrap();
            std::fs::write(folder.path().join("b"), form(text)).unwrap();
            let Look::Complete(found) = watched.look() else { panic!("{:?}", form(json)) };
            assert_eq!(found[0].content, form(json));
            assert_eq!(found[1].content, form(text));
        }
        for (broken, what) in [
            (&b"\xef\xbb\xbf{"[..], "and is no JSON from line 1, column 1 on"),
            (b"\xff\xfe{", "and is not text in UTF-8 or UTF-16"),
            (b"SQLite format 3\0\xff", "and is not text in UTF-8 or UTF-16"),
            (b"", "and empty"),
        ] {
            std::fs::write(folder.path().join("a.json"), broken).unwrap();
            let name = "a.json".to_owned();
            let missing = Missing::Content { name, what: what.to_owned() };
            assert_eq!(watched.look(), Look::Incomplete(missing));
        }
    }

    #[test]
    fn a_database_is_taken_with_what_is_kept_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let watched = watched(folder.path(), &[("t/a.db", Completeness::Binary {}, false)]);
        std::fs::create_dir(folder.path().join("t")).unwrap();
        std::fs::write(folder.path().join("t/a.db-wal"), "frames").unwrap();
        let none = Missing::File { name: "t/a.db".into() };
        assert_eq!(watched.look(), Look::Incomplete(none), "a log without its database");
        std::fs::write(folder.path().join("t/a.db"), b"SQLite format 3\0\xff").unwrap();
        std::fs::write(folder.path().join("t/a.db-shm"), "").unwrap();
        std::fs::write(folder.path().join("t/other"), "x").unwrap();
        assert_eq!(names(&watched), ["t/a.db", "t/a.db-wal"]);
        std::fs::remove_file(folder.path().join("t/a.db-wal")).unwrap();
        let journal = folder.path().join("t/a.db-journal");
        std::fs::write(&journal, "pages").unwrap();
        assert_eq!(names(&watched), ["t/a.db", "t/a.db-journal"]);
        std::fs::write(&journal, b"name\xd9\xd5\x05\xf9\x20\xa1\x63\xd7").unwrap();
        assert!(matches!(watched.look(), Look::Refused(cause) if cause.contains("a.db-journal")));
        std::fs::remove_file(journal).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", folder.path().join("t/a.db-wal")).unwrap();
        assert!(matches!(watched.look(), Look::Refused(_)));
    }

    #[test]
    fn a_name_that_is_known_afterwards_is_found_by_its_pattern() {
        let folder = tempfile::tempdir().unwrap();
        let declared = [("t/token-*.json", json(), false), ("t/x*", Completeness::Binary {}, true)];
        let watched = watched(folder.path(), &declared);
        let none = Missing::File { name: "t/token-*.json".into() };
        assert_eq!(watched.look(), Look::Incomplete(none.clone()));
        std::fs::create_dir(folder.path().join("t")).unwrap();
        std::fs::write(folder.path().join("t/token-.json"), "{}").unwrap();
        assert_eq!(watched.look(), Look::Incomplete(none), "nothing stands for the *");
        std::fs::write(folder.path().join("t/token-client.json"), "{}").unwrap();
        let Look::Incomplete(missing) = watched.look() else { panic!() };
        let said = missing.after_success();
        assert!(said.contains("~/t/token-client.json is there without /tokens/access"), "{said}");
        let whole = r#"{"tokens":{"access":"a"}}"#;
        std::fs::write(folder.path().join("t/token-3f.json"), whole).unwrap();
        assert_eq!(names(&watched), ["t/token-3f.json"], "another is called alike");
        for name in ["t/xa", "t/xa-wal", "t/token-4f.json"] {
            std::fs::write(folder.path().join(name), whole).unwrap();
        }
        let all = ["t/token-3f.json", "t/token-4f.json", "t/xa", "t/xa-wal"];
        assert_eq!(names(&watched), all);
    }

    #[tokio::test]
    async fn a_database_that_was_there_before_the_person_s_turn_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let watched = watched(folder.path(), &[("a.db", Completeness::Binary {}, false)]);
        std::fs::write(folder.path().join("a.db"), "no token yet").unwrap();
        watched.turn_begins();
        let soon = Duration::from_secs(1);
        assert!(tokio::time::timeout(soon, watched.until_stable()).await.is_err());
        std::fs::write(folder.path().join("a.db"), "a token").unwrap();
        watched.turn_begins();
        watched.until_stable().await.unwrap();
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
