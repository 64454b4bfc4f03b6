//! What a service is to the supervisor.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use futures::future::LocalBoxFuture;

use super::failure::Failure;
use super::limits::Limits;
use super::output::{LineFilter, all_lines};
use super::restart::RestartPolicy;
use super::watchdog::Watchdog;

/// How a service is started and kept.
pub struct ServiceSpec {
    /// In messages and logs: `x`, `browser`, …
    pub name: String,
    /// In sentences: "the X server".
    pub title: String,
    /// Prepares a start; called for each.
    pub launch: Box<dyn Fn() -> Result<Launch, Failure>>,
    /// What follows its death.
    pub restart: RestartPolicy,
    /// What it may use.
    pub limits: Limits,
    /// Its share where processors are short.
    pub priority: Priority,
    /// Whether the session cannot do without it.
    pub needed: bool,
    /// The service that it dies with, by name; that one's death is reported first.
    pub client_of: Option<&'static str>,
    /// What becomes of each line of its output.
    pub filter: LineFilter,
}

/// One start of a service.
pub struct Launch {
    /// Its command.
    pub command: Command,
    /// When it is ready; `None` for as soon as it runs.
    pub readiness: Option<Readiness>,
    /// Whether it must go on answering.
    pub watchdog: Option<Watchdog>,
}

/// How a service is seen to be ready.
pub struct Readiness {
    /// What is looked at, for the evidence.
    pub asked: String,
    /// How long it may take.
    pub deadline: Duration,
    /// Resolves when it is ready.
    pub probe: LocalBoxFuture<'static, Result<()>>,
}

/// A service's share where processors are short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// That of the agent.
    Normal,
    /// A tenth of that, and all that is idle.
    Low,
}

impl ServiceSpec {
    /// A service that is needed, has no limits and is never started again.
    pub fn new(
        name: &str,
        title: &str,
        launch: impl Fn() -> Result<Launch, Failure> + 'static,
    ) -> Self {
        Self {
            name: name.to_owned(),
            title: title.to_owned(),
            launch: Box::new(launch),
            restart: RestartPolicy::Never,
            limits: Limits::default(),
            priority: Priority::Normal,
            needed: true,
            client_of: None,
            filter: all_lines,
        }
    }
}
