//! Services that an image's recipe declares: how each is run, when it is ready, what its death means.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One declared service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// Its name: 1 to 40 of `a-z 0-9 -`, none of the sandbox's own (`x`, `browser`, …).
    pub name: String,
    /// Program and arguments; the program is looked up in the guest's PATH.
    pub command: Vec<String>,
    /// Who runs it.
    #[serde(default)]
    pub user: ServiceUser,
    /// Extra environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// When it is ready; without one it is as soon as it runs.
    #[serde(default)]
    pub ready: Option<Probe>,
    /// How long it may take to be ready, in seconds.
    #[serde(default = "ready_seconds")]
    pub ready_seconds: u32,
    /// Whether it must go on answering.
    #[serde(default)]
    pub watchdog: Option<Watchdog>,
    /// How often it is started again after a death that a new start may mend.
    #[serde(default = "restarts")]
    pub restarts: u32,
    /// Whether the session cannot do without it.
    #[serde(default = "needed")]
    pub needed: bool,
    /// Memory that it and its children may have, in MiB, where the kernel can limit it.
    #[serde(default)]
    pub memory_mib: Option<u32>,
    /// Processes and threads that it may have, where the kernel can limit it.
    #[serde(default)]
    pub max_processes: Option<u32>,
}

fn ready_seconds() -> u32 {
    60
}

fn restarts() -> u32 {
    3
}

fn needed() -> bool {
    true
}

/// Who runs a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceUser {
    /// The end user who signs in.
    #[default]
    EndUser,
    /// The guest's root; with the `host` driver whoever runs the agent.
    Root,
}

/// What is looked at to see that a service answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Probe {
    /// A TCP port of the guest's loopback takes a connection.
    Port(u16),
    /// A TCP port of the guest's loopback takes a connection and says something that begins so, as
    /// `RFB ` of a VNC server.
    Greeting {
        /// The port.
        port: u16,
        /// What it says first.
        begins: String,
    },
    /// A Unix socket takes a connection; a leading `~/` is the end user's home.
    Socket(String),
    /// A file is there; a leading `~/` is the end user's home.
    File(String),
    /// A window of this class is on the screen.
    Window(String),
}

/// A service that must go on answering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watchdog {
    /// What is looked at.
    pub probe: Probe,
    /// How long it may fail, in seconds.
    pub seconds: u32,
}
