//! The transitions.

use serde::{Deserialize, Serialize};

use crate::{
    AccessGrant, Actor, EndReason, Event, Method, Observation, Prompt, ProviderId,
    SealedCredential, SessionId, Start, State, Teardown, Timestamp, UserId,
};

/// The parameters of a session, fixed when it was requested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionParams {
    /// The session.
    pub id: SessionId,
    /// The tool that is signed in to.
    pub provider: ProviderId,
    /// Whose credential it will be, in the caller's words.
    pub user: Option<UserId>,
    /// Who started it.
    #[serde(default)]
    pub started_by: Option<Actor>,
    /// How the end user signs in.
    #[serde(default = "browser")]
    pub method: Method,
    /// Who chose the method.
    #[serde(default)]
    pub method_chosen: Chosen,
    /// When the CLI is started.
    #[serde(default)]
    pub start: Start,
    /// When the start call was accepted.
    pub created_at: Timestamp,
    /// How long the session may live, in seconds from its start or from its caller's last heartbeat.
    pub ttl_seconds: u64,
    /// How long it may live at all, in seconds.
    pub max_seconds: u64,
    /// How long the end user may do nothing once they came, in seconds.
    pub idle_seconds: u64,
    /// How long the CLI waits for the end user once it gave its address, in seconds, where that is known.
    #[serde(default)]
    pub tool_waits_seconds: Option<u64>,
}

/// Of sessions that were stored before there were others.
fn browser() -> Method {
    Method::Browser
}

/// Who chose something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chosen {
    /// The caller.
    ByCaller,
    /// Anteroom: it is the first of those that the provider file offers.
    #[default]
    First,
}

impl SessionParams {
    /// When the session ends at the latest, whatever its caller says.
    #[must_use]
    pub fn last_moment(&self) -> Timestamp {
        self.created_at.plus_seconds(self.max_seconds)
    }
}

/// What the controller has to do after a transition, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start the runner process.
    StartRunner,
    /// Have the CLI started, which waited for the end user.
    StartTool,
    /// Make the sealed credential durable, then report `CredentialStored` or `CredentialNotStored`.
    StoreCredential {
        /// As the guest sealed it.
        sealed: SealedCredential,
    },
    /// Notify the runner that the credential is durable, so that the guest may forget it and power off.
    AcknowledgeCredential,
    /// Destroy the VM and all that belongs to the session, look, then report `TornDown`.
    TearDown,
}

/// A session: its parameters, its state and what its clocks run from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its parameters; never change.
    #[serde(alias = "terms")]
    pub params: SessionParams,
    /// Where it stands.
    pub state: State,
    /// When its time to live is over.
    pub deadline: Timestamp,
    /// When the end user came: by their link, or by their caller's word. Absent before.
    #[serde(default)]
    pub came_at: Option<Timestamp>,
    /// When the end user last did something on the desktop; absent before they saw it.
    pub active_at: Option<Timestamp>,
    /// When the CLI gives up by itself; absent before it gave its address, or where that is not known.
    #[serde(default)]
    pub tool_gives_up_at: Option<Timestamp>,
}

impl Session {
    /// A session just requested, and the first thing to do for it.
    #[must_use]
    pub fn request(params: SessionParams) -> (Self, Vec<Effect>) {
        let deadline = params.created_at.plus_seconds(params.ttl_seconds.min(params.max_seconds));
        let session = Self {
            params,
            state: State::Requested,
            deadline,
            came_at: None,
            active_at: None,
            tool_gives_up_at: None,
        };
        (session, vec![Effect::StartRunner])
    }

    /// When the session ends because the end user does nothing: in their turn on the desktop, and once
    /// they came. Who signs in elsewhere does nothing here.
    #[must_use]
    pub fn idle_deadline(&self) -> Option<Timestamp> {
        let their_turn = matches!(self.state, State::AwaitingUser { .. })
            && self.params.method == Method::Browser;
        self.active_at
            .filter(|_| their_turn)
            .map(|active_at| active_at.plus_seconds(self.params.idle_seconds))
    }

