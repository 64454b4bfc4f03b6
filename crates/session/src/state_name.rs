//! A state by its name, for programs and for people.

use serde::{Deserialize, Serialize};

// No `Display`: programs read `as_str`, people `label`.
/// A state, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateName {
    /// See [`crate::State::Requested`].
    Requested,
    /// See [`crate::State::Booting`].
    Booting,
    /// See [`crate::State::Preparing`].
    Preparing,
    /// See [`crate::State::Ready`].
    Ready,
    /// See [`crate::State::AwaitingUser`].
    AwaitingUser,
    /// See [`crate::State::Capturing`].
    Capturing,
    /// See [`crate::State::Sealed`].
    Sealed,
    /// See [`crate::State::Ended`].
    Ended,
}

impl StateName {
    /// Every state, in order.
    pub const ALL: [Self; 8] = [
        Self::Requested,
        Self::Booting,
        Self::Preparing,
        Self::Ready,
        Self::AwaitingUser,
        Self::Capturing,
        Self::Sealed,
        Self::Ended,
    ];

    /// As in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Booting => "booting",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::AwaitingUser => "awaiting_user",
            Self::Capturing => "capturing",
            Self::Sealed => "sealed",
            Self::Ended => "ended",
        }
    }

    /// For people, as in "the session is …".
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Requested => "waiting to be started",
            Self::Booting => "booting",
            Self::Preparing => "being prepared",
            Self::Ready => "waiting for the end user to arrive",
            Self::AwaitingUser => "waiting for the end user to sign in",
            Self::Capturing => "capturing the credential",
            Self::Sealed => "powering off, with its credential stored",
            Self::Ended => "ended",
        }
    }

    /// The same as a sentence without its end: "the session is booting".
    #[must_use]
    pub fn sentence(self) -> String {
        match self {
            Self::Ended => "the session has ended".to_owned(),
            other => format!("the session is {}", other.label()),
        }
    }
}
