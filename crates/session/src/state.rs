//! Where a session stands; each variant holds exactly what exists then.

use serde::{Deserialize, Serialize};

use crate::{EndReason, StateName, Timestamp};

/// Where a session stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum State {
    /// Accepted and recorded; nothing runs yet.
    Requested,
    /// The runner runs, the VM boots, the agent has not spoken.
    Booting,
    /// The agent puts files in place and starts the services, then the CLI is started.
    Preparing,
    /// All is there but the CLI, which is started when the end user comes.
    Ready,
    /// The end user's turn.
    AwaitingUser {
        /// What they sign in with.
        prompt: Prompt,
    },
    /// The credential exists in the guest; it is being sealed and stored.
    Capturing,
    /// The sealed credential is durable; the guest is notified and powers off.
    Sealed,
    /// Over.
    Ended {
        /// Why.
        reason: EndReason,
        /// When it ended.
        at: Timestamp,
        /// What became of the VM.
        teardown: Teardown,
    },
}

/// How an end user signs in.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Method {
    /// In the desktop's browser, which is streamed to them.
    Browser,
    /// Where they like; they bring back the code that the last page shows.
    PasteCode,
    /// Where they like; they give the page the code that the CLI shows.
    DeviceCode,
}

/// When the CLI is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With everything else, whether or not anybody is there.
    #[default]
    AtOnce,
    /// When the end user opens their link, or the caller says that they are there.
    WhenTheEndUserComes,
}

/// What the CLI gives the end user to sign in with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Prompt {
    /// A page to open. Its URL holds a state and a challenge, no token.
    Page {
        /// As the CLI gave it.
        url: String,
        /// With [`Method::DeviceCode`]: what the page asks for.
        code: Option<String>,
    },
    /// Its terminal, which waits for something; the end user may type there.
    Terminal {
        /// What its screen shows, without what is empty.
        screen: Vec<String>,
        /// Why it is theirs to answer.
        #[serde(default, alias = "asks")]
        reason: PromptReason,
    },
}

/// Why a CLI's terminal is the end user's to answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case", deny_unknown_fields)]
pub enum PromptReason {
    /// No rule of the provider file knows what it shows.
    #[default]
    Unknown,
    /// No address came that the provider file takes for the sign-in's, but this one.
    AddressIgnored {
        /// At most 500 characters of it.
        url: String,
    },
    /// A rule answered this, and it stands there all the same.
    Answered {
        /// The line that asked.
        question: String,
    },
}

impl Prompt {
    /// The page, if there is one.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        match self {
            Self::Page { url, .. } => Some(url),
            Self::Terminal { .. } => None,
        }
    }
}

/// What became of the VM after the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Teardown {
    /// Teardown runs.
    TearingDown,
    /// Teardown ran and the machine was looked at.
    TornDown {
        /// When it ended.
        at: Timestamp,
        /// What was still found; empty is the promise.
        leftovers: Vec<Leftover>,
    },
}

impl Teardown {
    /// Whether looking found nothing left of it.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::TornDown { leftovers, .. } if leftovers.is_empty())
    }
}

/// Something that a session left on the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Leftover {
    /// `process`, `socket`, `file`, `mount`, `cgroup`, `ipc`, or `unseen` for a place that could not be
    /// looked at.
    pub kind: String,
    /// A pid and command line, or a path.
    pub what: String,
}

impl State {
    /// Its wire name.
    #[must_use]
    pub fn name(&self) -> StateName {
        match self {
            Self::Requested => StateName::Requested,
            Self::Booting => StateName::Booting,
            Self::Preparing => StateName::Preparing,
            Self::Ready => StateName::Ready,
            Self::AwaitingUser { .. } => StateName::AwaitingUser,
            Self::Capturing => StateName::Capturing,
            Self::Sealed => StateName::Sealed,
            Self::Ended { .. } => StateName::Ended,
        }
    }
}
