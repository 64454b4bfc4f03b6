//! What a sign-in has around it.

use std::net::SocketAddr;

use tokio::sync::watch;

use super::terminal::Terminal;
use crate::desktop::browser::Trust;
use crate::guest::Guest;
use crate::redact::Secrets;
use crate::supervise::{Priority, Supervisor};

/// What the CLI and its sign-in need.
pub struct Context {
    /// Where the CLI runs.
    pub guest: Guest,
    /// Who starts it.
    pub supervisor: Supervisor,
    /// The CLI's share where processors are short.
    pub priority: Priority,
    /// The X display, `:1`.
    pub display: String,
    /// The guest's proxy.
    pub proxy: SocketAddr,
    /// Certificate authorities.
    pub trust: Trust,
    /// The CLI's terminal, once it has one.
    pub terminal: watch::Sender<Option<Terminal>>,
    /// What the host has said.
    pub signals: HostSignals,
}

impl Context {
    /// What is kept out of logs and reports.
    pub fn secrets(&self) -> &Secrets {
        self.supervisor.reporter.secrets()
    }
}

/// What the host says once in a sign-in. Cheap to clone.
#[derive(Clone, Default)]
pub struct HostSignals {
    /// The CLI may be started.
    pub start_tool: Signal,
    /// The host has seen on the CLI's screen that it is signed in.
    pub signed_in: Signal,
    /// It is the end user's turn.
    pub turn_begins: Signal,
}

/// Something that happens once. Cheap to clone.
#[derive(Clone)]
pub struct Signal(watch::Sender<bool>);

impl Default for Signal {
    fn default() -> Self {
        Self(watch::channel(false).0)
    }
}

impl Signal {
    /// It happens.
    pub fn give(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it has happened.
    pub async fn given(&self) {
        // The sender is here, and so lives as long as the wait.
        let _ = self.0.subscribe().wait_for(|given| *given).await;
    }
}
