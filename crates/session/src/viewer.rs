//! Who looks at a session's sandbox, and by what right.
//!
//! A session has one link at a time. Each new one begins a generation, and so does a revocation: what
//! was opened by an earlier generation is closed, all of it, since all of it carries its number.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::key_name::KeyName;

/// Which of a session's links, counted from 1.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(transparent)]
pub struct HolderGeneration(u32);

impl HolderGeneration {
    /// Of the link that the start call returns.
    pub const FIRST: Self = Self(1);

    /// The generation with this number; `None` for what is no number of one.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        u32::try_from(number).ok().filter(|number| *number > 0).map(Self)
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for HolderGeneration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What gives somebody access to a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum AccessGrant {
    /// They opened the session's link of this generation.
    Link {
        /// The link's number.
        generation: HolderGeneration,
    },
    /// They have an API key.
    ApiKey {
        /// The key's name.
        #[schema(value_type = String)]
        key: KeyName,
    },
}

impl AccessGrant {
    /// Whether their right ended when the links before `oldest` were revoked.
    #[must_use]
    pub fn is_before(&self, oldest: HolderGeneration) -> bool {
        matches!(self, Self::Link { generation } if *generation < oldest)
    }
}

/// As in "opened by …".
impl fmt::Display for AccessGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link { generation } => write!(f, "link {generation}"),
            Self::ApiKey { key } => write!(f, "the API key {key}"),
        }
    }
}

/// What somebody opened.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::IntoStaticStr,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum View {
    /// The link itself: it was exchanged for its cookie.
    Link,
    /// The desktop's picture: the media connection is up.
    Picture,
    /// The tool's terminal.
    Terminal,
    /// The desktop by VNC.
    Vnc,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_ends_the_earlier_generations_and_no_caller() {
        let second = HolderGeneration::from_number(2).unwrap();
        let of = |generation| AccessGrant::Link { generation };
        assert!(of(HolderGeneration::FIRST).is_before(second));
        assert!(!of(second).is_before(second));
        assert!(!of(second).is_before(HolderGeneration::FIRST));
        assert!(!AccessGrant::ApiKey { key: "ci".parse().unwrap() }.is_before(second));
        assert_eq!(HolderGeneration::from_number(0), None);
        assert_eq!(HolderGeneration::from_number(i64::MAX), None);
    }
}
