//! A code that the end user brings.

use serde::{Deserialize, Serialize};

/// What becomes of a code that was brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CodeTaken {
    /// Whether it is typed already; else it waits until the tool asks for it (`code_entered` in the
    /// timeline).
    pub typed: bool,
    /// Whether it took the place of an earlier one that was not typed yet, and is not any more.
    pub replaced: bool,
}
