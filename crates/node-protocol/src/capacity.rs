//! What sessions take of a node's machine, and what it has.

use anteroom_guest_protocol::Preferences;
use anteroom_provider::Provider;
use anteroom_session::SessionId;
use serde::{Deserialize, Serialize};

/// What a session's sandbox would be, as far as what it takes depends on that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxQuery {
    /// Name of its image.
    pub image: String,
    /// PEM of its provider's extra authorities.
    pub extra_ca_pem: String,
    /// Whether a clone will do.
    pub may_be_clone: bool,
}

impl SandboxQuery {
    /// Of a sign-in to this provider.
    #[must_use]
    pub fn of(provider: &Provider, preferences: &Preferences) -> Self {
        Self {
            image: provider.image.clone(),
            extra_ca_pem: provider.egress.extra_ca_pem.clone(),
            may_be_clone: may_be_clone(provider, preferences),
        }
    }
}

/// Whether a sign-in can be in a clone: a browser that runs has its language and its time zone.
#[must_use]
pub fn may_be_clone(provider: &Provider, preferences: &Preferences) -> bool {
    let named = provider.egress.allow.iter().filter_map(|host| host.rsplit_once(':'));
    let mut ports = named.filter_map(|(_, port)| port.parse::<u16>().ok());
    preferences.locale.is_none()
        && preferences.time_zone.is_none()
        && ports.all(|port| matches!(port, 80 | 443))
}

/// What one session takes, at most as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demand {
    /// Memory of its processes, without what it shares with others.
    pub memory_bytes: u64,
    /// The disk of the node's state.
    pub disk_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// What the machine has for sessions now, beside what the node leaves to its other programs; `None` where
/// the system does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Free {
    /// Memory.
    pub memory_bytes: Option<u64>,
    /// The disk of the node's state.
    pub disk_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// What the templates in memory take of the node's budget.
    pub templates_bytes: u64,
    /// How much of that may come back: templates that are being loaded, and may be refused yet, and those that
    /// only clones which still run have.
    pub unsettled_templates_bytes: u64,
    /// What sandboxes that wait for a session take of the machine's memory, each until it has ended. They are no
    /// session's, and what they take comes back as soon as one is to have it ([`Node::allow_waiting`]).
    ///
    /// [`Node::allow_waiting`]: crate::Node::allow_waiting
    pub waiting_bytes: u64,
}

/// What a session would take, and what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    /// What it would take.
    pub demand: Demand,
    /// What there is.
    pub free: Free,
}

/// The memory of a node, as it was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeMemory {
    /// What there is for others.
    pub free: Free,
    /// The sessions that run.
    pub sessions: Vec<SessionMemory>,
    /// The templates in memory.
    pub templates: Vec<TemplateMemory>,
    /// The clones that wait for a session.
    pub waiting: Vec<WaitingMemory>,
}

/// What a session takes of its node's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionMemory {
    /// The session.
    pub session: SessionId,
    /// The template that it is a clone of; `None` of a VM that was booted.
    pub template: Option<String>,
    /// What is to be reserved for it: at least what it takes.
    pub reserve_bytes: u64,
    /// What its processes take; `None` where it cannot be read.
    pub pages: Option<Pages>,
}

/// Pages of a session's processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pages {
    /// Its own.
    pub private_bytes: u64,
    /// Those that others have too, or would have: a template's, and files'.
    pub shared_bytes: u64,
}

/// What a clone that waits for a session takes of its node's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitingMemory {
    /// The template that it is a clone of.
    pub template: String,
    /// What its processes take.
    pub pages: Pages,
}

/// A template in a node's memory, which its clones share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateMemory {
    /// Its id.
    pub id: String,
    /// Its memory.
    pub bytes: u64,
}
