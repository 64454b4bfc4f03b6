//! A provider: one TOML file that says how one CLI is installed, signed in to, and what it leaves
//! behind. Pure: parses and checks text.
//!
//! [`login`] is how an end user signs in and what the CLI's terminal shows meanwhile, [`credential`]
//! what is taken, [`terms`] who may hold it, [`install`] how the CLI gets into an image. A mistake is reported with its line and
//! key ([`ProviderError`]).
#![forbid(unsafe_code)]

mod check;
pub mod credential;
pub mod install;
mod locate;
pub mod login;
pub mod terms;

use std::net::SocketAddr;

use anteroom_session::{Method, ProviderId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use check::{guest_path_problem, is_guest_path};
pub use credential::{
    Credential, CredentialFile, FileFormat, KeyringSecret, PrintedSecret, StatusCommand,
};
pub use install::Install;
pub use login::{KnownScreen, PromptRule, SignInMethod, UrlSource};
pub use terms::{Custody, TermsOfUse};

/// One provider file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// As in `POST /api/auth/start`: 1 to 64 of `a-z 0-9 _ -`.
    #[schemars(with = "String")]
    pub id: ProviderId,
    /// As an end user knows the tool.
    pub name: String,
    /// Whether a sign-in has consequences: `real` ones, the usual, are refused where sandboxes are emulated
    /// or the `host` driver makes none, unless `serve --allow-weak-isolation` lets them in.
    #[serde(default)]
    pub kind: ProviderKind,
    /// The golden image it runs in, by name.
    pub image: String,
    /// What its terms say of who may hold a login; without them nobody has read any, and the vault
    /// may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<TermsOfUse>,
    /// How it gets into an image whose recipe names this provider.
    #[serde(default, skip_serializing_if = "Install::is_empty")]
    pub install: Install,
    /// The ways to sign in, the one that needs the end user least first.
    pub login: Vec<SignInMethod>,
    /// Screens of the CLI that an end user needs a message about, whichever way they sign in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub screens: Vec<KnownScreen>,
    /// Pages in the desktop's browser that an end user needs a message about, by their window's title.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<KnownPage>,
    /// What it leaves behind.
    pub credential: Credential,
    /// What the session may reach.
    pub egress: Egress,
    /// Files put into the guest before anything starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<InjectedFile>,
}

/// Whether a sign-in has consequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProviderKind {
    /// An account of an end user at a company: needs a VM on KVM, unless the operator says otherwise.
    #[default]
    Real,
    /// A mock identity provider for demonstrations and tests, where nothing of value is typed.
    Demo,
}

/// A page that an end user needs a message about: one that will not go on in this browser, say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KnownPage {
    /// A regular expression on the browser window's title.
    pub title: String,
    /// The message to the end user: what it means, and what to do.
    pub says: String,
}

/// What the session may reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// Host names: `example.com`, `*.example.com` (subdomains only), `example.com:8443`.
    pub allow: Vec<String>,
    /// Names that lead to fixed addresses (mirrors, tests).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub map: Vec<NameMapping>,
    /// What becomes of a host on which the sign-in's page goes on and that is not allowed, as the
    /// sign-in of a company is.
    #[serde(default, skip_serializing_if = "Sso::is_refuse")]
    pub sso: Sso,
    /// PEM of further certificate authorities that the guest's programs trust.
    #[serde(default)]
    pub extra_ca_pem: String,
}

/// What becomes of a host on which a page goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sso {
    /// It is refused, and reported.
    #[default]
    Refuse,
    /// The operator may allow it while the session waits.
    Ask,
}

impl Sso {
    fn is_refuse(&self) -> bool {
        *self == Self::Refuse
    }
}

/// A name that leads to a fixed address, whatever DNS says, private ranges included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NameMapping {
    /// Host name, exact.
    pub host: String,
    /// TCP port as the guest sees it.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Where the connection goes.
    #[schemars(with = "String")]
    pub to: SocketAddr,
}

fn default_port() -> u16 {
    443
}

/// A file put into the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InjectedFile {
    /// Absolute, or `~/…` for the guest user's home.
    pub path: String,
    /// `root` or `person`.
    #[serde(default = "default_owner")]
    pub owner: String,
    /// Permission bits, such as `0o600`.
    #[serde(default = "default_mode")]
    pub mode: u32,
    /// The text.
    pub content: String,
}

fn default_owner() -> String {
    "person".to_owned()
}

fn default_mode() -> u32 {
    0o600
}

/// A provider file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// Not TOML, or not of this form.
    #[error("the provider file {name} cannot be read")]
    Syntax {
        /// Which file.
        name: String,
        /// Where and what.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value that cannot be.
    #[error("the provider file {name}, line {line}: {key} {problem}")]
    Value {
        /// Which file.
        name: String,
        /// Counted from 1; where the key is, or what it is missing from.
        line: usize,
        /// Which key, such as `login[0].command`.
        key: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// The most characters of a mistake that are reported.
const MAX_PROBLEM: usize = 1000;

impl Provider {
    /// Reads a provider file; `name` is for error messages.
    ///
    /// # Errors
    /// When it is not TOML of this form or a value cannot be.
    pub fn parse(name: &str, text: &str) -> Result<Self, ProviderError> {
        let (provider, mistakes) = Self::parse_all(name, text)?;
        mistakes.into_iter().next().map_or(Ok(provider), Err)
    }

    /// Reads a provider file with all its values that cannot be, by their lines, for who mends it.
    ///
    /// # Errors
    /// When it is not TOML of this form.
    pub fn parse_all(name: &str, text: &str) -> Result<(Self, Vec<ProviderError>), ProviderError> {
        let provider: Self = toml::from_str(text).map_err(|source| ProviderError::Syntax {
            name: name.to_owned(),
            source: Box::new(locate::without_long_lines(text, source)),
        })?;
        let wrong = check::check(&provider);
        let lines = locate::lines_of(text, wrong.iter().map(|wrong| &wrong.key));
        let mut found: Vec<_> = lines.into_iter().zip(wrong).collect();
        found.sort_by_key(|(line, _)| *line);
        let reported = found.into_iter().map(|(line, check::Wrong { key, problem })| {
            // Some quote the value, of which the file says how long it is.
            let problem = problem.chars().take(MAX_PROBLEM).collect();
            ProviderError::Value { name: name.to_owned(), line, key: key.to_string(), problem }
        });
        Ok((provider, reported.collect()))
    }

    /// The ways to sign in, in the file's order.
    pub fn methods(&self) -> impl Iterator<Item = Method> {
        self.login.iter().map(|login| login.method)
    }

    /// One way to sign in, if there is such a one.
    #[must_use]
    pub fn login_by(&self, method: Method) -> Option<&SignInMethod> {
        self.login.iter().find(|login| login.method == method)
    }

    /// The JSON Schema (2020-12) of a provider file, for editors.
    #[must_use]
    pub fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }
}

#[cfg(test)]
mod tests;
