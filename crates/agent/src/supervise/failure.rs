//! Why a service is not available: the one place where this is put into an event.

use std::process::Command;
use std::time::Duration;

use anteroom_guest_protocol::{Evidence, NotStarted, ServiceEvent, Stall};

use super::death::{Death, describe};
use super::not_started;

/// Why a service, or a program that was to run to its end, is not available.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Its program can be seen not to start.
    #[error("{program} cannot be started")]
    CannotStart {
        /// As the command names it.
        program: String,
        /// What is in the way.
        obstacle: NotStarted,
    },
    /// Its start, or what has to precede it, failed.
    #[error("{0}")]
    NotStarted(String),
    /// It ended before it was ready.
    #[error("it {} before it was ready", describe(.0.exit))]
    DiedEarly(Box<Death>),
    /// It runs and is not ready.
    #[error("it was not ready within {} s", .after.as_secs())]
    NotReady {
        /// How long it had.
        after: Duration,
        /// What it is doing.
        stall: Box<Stall>,
    },
    /// It runs and was to have ended.
    #[error("it did not end within {} s", .after.as_secs())]
    DidNotEnd {
        /// How long it had.
        after: Duration,
        /// What it is doing.
        stall: Box<Stall>,
    },
    /// It runs, and whether it is ready cannot be observed.
    #[error("{0}")]
    ProbeFailed(String),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::NotStarted(format!("{error:#}"))
    }
}

impl Failure {
    /// The event that reports it.
    pub fn into_event(self, last_lines: Vec<String>) -> ServiceEvent {
        let cause = self.to_string();
        let (exit, lived_ms, evidence) = match self {
            Self::DiedEarly(death) => (Some(death.exit), death.lived_ms, death.evidence),
            Self::CannotStart { obstacle, .. } => {
                (None, 0, Evidence { not_started: Some(obstacle), ..Evidence::default() })
            }
            Self::NotReady { stall, .. } | Self::DidNotEnd { stall, .. } => {
                (None, 0, Evidence { stall: Some(*stall), ..Evidence::default() })
            }
            Self::NotStarted(_) | Self::ProbeFailed(_) => (None, 0, Evidence::default()),
        };
        ServiceEvent::Failed { cause, last_lines, evidence: Box::new(evidence), exit, lived_ms }
    }
}

/// Looks whether a command can be started at all, without starting it.
pub fn check(command: &Command) -> Result<(), Failure> {
    not_started::look(command).map_err(|obstacle| {
        let program = command.get_program().to_string_lossy().into_owned();
        Failure::CannotStart { program, obstacle }
    })
}
