//! Why a session ended: a code for programs and a sentence for people.

use serde::{Deserialize, Serialize};

use crate::{Actor, Explanation, ProcessExit, RunState, SetupStep, ShutdownCause, StateName};

/// Why a session ended. [`Self::sentence`] is what the end user and the caller read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[cfg_attr(test, derive(strum::VariantNames))]
#[serde(tag = "code", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum EndReason {
    /// The credential is sealed and stored, the sandbox torn down.
    Completed,
    /// Somebody cancelled it.
    Cancelled {
        /// Who cancelled it.
        by: Actor,
    },
    /// Its time to live has expired.
    TimedOut {
        /// The state it was in then.
        during: StateName,
        /// How long it had, in seconds.
        ttl_seconds: u64,
    },
    /// Its caller extended it up to the maximum duration of a session.
    TooLong {
        /// The state it was in then.
        during: StateName,
        /// The maximum duration of a session, in seconds.
        max_seconds: u64,
    },
    /// The CLI was to be started when the end user comes, and nobody opened the link.
    NobodyCame {
        /// How long the session had, in seconds.
        waited_seconds: u64,
    },
    /// The end user came and was then inactive for too long.
    Idle {
        /// How long, in seconds.
        idle_seconds: u64,
    },
    /// While it waited for capacity, what it takes became more than there can ever be.
    NoCapacity {
        /// What is short, with its numbers.
        cause: String,
    },
    /// The golden image cannot be used.
    ImageRefused {
        /// Why.
        cause: String,
    },
    /// What a session has beside its sandbox could not be set up.
    SessionSetupFailed {
        /// Which part of it.
        step: SetupStep,
        /// Why.
        cause: String,
    },
    /// The sandbox could not be started.
    SandboxNotStarted {
        /// Why.
        cause: String,
    },
    /// The sandbox's process ended unexpectedly.
    SandboxExited {
        /// How its process ended.
        exit: ProcessExit,
        /// Why the guest stopped, as its VMM reports it; absent when the VMM was killed before it could.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shutdown: Option<ShutdownCause>,
        /// Last lines of the serial console.
        console_tail: Vec<String>,
        /// Why, by the evidence; absent when there is none but these.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        explanation: Option<Box<Explanation>>,
    },
    /// The sandbox's process was stopped and not continued.
    SandboxStopped {
        /// By which signal.
        signal: i32,
        /// How long it was seen stopped, in seconds.
        stopped_seconds: u64,
    },
    /// The agent did not say hello in time.
    AgentSilent {
        /// How long was waited, in milliseconds.
        waited_ms: u64,
        /// Whether the guest ran then, as its VMM reports it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run_state: Option<RunState>,
        /// Last lines of the serial console.
        console_tail: Vec<String>,
    },
    /// The guest's link closed, failed or went silent.
    GuestLinkFailed {
        /// What exactly.
        cause: String,
    },
    /// The guest violated the protocol.
    GuestBrokeProtocol {
        /// What exactly.
        cause: String,
    },
    /// The guest responded all the time, but did not do its part.
    GuestStalled {
        /// What it did not do, as in "did not …".
        what: String,
        /// How long it had, in seconds.
        allowed_seconds: u64,
    },
    /// A file could not be injected.
    FileNotInjected {
        /// Its path in the guest.
        path: String,
        /// Why.
        cause: String,
    },
    /// A service the session cannot do without did not become ready, or keeps dying.
    ServiceFailed {
        /// Its name.
        service: String,
        /// What was seen.
        cause: String,
        /// Its last lines of output.
        last_lines: Vec<String>,
        /// Why, by the evidence; absent when there is none but `cause`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        explanation: Option<Box<Explanation>>,
    },
    /// The CLI ended before it wrote a credential, or it failed.
    CliExited {
        /// Its wait status.
        exit: ProcessExit,
        /// Whether it had written a complete credential, which was discarded because the CLI failed.
        #[serde(default)]
        left_credential: bool,
        /// Its last lines of output.
        last_lines: Vec<String>,
        /// Why, by the evidence.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        explanation: Option<Box<Explanation>>,
    },
    /// The CLI never printed a sign-in URL, and its terminal shows no other prompt.
    NoSignInUrl {
        /// How long was waited, in milliseconds.
        waited_ms: u64,
        /// Its last lines of output.
        last_lines: Vec<String>,
        /// An address that it opened and that is not the sign-in's, by the provider file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ignored: Option<String>,
    },
    /// The CLI shows that the sign-in is over without a credential.
    SignInRefused {
        /// What it means and what to do, from the provider file.
        says: String,
        /// The line of its screen that says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        line: Option<String>,
        /// What the operator can do about it, from the provider file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        operator: Option<String>,
    },
    /// The credential file is not what the provider file says it should be.
    CredentialRefused {
        /// Why.
        cause: String,
    },
    /// The sealed credential could not be stored.
    CredentialNotStored {
        /// Why.
        cause: String,
    },
    /// The session's runner process died.
    RunnerDied {
        /// Its wait status.
        exit: ProcessExit,
    },
    /// The session's runner process could not go on, for a reason that is neither the guest's nor the
    /// sandbox's.
    RunnerFailed {
        /// What it could not do, or what of it could not be understood.
        cause: String,
    },
    /// The session's runner process is running and has gone silent.
    RunnerSilent {
        /// How long nothing was heard, in milliseconds.
        silent_ms: u64,
    },
    /// The node that ran the session reported nothing more, and not how the session's runner ended.
    NodeLost,
    /// The session's state could not be stored, so it could not continue.
    StateNotStored {
        /// Why.
        cause: String,
    },
    /// The controller was stopped or died while the session was running.
    ControllerStopped,
}

