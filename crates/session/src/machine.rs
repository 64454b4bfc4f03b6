//! The transitions.

use serde::{Deserialize, Serialize};

use crate::{
    AwaitedSignIn, EndReason, Event, Observation, ProviderId, Room, SessionId, State, Timestamp,
    UserId,
};

/// What was agreed when the session was requested; never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The session.
    pub id: SessionId,
    /// Which CLI is signed in to.
    pub provider: ProviderId,
    /// Whose credential it will be, in the caller's words.
    pub user: Option<UserId>,
    /// When the start call was accepted.
    pub created_at: Timestamp,
    /// How long the session may live, in seconds.
    pub ttl_seconds: u64,
}

impl Terms {
    /// When the time to live is over.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        self.created_at.plus_seconds(self.ttl_seconds)
    }
}

/// What the controller has to do after a transition, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start the runner process.
    StartRunner,
    /// Make the sealed credential durable, then report `CredentialStored` or `CredentialNotStored`.
    StoreCredential {
        /// The age file, base64.
        ciphertext_base64: String,
    },
    /// Tell the runner that the credential is durable, so that the guest may forget it and power off.
    AcknowledgeCredential,
    /// Destroy the VM and all that belongs to the session, look, then report `Demolished`.
    Demolish,
}

/// A session and its history of one: terms and state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// What was agreed.
    pub terms: Terms,
    /// Where it stands.
    pub state: State,
}

impl Session {
    /// A session just requested, and the first thing to do for it.
    #[must_use]
    pub fn request(terms: Terms) -> (Self, Vec<Effect>) {
        (Self { terms, state: State::Requested }, vec![Effect::StartRunner])
    }

    /// Applies one event. An event that means nothing in the present state changes nothing.
    #[must_use]
    pub fn handle(self, event: Event, now: Timestamp) -> (Self, Vec<Effect>) {
        let Self { terms, state } = self;
        let (state, effects) = step(&terms, state, event, now);
        (Self { terms, state }, effects)
    }
}

fn step(terms: &Terms, state: State, event: Event, now: Timestamp) -> (State, Vec<Effect>) {
    let state = match state {
        State::Ended { reason, at, room } => {
            return (after_end(reason, at, room, event, now), vec![]);
        }
        live => live,
    };
    match event {
        Event::RunnerStarted { pid } => match state {
            State::Requested => (State::Booting { runner_pid: pid }, vec![]),
            other => (other, vec![]),
        },
        Event::Observed(observation) => observed(state, observation, now),
        Event::RunnerExited(exit) => runner_lost(&state, EndReason::RunnerDied { exit }, now),
        Event::RunnerSilent { silent_ms } => {
            runner_lost(&state, EndReason::RunnerSilent { silent_ms }, now)
        }
        Event::StateNotStored { cause } => match state {
            // Its credential is durable, which is what the state would have said.
            State::Sealed { .. } => end(EndReason::Completed, now),
            _ => end(EndReason::StateNotStored { cause }, now),
        },
        Event::EndRequested(by) => match state {
            // The credential is already safe: the person asked for an end and gets it, completed.
            State::Sealed { .. } => end(EndReason::Completed, now),
            _ => end(EndReason::Cancelled { by }, now),
        },
        Event::CredentialStored => match state {
            State::Capturing { runner_pid } => {
                (State::Sealed { runner_pid }, vec![Effect::AcknowledgeCredential])
            }
            other => (other, vec![]),
        },
        Event::CredentialNotStored { cause } => match state {
            State::Capturing { .. } => end(EndReason::CredentialNotStored { cause }, now),
            other => (other, vec![]),
        },
        Event::Tick => match state {
            State::Sealed { .. } if now >= terms.deadline() => end(EndReason::Completed, now),
            other if now >= terms.deadline() => end(
                EndReason::TimedOut {
                    during: other.name().as_str().to_owned(),
                    ttl_seconds: terms.ttl_seconds,
                },
                now,
            ),
            other => (other, vec![]),
        },
        Event::FoundByReconciliation => match state {
            State::Sealed { .. } => end(EndReason::Completed, now),
            _ => end(EndReason::ControllerStopped, now),
        },
        // Nothing was demolished yet: a stray report.
        Event::Demolished { .. } => (state, vec![]),
    }
}

fn observed(state: State, observation: Observation, now: Timestamp) -> (State, Vec<Effect>) {
    match (state, observation) {
        (State::Sealed { .. }, Observation::Failed(_) | Observation::GuestPoweredOff) => {
            end(EndReason::Completed, now)
        }
        (_, Observation::Failed(reason)) => end(reason, now),
        (State::Booting { runner_pid }, Observation::AgentConnected { .. }) => {
            (State::Preparing { runner_pid }, vec![])
        }
        (State::Preparing { runner_pid }, Observation::SignInUrl { url }) => {
            (State::AwaitingUser { runner_pid, sign_in: AwaitedSignIn { url } }, vec![])
        }
        // A CLI may try again with a new address; the last one counts.
        (State::AwaitingUser { runner_pid, .. }, Observation::SignInUrl { url }) => {
            (State::AwaitingUser { runner_pid, sign_in: AwaitedSignIn { url } }, vec![])
        }
        // From Preparing too: a CLI that finds an injected credential never asks the person.
        (
            State::Preparing { runner_pid } | State::AwaitingUser { runner_pid, .. },
            Observation::CredentialFound,
        ) => (State::Capturing { runner_pid }, vec![]),
        // One credential a session: a second one, or one out of order, is not looked at.
        (State::Capturing { runner_pid }, Observation::CredentialSealed { ciphertext_base64 }) => {
            (State::Capturing { runner_pid }, vec![Effect::StoreCredential { ciphertext_base64 }])
        }
        (state, _) => (state, vec![]),
    }
}

fn runner_lost(state: &State, reason: EndReason, now: Timestamp) -> (State, Vec<Effect>) {
    match state {
        State::Sealed { .. } => end(EndReason::Completed, now),
        _ => end(reason, now),
    }
}

fn end(reason: EndReason, at: Timestamp) -> (State, Vec<Effect>) {
    (State::Ended { reason, at, room: Room::Demolishing }, vec![Effect::Demolish])
}

/// The reason never changes once given (a completed session must not become "cancelled" during
/// clean-up); only the report of the demolition is taken.
fn after_end(reason: EndReason, at: Timestamp, room: Room, event: Event, now: Timestamp) -> State {
    let room = match (room, event) {
        (Room::Demolishing, Event::Demolished { leftovers }) => {
            Room::Demolished { at: now, leftovers }
        }
        (room, _) => room,
    };
    State::Ended { reason, at, room }
}

#[cfg(test)]
mod tests;
