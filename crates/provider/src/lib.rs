//! A provider: one TOML file that says how one CLI is signed in to. Pure: parses and checks text.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anteroom_session::ProviderId;
use serde::{Deserialize, Serialize};

/// One provider file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// As in `POST /api/auth/start`.
    pub id: ProviderId,
    /// As a person knows the tool.
    pub name: String,
    /// Whether the sign-ins are real: those are refused where there is no isolation.
    #[serde(default)]
    pub kind: ProviderKind,
    /// The golden image it runs in, by name.
    pub image: String,
    /// How the CLI is started.
    pub login: Login,
    /// What it leaves behind.
    pub credential: Credential,
    /// What the session may reach.
    pub egress: Egress,
    /// Files put into the guest before anything starts.
    #[serde(default)]
    pub files: Vec<InjectedFile>,
}

/// Whether a sign-in has consequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderKind {
    /// An account of a person at a company: needs a real VM on real hardware virtualisation,
    /// unless the operator says otherwise.
    #[default]
    Real,
    /// For demonstrations and tests.
    Demo,
}

/// How the CLI is started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// Program and arguments; the program is looked up in the guest's PATH.
    pub command: Vec<String>,
    /// Extra environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What the person has to do, one sentence.
    pub instructions: String,
    /// How long the CLI may take to give its sign-in URL, in seconds.
    #[serde(default = "default_url_timeout")]
    pub url_timeout_seconds: u64,
}

fn default_url_timeout() -> u64 {
    120
}

/// What a complete credential looks like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Path in the guest; a leading `~/` is the guest user's home.
    pub path: String,
    /// JSON pointers (RFC 6901) to non-empty strings that a complete file has.
    pub required: Vec<String>,
    /// The largest file taken, in bytes.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: u64,
}

fn default_max_bytes() -> u64 {
    64 * 1024
}

/// What the session may reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// Host names: `example.com`, `*.example.com` (subdomains only), `example.com:8443`.
    pub allow: Vec<String>,
    /// Names that lead to fixed addresses (mirrors, tests).
    #[serde(default)]
    pub map: Vec<NameMapping>,
    /// PEM of further certificate authorities that the guest's programs trust.
    #[serde(default)]
    pub extra_ca_pem: String,
}

/// A name that leads to a fixed address, whatever DNS says, private ranges included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameMapping {
    /// Host name, exact.
    pub host: String,
    /// TCP port as the guest sees it.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Where the connection goes.
    pub to: SocketAddr,
}

fn default_port() -> u16 {
    443
}

/// A file put into the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    #[error("the provider file {name}: {field} {problem}")]
    Value {
        /// Which file.
        name: String,
        /// Which field.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl Provider {
    /// Reads a provider file; `name` is for error messages.
    ///
    /// # Errors
    /// When it is not TOML of this form or a value cannot be.
    pub fn parse(name: &str, text: &str) -> Result<Self, ProviderError> {
        let provider: Self = toml::from_str(text).map_err(|source| ProviderError::Syntax {
            name: name.to_owned(),
            source: Box::new(source),
        })?;
        provider.check(name)?;
        Ok(provider)
    }

    fn check(&self, name: &str) -> Result<(), ProviderError> {
        let bad = |field: &'static str, problem: &str| {
            Err(ProviderError::Value { name: name.to_owned(), field, problem: problem.to_owned() })
        };
        if self.login.command.first().is_none_or(String::is_empty) {
            return bad("login.command", "is empty; it must name a program");
        }
        // No program can be started with these, and a guest would say so much later.
        if self.login.command.iter().any(|word| word.contains('\0')) {
            return bad("login.command", "holds a NUL character; no program can be given one");
        }
        let is_variable = |(name, value): (&String, &String)| {
            !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
        };
        if !self.login.env.iter().all(is_variable) {
            return bad("login.env", "holds an empty name, a name with = or a NUL character");
        }
        if !(1..=3600).contains(&self.login.url_timeout_seconds) {
            return bad("login.url_timeout_seconds", "must be 1 to 3600");
        }
        if !is_guest_path(&self.credential.path) {
            return bad("credential.path", "must be absolute or start with ~/ and have no ..");
        }
        if self.credential.required.is_empty() {
            return bad("credential.required", "is empty; name what makes the file complete");
        }
        if self.credential.required.iter().any(|pointer| !pointer.starts_with('/')) {
            return bad("credential.required", "holds what is no JSON pointer; they start with /");
        }
        if !(1..=1024 * 1024).contains(&self.credential.max_bytes) {
            return bad("credential.max_bytes", "must be 1 to 1048576");
        }
        if self.files.iter().any(|file| !is_guest_path(&file.path)) {
            return bad("files.path", "must be absolute or start with ~/ and have no ..");
        }
        if self.files.iter().any(|file| !matches!(file.owner.as_str(), "root" | "person")) {
            return bad("files.owner", "must be root or person");
        }
        if self.files.iter().any(|file| file.mode > 0o777) {
            return bad("files.mode", "must be at most 0o777");
        }
        if self.files.iter().any(|file| file.content.len() > 1024 * 1024) {
            return bad("files.content", "must be at most 1 MiB");
        }
        Ok(())
    }
}

