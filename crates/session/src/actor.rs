//! Who acts on a session.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::key_name::KeyName;
use crate::viewer::{AccessGrant, HolderGeneration};

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Actor {
    /// A caller of the API.
    Caller {
        /// The name of the API key that they used.
        #[schema(value_type = String)]
        key: KeyName,
    },
    /// The end user, in the viewer.
    EndUser {
        /// The number of the session's link that they opened.
        generation: HolderGeneration,
    },
    /// The operator, on the controller's machine.
    Operator {},
}

impl From<AccessGrant> for Actor {
    fn from(viewer: AccessGrant) -> Self {
        match viewer {
            AccessGrant::Link { generation } => Self::EndUser { generation },
            AccessGrant::ApiKey { key } => Self::Caller { key },
        }
    }
}

/// As in "requested by …".
impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caller { key } => write!(f, "the API key {key}"),
            Self::EndUser { generation } => write!(f, "the end user (link {generation})"),
            Self::Operator {} => f.write_str("the operator"),
        }
    }
}
