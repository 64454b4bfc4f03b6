//! Who can open a credential.

use serde::{Deserialize, Serialize};

/// Who can open a sealed credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OpenableBy {
    /// Whoever has the key of the recipient that the start call gave: nobody on the controller's
    /// machine.
    Caller,
    /// The operator, with the vault's key.
    Operator,
}
