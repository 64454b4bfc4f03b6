//! Identifiers that cannot be mistaken for one another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A session: UUIDv7, so ids sort by creation time and are unique over all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId(Uuid);

impl SessionId {
    /// A new id. Takes the current time from the system clock: the one place ids need it.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl FromStr for SessionId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        // Only the form that Display writes: 36 characters, lower case. `Uuid::from_str` alone also
        // takes braces, URNs and upper case, and one id must have one spelling (it names folders).
        let id = Uuid::try_parse(text).map_err(|_| InvalidId::Session)?;
        if id.as_hyphenated().to_string() == text { Ok(Self(id)) } else { Err(InvalidId::Session) }
    }
}

impl TryFrom<String> for SessionId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.to_string()
    }
}

/// The name of a provider file: 1 to 64 of `a-z 0-9 _ -`, starting with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProviderId(String);

impl ProviderId {
    /// The id as written in the provider file.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ProviderId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let starts_well = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let all_well = text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        if starts_well && all_well && text.len() <= 64 {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId::Provider)
        }
    }
}

impl TryFrom<String> for ProviderId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<ProviderId> for String {
    fn from(id: ProviderId) -> Self {
        id.0
    }
}

/// The caller's own name for the end user who signs in: 1 to 128 printable ASCII characters, no
/// space and no `/`. Anteroom compares it, and never interprets it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserId(String);

impl UserId {
    /// The name as the caller gave it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UserId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let well = (1..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
        if well { Ok(Self(text.to_owned())) } else { Err(InvalidId::User) }
    }
}

impl TryFrom<String> for UserId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<UserId> for String {
    fn from(id: UserId) -> Self {
        id.0
    }
}

/// A text that is not the id it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// Not a session id.
    #[error(
        "a session's id is a UUID in lower case; `anteroom sessions` and GET /api/sessions list them"
    )]
    Session,
    /// Not a provider id.
    #[error(
        "a provider id is 1 to 64 characters of a-z, 0-9, '_' and '-', starting with a letter or digit"
    )]
    Provider,
    /// Not a user id.
    #[error("a user id is 1 to 128 printable ASCII characters without space or '/'")]
    User,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_has_one_spelling() {
        let id = SessionId::generate();
        assert_eq!(id.to_string().parse(), Ok(id));
        for other in [
            id.to_string().to_uppercase(),
            format!("{{{id}}}"),
            format!("urn:uuid:{id}"),
            "../../etc/passwd".into(),
            "a\0b".into(),
            "a".repeat(65),
            String::new(),
        ] {
            assert_eq!(other.parse::<SessionId>(), Err(InvalidId::Session), "{other:?}");
        }
    }

    #[test]
    fn provider_and_user_ids_refuse_what_could_leave_a_folder() {
        assert!("claude_code".parse::<ProviderId>().is_ok());
        for bad in ["", "..", "../x", "A", "a/b", "a\0", &"a".repeat(65), "-a"] {
            assert!(bad.parse::<ProviderId>().is_err(), "{bad:?}");
        }
        assert!("auth0|5f7c8ec7".parse::<UserId>().is_ok());
        for bad in ["", "a b", "a/b", "a\n", "é", &"a".repeat(129)] {
            assert!(bad.parse::<UserId>().is_err(), "{bad:?}");
        }
    }
}