impl EndReason {
    /// Why a process of the sandbox died, where that is the reason.
    #[must_use]
    pub fn explanation(&self) -> Option<&Explanation> {
        match self {
            Self::ServiceFailed { explanation, .. }
            | Self::CliExited { explanation, .. }
            | Self::SandboxExited { explanation, .. } => explanation.as_deref(),
            _ => None,
        }
    }

    /// The stable code, as in the JSON form.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use strum::VariantNames;

    use super::*;

    #[test]
    fn every_end_is_in_the_reference_and_no_other() {
        let reference = include_str!("../../../docs/reference/problems.md");
        let (_, ends) = reference.split_once("\n## Ends\n").unwrap();
        let code = |line: &'static str| line.strip_prefix("| `")?.split('`').next();
        let listed: Vec<_> = ends.lines().filter_map(code).collect();
        assert_eq!(listed, EndReason::VARIANTS);
        assert_eq!(serde_json::to_value(EndReason::Completed).unwrap()["code"], "completed");
        let wire = serde_json::to_value(EndReason::NobodyCame { waited_seconds: 1 }).unwrap();
        assert_eq!(wire["code"], EndReason::NobodyCame { waited_seconds: 1 }.code());
    }

    #[test]
    fn the_viewer_knows_every_end_but_the_success() {
        let strings = include_str!("../../../viewer/src/ui-strings.ts");
        let (_, ends) = strings.split_once("\nconst ENDS").unwrap();
        let (ends, _) = ends.split_once("\n};").unwrap();
        let code = |line: &'static str| {
            line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '))?.split_once(": {")
        };
        let known: BTreeSet<_> = ends.lines().filter_map(code).map(|(code, _)| code).collect();
        let others = EndReason::VARIANTS.iter().copied().filter(|code| *code != "completed");
        assert_eq!(known, others.collect());
    }

    #[test]
    fn code_is_the_tag_of_the_json_form() {
        let reasons = [
            EndReason::Completed,
            EndReason::Cancelled {
                by: Actor::EndUser { generation: crate::HolderGeneration::FIRST },
            },
            EndReason::SandboxExited {
                exit: ProcessExit::Signalled { signal: 9 },
                shutdown: None,
                console_tail: vec![],
                explanation: None,
            },
            EndReason::ControllerStopped,
        ];
        for reason in reasons {
            let json = serde_json::to_value(&reason).unwrap();
            assert_eq!(json["code"], reason.code());
            assert_eq!(serde_json::from_value::<EndReason>(json).unwrap(), reason);
        }
    }
}