/// Whether `path` names a place in the guest: absolute or in the home, no `..`, no NUL, ≤ 512 bytes.
#[must_use]
pub fn is_guest_path(path: &str) -> bool {
    let rest = path.strip_prefix("~/").or_else(|| path.strip_prefix('/'));
    rest.is_some_and(|rest| {
        !rest.is_empty()
            && path.len() <= 512
            && !path.contains('\0')
            && rest.split('/').all(|part| part != ".." && part != "." && !part.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEMO: &str = include_str!("../../../providers/demo.toml");

    #[test]
    fn the_shipped_demo_provider_is_read() {
        let provider = Provider::parse("demo.toml", DEMO).unwrap();
        assert_eq!(provider.id.as_str(), "demo");
        assert_eq!(provider.kind, ProviderKind::Demo);
    }

    #[test]
    fn a_wrong_value_names_file_and_field() {
        let text = DEMO.replace("~/.demo-login", "../.demo-login");
        let error = Provider::parse("demo.toml", &text).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the provider file demo.toml: credential.path must be absolute or start with ~/ and have no .."
        );
    }

    #[test]
    fn unknown_fields_are_refused() {
        assert!(Provider::parse("x", &format!("{DEMO}\n[surprise]\na = 1\n")).is_err());
    }

    #[test]
    fn what_a_guest_could_not_start_is_refused() {
        let command = |toml: &str| DEMO.replace(r#"["demo-login", "login"]"#, toml);
        let variable = |toml: &str| DEMO.replace("[login.env]", &format!("[login.env]\n{toml}"));
        let owner = format!("{DEMO}\n[[files]]\npath = '/a'\nowner = 'nobody'\ncontent = ''\n");
        for (text, field) in [
            (command("[]"), "login.command"),
            (command(r#"[""]"#), "login.command"),
            (command(r#"["a", "\u0000"]"#), "login.command"),
            (variable(r#""" = "x""#), "login.env"),
            (variable(r#""A=B" = "x""#), "login.env"),
            (variable(r#"A = "\u0000""#), "login.env"),
            (owner, "files.owner"),
        ] {
            let error = Provider::parse("x", &text).unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn guest_paths() {
        assert!(is_guest_path("~/.codex/auth.json") && is_guest_path("/etc/x"));
        for bad in ["", "/", "~/", "x", "~", "/a/../b", "/a//b", "/a\0", "/a/./b"] {
            assert!(!is_guest_path(bad), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_the_parser(text in ".{0,400}") {
            let _ = Provider::parse("x", &text);
        }
    }
}
