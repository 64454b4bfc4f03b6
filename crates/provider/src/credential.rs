//! What a sign-in leaves behind.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a complete credential looks like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Its files; together they are sealed as one bundle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<CredentialFile>,
    /// Secrets that the CLI keeps in the desktop's keyring (the Secret Service); sealed with the
    /// files, and put into their owner's keyring.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keyring: Vec<KeyringSecret>,
    /// What the CLI prints and keeps in no file; each is sealed as a file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub printed: Vec<PrintedSecret>,
    /// A regular expression on the terminal's screen that shows when the CLI is signed in, for one that
    /// writes its files before it knows: nothing is taken until it was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub screen: Option<String>,
    /// The CLI's own word that it is signed in. Leave it out where asking refreshes tokens: those
    /// are used once, and what is sealed would be worth nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusCommand>,
}

/// A secret that the CLI shows on its terminal, over one row or several. It is read in the guest, and
/// what the terminal shows from its beginning on is passed neither to the host nor to a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrintedSecret {
    /// The file that it is sealed as, from `~/` on; it holds the secret and a line feed.
    pub path: String,
    /// How it begins, exactly, such as `sk-ant-oat01-`.
    pub begins: String,
    /// A regular expression for what follows, such as `[A-Za-z0-9_-]{80,}`.
    pub rest: String,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CredentialFile {
    /// Path in the guest user's home, from `~/` on. Its last component may have one `*`, for one or
    /// more characters of a name that is only known afterwards; each such file is taken.
    pub path: String,
    /// How it is read.
    #[serde(default)]
    pub format: FileFormat,
    /// What a complete file has: for `json`, JSON pointers (RFC 6901) to non-empty strings; for
    /// `text`, regular expressions; for `binary`, nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required: Vec<String>,
    /// Taken when it is there; not waited for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// The largest file taken, in bytes.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: u64,
}

/// How a credential file is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// One JSON value.
    #[default]
    Json,
    /// UTF-8 text of any other form.
    Text,
    /// Bytes of any form, such as an SQLite database; with what SQLite keeps beside it.
    Binary,
}

fn default_max_bytes() -> u64 {
    64 * 1024
}

/// A secret of the keyring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyringSecret {
    /// How its owner's keyring shows it.
    pub label: String,
    /// What the CLI finds it by: all of its attributes, since one more could make other programs of
    /// its owner find it. `*` stands for any value; one at least must not be.
    pub attributes: BTreeMap<String, String>,
    /// Taken when it is there; not waited for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// The largest secret taken, in bytes.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: u64,
}

/// Asks the CLI whether it is signed in, in a home that holds the bundle alone and without a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusCommand {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Extra environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// A regular expression that its output matches when it is signed in.
    pub signed_in: String,
}
