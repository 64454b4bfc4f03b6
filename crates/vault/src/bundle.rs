//! An opened credential: the files and secrets that its envelope declares, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use anteroom_guest_protocol::{
    ForeignText, KeyringItem, MAX_BUNDLE_ENTRIES, deletes_a_file, is_keyring_entry,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::envelope::{Envelope, Statement};
use crate::{MAX_SEALED, parse_identity};

/// How many undeclared names are reported.
const REPORTED: usize = 8;

/// What came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// For a home.
    pub files: Vec<BundledFile>,
    /// For a keyring.
    pub secrets: Vec<BundledSecret>,
}

/// A file of a credential.
#[derive(Clone, PartialEq, Eq)]
pub struct BundledFile {
    /// From the home on; declared, so it leads nowhere but down.
    pub path: String,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// A secret of a credential.
#[derive(Clone, PartialEq, Eq)]
pub struct BundledSecret {
    /// As the envelope says.
    pub label: String,
    /// What it is found by.
    pub attributes: BTreeMap<String, String>,
    /// Its bytes.
    pub secret: Vec<u8>,
    /// Its media type.
    pub content_type: String,
}

impl std::fmt::Debug for BundledFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.path, self.content.len())
    }
}

impl std::fmt::Debug for BundledSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} ({} bytes)", self.label, self.attributes, self.secret.len())
    }
}

/// A credential that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The identity is none.
    #[error(
        "the identity file has no age key, which is the line that starts with AGE-SECRET-KEY-1"
    )]
    NotAnIdentity,
    /// The envelope is of other bytes.
    #[error(
        "the envelope does not belong to this file: it is of another sign-in (session {session} of {provider}), or the file was replaced"
    )]
    OtherBytes {
        /// Whose the envelope is.
        session: String,
        /// And of which CLI.
        provider: String,
    },
    /// Sealed to another key.
    #[error("it is sealed to {recipient}; the recipient of this identity is {identity}")]
    OtherRecipient {
        /// As the envelope says.
        recipient: String,
        /// What was tried.
        identity: String,
    },
    /// Not sealed, or damaged.
    #[error("opening it with this identity failed; it is damaged, or not sealed to it")]
    NotOpened(#[source] age::DecryptError),
    /// What was sealed is no bundle of ours.
    #[error("the sealed content is not a bundle: {0}")]
    NotABundle(String),
    /// It holds what its envelope does not declare: no mishap.
    #[error(
        "it contains undeclared files: {}; the sandbox that sealed it cannot be trusted, so nothing was restored",
        .0.join(", ")
    )]
    NotDeclared(Vec<String>),
}

/// Opens a sealed credential with an identity, in the form that age-keygen writes: what its envelope
/// declares comes out, all of it or nothing.
///
/// # Errors
/// When the envelope is not its own, it cannot be opened, or it holds anything else.
pub fn open_bundle(
    sealed: &[u8],
    identity: &str,
    envelope: &Envelope,
) -> Result<Bundle, BundleError> {
    let identity = parse_identity(identity).ok_or(BundleError::NotAnIdentity)?;
    let Statement { session, provider, sha256, recipient, .. } = envelope.statement();
    if Statement::digest(sealed) != *sha256 {
        let (session, provider) = (session.to_string(), provider.to_string());
        return Err(BundleError::OtherBytes { session, provider });
    }
    let own = identity.to_public().to_string();
    if own != *recipient {
        return Err(BundleError::OtherRecipient { recipient: recipient.clone(), identity: own });
    }
    let archive = age::decrypt(&identity, sealed).map_err(BundleError::NotOpened)?;
    let entries = entries(&archive)?;
    let mut bundle = Bundle { files: Vec::new(), secrets: Vec::new() };
    let mut undeclared = Vec::new();
    for Entry { name, content } in entries {
        if is_keyring_entry(&name) {
            match secret(&name, &content, envelope)? {
                Ok(secret) => bundle.secrets.push(secret),
                Err(reported) => undeclared.push(reported),
            }
        } else if envelope.declares_file(&name) {
            if deletes_a_file(&name, &content) {
                let problem = "names another file, which SQLite would remove on this machine";
                return Err(BundleError::NotABundle(format!("{} {problem}", shown(&name))));
            }
            bundle.files.push(BundledFile { path: name, content });
        } else {
            undeclared.push(shown(&name));
        }
    }
    if !undeclared.is_empty() {
        if undeclared.len() > REPORTED {
            let more = format!("and {} more", undeclared.len() - REPORTED);
            undeclared.splice(REPORTED.., [more]);
        }
        return Err(BundleError::NotDeclared(undeclared));
    }
    let attributes: BTreeSet<_> = bundle.secrets.iter().map(|secret| &secret.attributes).collect();
    if attributes.len() != bundle.secrets.len() {
        return Err(BundleError::NotABundle("two of its secrets have the same attributes".into()));
    }
    Ok(bundle)
}

