//! The credential's files: wait until they are complete and stable, and seal them.

use std::borrow::Cow;
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
use super::turn::Turn;
use crate::sandbox::{GUEST_UID, Sandbox, SandboxKind};

/// Between two looks that must agree, and between any two: CLIs write in different ways (rename,
/// truncate and write, in pieces), and a guest may change files without end.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Looks that must agree before complete files count as stable.
const AGREEING_LOOKS: u32 = 2;

/// Names that are looked at in a folder, when a file's is only known afterwards.
const MAX_NAMES: usize = 4096;

/// The credential's files, resolved for this room.
pub struct Watched {
    pub(super) files: Vec<WatchedFile>,
    secrets: Vec<KeyringSpec>,
    home: PathBuf,
    owner: Option<u32>,
    /// Whether a secret is to be printed too, which tells of a sign-in more than any file.
    pub(super) awaits_print: bool,
    pub(super) turn: Turn,
}

pub(super) struct WatchedFile {
    /// From the home on, as the provider file has it: with a `*` perhaps.
    declared: String,
    home: PathBuf,
    pub(super) complete: Complete,
    optional: bool,
    max_bytes: u64,
    owner: Option<u32>,
}

pub(super) enum Complete {
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
    /// Said of a CLI that ended as if all were well, after it said this. Where else its secret is was not
    /// seen; of one that tells an error nobody need look for it.
    pub fn after_success(&self, said: Option<&str>) -> String {
        let (what, find_out) = self.what();
        let words = quoted(said);
        if said.is_some_and(anteroom_crash::is_error) {
            return format!("the tool ended with success, and {what}{words}");
        }
        format!(
            "the tool ended with success, and {what}{words}; find out {find_out}, and name that in the provider file"
        )
    }

    /// What is missing, and what would help.
    fn what(&self) -> (String, &'static str) {
        const WHERE: &str = "where it keeps its credential";
        match self {
            Self::File { name } => (format!("there is no ~/{name}"), WHERE),
            Self::Secret { attributes } => {
                let pairs: Vec<_> =
                    attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let what = format!(
                    "the keyring's files hold no secret with {} that is read without a password (one of the collection `session` is in none)",
                    pairs.join(", ")
                );
                (what, WHERE)
            }
            Self::Content { name, what } => {
                (format!("~/{name} is there {what}"), "what it keeps where")
            }
        }
    }
}

/// What a tool said, at the end of a sentence on it.
pub fn quoted(said: Option<&str>) -> String {
    said.map_or_else(String::new, |said| format!("; it said \"{said}\""))
}

impl Watched {
    /// What to watch for in this room.
    pub fn new(spec: &CredentialSpec, sandbox: &Sandbox) -> Result<Self> {
        let files = spec.files.iter().map(|file| WatchedFile::new(file, sandbox));
        Ok(Self {
            files: files.collect::<Result<_>>()?,
            secrets: spec.keyring.clone(),
            home: sandbox.home.clone(),
            owner: owner(sandbox),
            awaits_print: !spec.printed.is_empty(),
            turn: Turn::default(),
        })
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.secrets.is_empty()
    }

    /// Whether a look can tell by itself that somebody has signed in: of bytes of which nothing is
    /// read it can only tell that they are there.
    pub fn reports(&self) -> bool {
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
                // What a tool writes when it starts, its database or who its device is, is no sign-in.
                Look::Complete(_) if !self.counts(&look) => {
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
    pub(super) fn look_at_secrets(&self) -> Result<Vec<BundledFile>, Look> {
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
fn owner(sandbox: &Sandbox) -> Option<u32> {
    (sandbox.kind == SandboxKind::Guest).then_some(GUEST_UID)
}

impl WatchedFile {
    fn new(spec: &CredentialFileSpec, sandbox: &Sandbox) -> Result<Self> {
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
            home: sandbox.home.clone(),
            complete,
            optional: spec.optional,
            max_bytes: spec.max_bytes,
            owner: owner(sandbox),
        })
    }

    /// One look at the file, or at each that has such a name; none for an optional one that is not
    /// there.
    pub(super) fn look(&self) -> Result<Vec<BundledFile>, Look> {
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
pub(super) fn text_of(content: &[u8]) -> Option<Cow<'_, str>> {
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
mod tests;
