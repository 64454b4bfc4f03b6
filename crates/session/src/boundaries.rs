//! What holds a session's processes.

use serde::{Deserialize, Serialize};

/// What confines a process, as the kernel reports it.
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
    /// Whether it is also in other groups.
    pub has_groups: bool,
    /// Whether it has a capability, or can gain one.
    pub has_capabilities: bool,
    /// Whether no program that it starts can gain privileges (`no_new_privs`).
    pub no_new_privileges: bool,
    /// Whether its system calls are filtered.
    pub filters_system_calls: bool,
    /// The namespaces that it does not share with the host.
    pub namespaces: Vec<Namespace>,
    /// The path of its own cgroup; null where it has none.
    pub cgroup: Option<String>,
}

/// What confines a session's processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Confined {
    /// The VMM, or the agent on this host.
    pub sandbox: Boundaries,
    /// The session's runner.
    pub runner: Boundaries,
    /// What this machine cannot provide, each with the cause.
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