struct Entry {
    name: String,
    content: Vec<u8>,
}

/// All entries of an archive, each a regular file of the plain form (POSIX.1-1988 ustar): no
/// extension is gone by, since it could name or make something else than its entry.
fn entries(archive: &[u8]) -> Result<Vec<Entry>, BundleError> {
    let wrong = |problem: String| BundleError::NotABundle(problem);
    let broken = |error: std::io::Error| BundleError::NotABundle(shown(&error.to_string()));
    let mut archive = tar::Archive::new(archive);
    let mut names = BTreeSet::new();
    let mut entries = Vec::new();
    for entry in archive.entries().map_err(broken)?.raw(true) {
        let entry = entry.map_err(broken)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        if kind != tar::EntryType::Regular {
            let kind = match kind {
                tar::EntryType::Symlink | tar::EntryType::Link => "a link",
                tar::EntryType::Directory => "a folder",
                _ => "not a regular file",
            };
            return Err(wrong(format!("its entry {} is {kind}", shown(&name))));
        }
        if entries.len() == MAX_BUNDLE_ENTRIES {
            return Err(wrong(format!("it has more than {MAX_BUNDLE_ENTRIES} entries")));
        }
        let size = entry.header().entry_size().map_err(broken)?;
        let mut content = Vec::new();
        entry.take(MAX_SEALED as u64).read_to_end(&mut content).map_err(broken)?;
        if content.len() as u64 != size {
            return Err(wrong(format!("its entry {} is cut off", shown(&name))));
        }
        if !names.insert(name.clone()) {
            return Err(wrong(format!("it contains {} twice", shown(&name))));
        }
        entries.push(Entry { name, content });
    }
    if entries.is_empty() { Err(wrong("it is empty".to_owned())) } else { Ok(entries) }
}

/// A secret of the keyring; the inner error is its name where it is not declared.
fn secret(
    name: &str,
    content: &[u8],
    envelope: &Envelope,
) -> Result<Result<BundledSecret, String>, BundleError> {
    let wrong = || BundleError::NotABundle(format!("its entry {name} is not a keyring secret"));
    let item: KeyringItem = serde_json::from_slice(content).map_err(|_| wrong())?;
    let secret = STANDARD.decode(&item.secret_base64).map_err(|_| wrong())?;
    let is_type = |text: &str| text.len() <= 128 && text.bytes().all(|b| (0x20..0x7f).contains(&b));
    if !is_type(&item.content_type) {
        return Err(wrong());
    }
    Ok(match envelope.declared_label(&item.attributes) {
        Some(label) => Ok(BundledSecret {
            label: label.to_owned(),
            attributes: item.attributes,
            secret,
            content_type: item.content_type,
        }),
        None => Err(format!("a secret of the keyring with {}", shown_attributes(&item.attributes))),
    })
}

/// Foreign text on a terminal: no more than its start, and nothing that a terminal acts on.
fn shown(text: &str) -> String {
    let start: String = text.chars().take(200).collect();
    ForeignText::new(&start).to_string()
}

fn shown_attributes(attributes: &BTreeMap<String, String>) -> String {
    let each = attributes.iter().take(REPORTED);
    let each: Vec<String> = each.map(|(k, v)| format!("{}={}", shown(k), shown(v))).collect();
    each.join(" ")
}

#[cfg(test)]
mod tests;
