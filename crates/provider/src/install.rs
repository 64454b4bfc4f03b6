//! How a CLI gets into an image.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a recipe that names the provider takes over; its archives and links are a recipe's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Install {
    /// Debian packages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// npm packages with their exact versions, `@scope/name@1.2.3`; they need `node` in the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub npm: Vec<String>,
    /// Python packages with their exact versions, `name==1.2.3`, as wheels; they need `python3` in the
    /// image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pypi: Vec<String>,
    /// Archives unpacked into it, each with its digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub archives: Vec<Archive>,
    /// Symbolic links.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// The command that shows that it runs; `anteroom image verify` tries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smoke: Option<Smoke>,
}

impl Install {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An archive (what `tar` reads) that is fetched, held to its digest, and unpacked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Where it is: `https://…`; in a recipe also a path relative to it.
    pub url: String,
    /// SHA-256, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// The folder in the image that it is unpacked into, absolute.
    pub path: String,
    /// Leading parts of its files' paths that are left out.
    #[serde(default)]
    pub strip: u8,
}

/// A symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Where it is, absolute.
    pub path: String,
    /// Where it leads.
    pub target: String,
}

/// A command that ends soon with exit code 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Smoke {
    /// Program and arguments.
    pub command: Vec<String>,
    /// What its output must hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prints: Option<String>,
}

/// Whether this is an npm package with its exact version: `name@1.2.3`, `@scope/name@1.2.3`.
#[must_use]
pub fn is_npm_package(text: &str) -> bool {
    let Some((name, version)) = text.rsplit_once('@') else { return false };
    let parts = match name.strip_prefix('@').map(|scoped| scoped.split_once('/')) {
        Some(Some((scope, name))) => vec![scope, name],
        Some(None) => return false,
        None => vec![name],
    };
    // Any other slash would make a path of it, and part of a version a range.
    parts.into_iter().all(is_name) && semver::Version::parse(version).is_ok()
}

/// Whether this is a package of PyPI with its exact version, perhaps with extras (PEP 508):
/// `name==1.2.3`, `name[extra]==1.2.3`.
#[must_use]
pub fn is_pypi_package(text: &str) -> bool {
    let Some((name, version)) = text.split_once("==") else { return false };
    let (name, extras) = match name.split_once('[') {
        Some((name, rest)) => match rest.strip_suffix(']') {
            Some(extras) => (name, extras.split(',').collect()),
            None => return false,
        },
        None => (name, Vec::new()),
    };
    // PEP 440, with neither a wildcard nor a second condition.
    let is_of_version = |b: u8| b.is_ascii_alphanumeric() || b".+!-_".contains(&b);
    is_name(name)
        && extras.into_iter().all(is_name)
        && version.starts_with(|first: char| first.is_ascii_digit())
        && version.bytes().all(is_of_version)
}

/// A part of a package's name, which no installer takes for an option, an address or a path.
fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=200).contains(&text.len())
        && text.bytes().all(plain)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
}
