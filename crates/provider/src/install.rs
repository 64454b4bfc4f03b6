//! How a CLI gets into an image.

use base64::Engine as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a recipe that names the provider takes over; its archives and links are a recipe's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Install {
    /// Debian packages: `name` for the newest that the suite has, `name=version`, or
    /// `name=version@sha256:…` as the suite's index has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// npm packages; they need `node` in the image unless they bring programs of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub npm: Vec<NpmPackage>,
    /// Python packages as pip's requirements have them, `name==1.2.3 --hash=sha256:…`, with all that
    /// they depend on; as wheels. They need `python3` in the image.
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

/// A package of npm: fetched by this machine's npm from where that is set to, and held to its integrity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NpmPackage {
    /// Name and exact version: `name@1.2.3`, `@scope/name@1.2.3`.
    pub package: String,
    /// `sha512-…`, as `npm view name@1.2.3 dist.integrity` has it.
    pub integrity: String,
    /// The folder in the image that its own files are unpacked into, absolute. Without it the package
    /// is installed with what it depends on, and its programs are on the PATH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

impl NpmPackage {
    /// What is wrong with it, in words that follow its key.
    ///
    /// # Errors
    /// When it has no exact version or no such integrity.
    pub fn check(&self) -> Result<(), String> {
        let Self { package, integrity, .. } = self;
        if !is_npm_package(package) {
            return Err(format!("{package:?} has no exact version; write it like name@1.2.3"));
        }
        if integrity_of(integrity).is_none() {
            return Err(format!(
                "{package:?} has the integrity {integrity:?}, which must be sha512- and 88 characters of base64; copy what `npm view {package} dist.integrity` prints"
            ));
        }
        Ok(())
    }
}

/// The SHA-512 in npm's (and the web's) form of integrity.
#[must_use]
pub fn integrity_of(text: &str) -> Option<[u8; 64]> {
    let digest = base64::engine::general_purpose::STANDARD.decode(text.strip_prefix("sha512-")?);
    digest.ok()?.try_into().ok()
}

/// A Debian package as a recipe names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebianPackage<'a> {
    /// Its name, and perhaps its architecture.
    pub name: &'a str,
    /// Its exact version; without it the newest of the suite.
    pub version: Option<&'a str>,
    /// Its SHA-256, as the suite's index has it.
    pub sha256: Option<&'a str>,
}

impl<'a> DebianPackage<'a> {
    /// Reads `name`, `name=version` or `name=version@sha256:…`.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (package, sha256) = match text.split_once("@sha256:") {
            Some((package, digest)) => (package, Some(digest)),
            None => (text, None),
        };
        let (name, version) = match package.split_once('=') {
            Some((name, version)) => (name, Some(version)),
            None => (package, None),
        };
        // These become arguments and lines of shell hooks: apt takes more, as patterns, and a dash at the
        // end for removal.
        let plain = |text: &str, more: &[u8]| {
            text.starts_with(|first: char| first.is_ascii_alphanumeric())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
        };
        let good = plain(name, b"+-.:")
            && !name.ends_with('-')
            && version.is_none_or(|version| plain(version, b"+-.:~"))
            && sha256.is_none_or(|digest| version.is_some() && is_sha256(digest));
        good.then_some(Self { name, version, sha256 })
    }
}

/// Whether this is a SHA-256 as it is written here: 64 of 0-9 and a-f.
#[must_use]
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
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

/// Whether this is a package of PyPI with its exact version, perhaps with extras (PEP 508), and hashes
/// as pip's requirements have them: `name==1.2.3 --hash=sha256:…`, `name[extra]==1.2.3 --hash=…`.
#[must_use]
pub fn is_pypi_package(text: &str) -> bool {
    let mut parts = text.split(' ');
    let Some((name, version)) = parts.next().and_then(|package| package.split_once("==")) else {
        return false;
    };
    let hashes: Vec<_> = parts.map(|part| part.strip_prefix("--hash=sha256:")).collect();
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
        && !hashes.is_empty()
        && hashes.into_iter().all(|hash| hash.is_some_and(is_sha256))
}

/// A part of a package's name, which no installer takes for an option, an address or a path.
fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=200).contains(&text.len())
        && text.bytes().all(plain)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
}