    /// When the CLI gives up by itself, while that is to come: one that waits longer than its provider
    /// file says has the session's time.
    fn tool_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        self.tool_gives_up_at.filter(|at| *at > now)
    }

    /// Until when the end user's turn lasts: the session's time, or the CLI's own where that is over
    /// before and is not over yet.
    #[must_use]
    pub fn turn_deadline(&self, now: Timestamp) -> Timestamp {
        self.tool_deadline(now).map_or(self.deadline, |at| at.min(self.deadline))
    }

    /// When [`Event::Tick`] next means something, or what is shown of the session is not true any more;
    /// None once the session ended.
    #[must_use]
    pub fn next_tick(&self, now: Timestamp) -> Option<Timestamp> {
        match self.state {
            State::Ended { .. } => None,
            _ => [Some(self.deadline), self.idle_deadline(), self.tool_deadline(now)]
                .into_iter()
                .flatten()
                .min(),
        }
    }

    /// Applies one event. An event that means nothing in the present state changes nothing.
    #[must_use]
    pub fn handle(mut self, event: Event, now: Timestamp) -> (Self, Vec<Effect>) {
        let comes = self.came_at.is_none() && says_end_user_is_there(&event);
        self.run_clocks(&event, now);
        let (state, effects) = if comes {
            self.came_at = Some(now);
            end_user_came(&self)
        } else {
            step(&self, event, now)
        };
        (Self { state, ..self }, effects)
    }

    /// The CLI's time runs from each new address or code; a question on the way does not stop it.
    fn run_tool_clock(&mut self, prompt: &Prompt, now: Timestamp) {
        let is_new = match (&self.state, prompt) {
            (_, Prompt::Terminal { .. }) => false,
            (State::AwaitingUser { prompt: shown @ Prompt::Page { .. }, .. }, page) => {
                shown != page
            }
            (_, Prompt::Page { .. }) => self.tool_gives_up_at.is_none(),
        };
        if is_new {
            let waits = self.params.tool_waits_seconds;
            self.tool_gives_up_at = waits.map(|seconds| now.plus_seconds(seconds));
        }
    }

    fn run_clocks(&mut self, event: &Event, now: Timestamp) {
        match event {
            Event::Heartbeat => {
                let prolonged = now.plus_seconds(self.params.ttl_seconds);
                self.deadline = self.deadline.max(prolonged.min(self.params.last_moment()));
            }
            Event::Observed(Observation::ViewerJoined { .. } | Observation::EndUserActive) => {
                self.active_at = Some(now);
            }
            // Their turn begins now, however long they watched before.
            Event::Observed(Observation::SignInAwaited { prompt }) => {
                self.active_at = self.active_at.map(|_| now);
                self.run_tool_clock(prompt, now);
            }
            _ => {}
        }
    }
}

/// Whether an event shows the end user to be there: a caller who looks is not the end user.
fn says_end_user_is_there(event: &Event) -> bool {
    match event {
        Event::ToolStartRequested { .. } => true,
        Event::Opened { viewer, .. } | Event::Observed(Observation::ViewerJoined { viewer }) => {
            matches!(viewer, AccessGrant::Link { .. })
        }
        _ => false,
    }
}

/// The end user has come. A sandbox that is not awake yet is notified once it is.
fn end_user_came(session: &Session) -> (State, Vec<Effect>) {
    match (session.params.start, session.state.clone()) {
        (Start::WhenTheEndUserComes, State::Preparing | State::Ready) => {
            (State::Preparing, vec![Effect::StartTool])
        }
        (_, other) => (other, vec![]),
    }
}

fn step(session: &Session, event: Event, now: Timestamp) -> (State, Vec<Effect>) {
    let state = match session.state.clone() {
        State::Ended { reason, at, teardown } => {
            let (teardown, effects) = after_end(teardown, event, now);
            return (State::Ended { reason, at, teardown }, effects);
        }
        live => live,
    };
    match event {
        Event::RunnerStarted => match state {
            State::Requested => (State::Booting, vec![]),
            other => (other, vec![]),
        },
        Event::Observed(observation) => observed(session, state, observation, now),
        Event::RunnerExited(exit) => runner_lost(&state, EndReason::RunnerDied { exit }, now),
        Event::RunnerSilent { silent_ms } => {
            runner_lost(&state, EndReason::RunnerSilent { silent_ms }, now)
        }
        Event::NodeLost => runner_lost(&state, EndReason::NodeLost, now),
        Event::StateNotStored { cause } => match state {
            // Its credential is durable, which is what the state would have said.
            State::Sealed => end(EndReason::Completed, now),
            _ => end(EndReason::StateNotStored { cause }, now),
        },
        Event::EndRequested(by) => match state {
            // The credential is already safe: the end user asked for an end and gets it, completed.
            State::Sealed => end(EndReason::Completed, now),
            _ => end(EndReason::Cancelled { by }, now),
        },
        Event::CredentialStored => match state {
            State::Capturing => (State::Sealed, vec![Effect::AcknowledgeCredential]),
            other => (other, vec![]),
        },
        Event::CredentialNotStored { cause } => match state {
            State::Capturing => end(EndReason::CredentialNotStored { cause }, now),
            other => (other, vec![]),
        },
        Event::Tick => match overdue(session, now) {
            Some(_) if matches!(state, State::Sealed) => end(EndReason::Completed, now),
            Some(reason) => end(reason, now),
            None => (state, vec![]),
        },
        Event::Heartbeat
        | Event::LinkMade { .. }
        | Event::LinksRevoked { .. }
        | Event::Opened { .. }
        | Event::ToolStartRequested { .. }
        | Event::HostAllowed { .. } => (state, vec![]),
        Event::FoundByReconciliation => match state {
            State::Sealed => end(EndReason::Completed, now),
            _ => end(EndReason::ControllerStopped, now),
        },
        // Nothing was torn down yet: an unexpected report.
        Event::TornDown { .. } => (state, vec![]),
    }
}

