//! When things happened, in words.

use serde::{Deserialize, Serialize};

use crate::{Actor, Explanation, Waited};

/// Milliseconds since the Unix epoch, stamped on the host (a guest's clock may run slow).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// `self` moved `seconds` later.
    #[must_use]
    pub fn plus_seconds(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1000)))
    }

    /// Milliseconds from `earlier` to `self`; 0 if the clock was stepped back in between.
    #[must_use]
    pub fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One line of a session's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TimelineEntry {
    /// When the controller learned of it, by its own clock.
    pub at: Timestamp,
    /// Stable machine name, such as `sandbox_started` or `ended`.
    pub kind: String,
    /// One sentence for an end user.
    pub message: String,
    /// Who made it happen, where somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
    /// Of a death: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Box<Explanation>>,
    /// Of the `agent_connected` of a clone: how long its start waited for the VMM and the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited: Option<Waited>,
}

impl TimelineEntry {
    /// One that says no more than what happened.
    #[must_use]
    pub fn new(at: Timestamp, kind: &str, message: String) -> Self {
        Self { at, kind: kind.to_owned(), message, by: None, explanation: None, waited: None }
    }
}
