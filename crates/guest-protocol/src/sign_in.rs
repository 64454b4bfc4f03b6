//! What a guest learns about its sign-in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::preferences::Preferences;

/// Who signs in to what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeginSignIn {
    /// What the end user prefers.
    pub preferences: Preferences,
    /// The CLI to sign in to.
    pub cli: CliSpec,
    /// Where its credential will be, and when it is complete.
    pub credential: CredentialSpec,
    /// The age recipient to seal to (`age1…`).
    pub recipient: String,
}

/// How the guest runs the CLI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CliSpec {
    /// Program and arguments; the program is looked up in the guest's PATH.
    pub command: Vec<String>,
    /// Extra environment variables.
    pub env: BTreeMap<String, String>,
    /// TCP ports on loopback that it listens on, and that must be free for it.
    pub callback_ports: Vec<u16>,
}

/// What the credential will be. Its files travel as one tar archive, named from the home on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialSpec {
    /// Its files.
    pub files: Vec<CredentialFileSpec>,
    /// Its secrets in the desktop's keyring; there is one when there are such.
    pub keyring: Vec<KeyringSpec>,
    /// What of it the CLI prints and keeps in no file.
    #[serde(default)]
    pub printed: Vec<PrintedSpec>,
    /// Whether nothing is taken before [`SignedIn`](crate::HostMessage::SignedIn).
    pub awaits_screen: bool,
    /// What the CLI is asked, of these files alone, before they are sealed.
    pub status: Option<StatusSpec>,
}

/// A credential that the CLI prints; it becomes a file of the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrintedSpec {
    /// Path in the bundle, from the home on.
    pub path: String,
    /// How it begins, exactly.
    pub begins: String,
    /// A regular expression for what follows.
    pub rest: String,
}

/// A file of a credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialFileSpec {
    /// Path in the guest user's home, without `~/`.
    pub path: String,
    /// When it is complete.
    pub complete: Completeness,
    /// Whether it is waited for.
    pub optional: bool,
    /// The largest file taken, in bytes.
    pub max_bytes: u64,
}

/// A secret of the keyring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyringSpec {
    /// All of its attributes; [`ANY_VALUE`](crate::ANY_VALUE) for any value.
    pub attributes: BTreeMap<String, String>,
    /// Whether it is waited for.
    pub optional: bool,
    /// The largest secret taken, in bytes.
    pub max_bytes: u64,
}

/// When a file is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "snake_case", deny_unknown_fields)]
pub enum Completeness {
    /// It is JSON and has non-empty strings there.
    Json {
        /// JSON pointers (RFC 6901).
        pointers: Vec<String>,
    },
    /// It is UTF-8 and matches each.
    Text {
        /// Regular expressions.
        patterns: Vec<String>,
    },
    /// It is not empty; its bytes mean nothing to us.
    Binary {},
}

/// A question to the CLI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Extra environment variables.
    pub env: BTreeMap<String, String>,
    /// A regular expression that its output matches when it is signed in.
    pub signed_in: String,
}