fn overdue(session: &Session, now: Timestamp) -> Option<EndReason> {
    let Session { params, state, deadline, .. } = session;
    if now >= *deadline {
        let during = state.name();
        let lived_seconds = deadline.millis_since(params.created_at) / 1000;
        return Some(match state {
            State::Ready => EndReason::NobodyCame { waited_seconds: lived_seconds },
            _ if *deadline == params.last_moment() => {
                EndReason::TooLong { during, max_seconds: params.max_seconds }
            }
            _ => EndReason::TimedOut { during, ttl_seconds: lived_seconds },
        });
    }
    session
        .idle_deadline()
        .filter(|idle| now >= *idle)
        .map(|_| EndReason::Idle { idle_seconds: params.idle_seconds })
}

fn observed(
    session: &Session,
    state: State,
    observation: Observation,
    now: Timestamp,
) -> (State, Vec<Effect>) {
    let waits = session.params.start == Start::WhenTheEndUserComes;
    let came = session.came_at.is_some();
    match (state, observation) {
        (
            State::Sealed,
            Observation::Failed(_)
            | Observation::GuestPoweredOff
            | Observation::GuestNotPoweredOff { .. },
        ) => end(EndReason::Completed, now),
        (_, Observation::Failed(reason)) => end(reason, now),
        (State::Booting, Observation::AgentConnected { .. }) => {
            let effects = if waits && came { vec![Effect::StartTool] } else { vec![] };
            (State::Preparing, effects)
        }
        (State::Preparing, Observation::SandboxReady) if waits && !came => (State::Ready, vec![]),
        // A CLI may try again with a new address; the last one counts.
        (State::Preparing | State::AwaitingUser { .. }, Observation::SignInAwaited { prompt }) => {
            (State::AwaitingUser { prompt }, vec![])
        }
        // From Preparing too: a CLI that finds an injected credential never asks the end user.
        (State::Preparing | State::AwaitingUser { .. }, Observation::CredentialFound) => {
            (State::Capturing, vec![])
        }
        // Out of order it means nothing here; the runner ends a guest for that (`anteroom-sign-in`).
        (State::Capturing, Observation::CredentialSealed { sealed }) => {
            (State::Capturing, vec![Effect::StoreCredential { sealed }])
        }
        (state, _) => (state, vec![]),
    }
}

fn runner_lost(state: &State, reason: EndReason, now: Timestamp) -> (State, Vec<Effect>) {
    match state {
        State::Sealed => end(EndReason::Completed, now),
        _ => end(reason, now),
    }
}

fn end(reason: EndReason, at: Timestamp) -> (State, Vec<Effect>) {
    (State::Ended { reason, at, teardown: Teardown::TearingDown }, vec![Effect::TearDown])
}

/// The reason never changes once given (a completed session must not become "cancelled" during
/// clean-up); only the report of the teardown is taken, and by a later controller what an earlier one
/// did not get to the end of.
fn after_end(teardown: Teardown, event: Event, now: Timestamp) -> (Teardown, Vec<Effect>) {
    match (teardown, event) {
        (Teardown::TearingDown, Event::TornDown { leftovers }) => {
            (Teardown::TornDown { at: now, leftovers }, vec![])
        }
        (teardown, Event::FoundByReconciliation) if !teardown.is_gone() => {
            (Teardown::TearingDown, vec![Effect::TearDown])
        }
        (teardown, _) => (teardown, vec![]),
    }
}

#[cfg(test)]
mod tests;
