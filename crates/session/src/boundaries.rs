//! What holds a session's processes.

use serde::{Deserialize, Serialize};

/// What the kernel says that holds a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "five readings of the kernel's, which exclude nothing"
)]
pub struct Boundaries {
    /// Its user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
    /// Whether it is in other groups too.
    pub has_groups: bool,
    /// Whether it has a capability, or may have one again.
    pub has_capabilities: bool,
    /// Whether no program that it starts gains a privilege.
    pub no_new_privileges: bool,
    /// Whether its system calls are filtered.
    pub filters_system_calls: bool,
    /// The namespaces that it has apart from the machine's.
    pub namespaces: Vec<Namespace>,
    /// Its cgroup, where it has one of its own.
    pub cgroup: Option<String>,
}

/// What holds a session's processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Confined {
    /// The VMM, or the agent on this host.
    pub sandbox: Boundaries,
    /// The session's runner.
    pub runner: Boundaries,
    /// What there is not, each with why.
    pub missing: Vec<String>,
}

/// A kind of namespace, by its name in /proc.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Namespace {
    /// Its file tree.
    Mnt,
    /// Its network.
    Net,
    /// System V objects and message queues.
    Ipc,
    /// The processes that it sees.
    Pid,
    /// The host's name.
    Uts,
}

impl Namespace {
    /// Each of them.
    pub const ALL: [Self; 5] = [Self::Mnt, Self::Net, Self::Ipc, Self::Pid, Self::Uts];

    /// As /proc names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mnt => "mnt",
            Self::Net => "net",
            Self::Ipc => "ipc",
            Self::Pid => "pid",
            Self::Uts => "uts",
        }
    }
}
