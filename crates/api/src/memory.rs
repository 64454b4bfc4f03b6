//! What sessions take of the machine's memory, as it travels.

use anteroom_session::StateName;
use serde::Serialize;
use utoipa::ToSchema;

/// The memory of the machine that sessions run on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemoryView {
    /// Memory that sessions, templates and clones that wait may take together (`serve --memory-budget`).
    pub budget_bytes: u64,
    /// Memory that is reserved for sessions.
    pub reserved_bytes: u64,
    /// Free memory of the machine, without what is left to its other programs; null where that is not known.
    pub free_bytes: Option<u64>,
    /// Each session that has memory reserved, oldest first.
    pub sessions: Vec<SessionMemoryView>,
    /// The templates in memory, which their clones share.
    pub templates: Vec<TemplateMemoryView>,
    /// The clones that wait for a sign-in. They take of the budget what sessions and templates leave, and are ended
    /// when a session needs it.
    pub waiting_clones: Vec<WaitingCloneView>,
}

/// The memory of a clone that waits for a sign-in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitingCloneView {
    /// The template that it is a clone of.
    pub template: String,
    /// What only its own processes have, as measured when it began to wait.
    pub private_bytes: u64,
    /// What its processes had in common with others then: its template's memory, and files.
    pub shared_bytes: u64,
}

/// A session's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionMemoryView {
    /// The session's id, a UUID.
    pub session_id: String,
    /// The provider's id.
    pub provider: String,
    /// The session's state.
    pub state: StateName,
    /// The template that its VM is a clone of; null where it was booted, or does not run yet.
    pub template: Option<String>,
    /// What is reserved for it.
    pub reserved_bytes: u64,
    /// What only its own processes have, as measured now; null where that is not known.
    pub private_bytes: Option<u64>,
    /// What its processes have in common with others: a template's memory, and files; null where that is
    /// not known.
    pub shared_bytes: Option<u64>,
}

/// A template's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMemoryView {
    /// The template's id, as in `sandbox_started` of a session's timeline.
    pub id: String,
    /// Its memory, once for all its clones.
    pub bytes: u64,
    /// The number of sessions that are clones of it.
    pub clones: u64,
}
