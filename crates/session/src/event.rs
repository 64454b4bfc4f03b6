//! The events of a session.

use serde::{Deserialize, Serialize};

use crate::{
    Accelerator, AccessGrant, Actor, Confined, DriverKind, EndReason, Explanation,
    HolderGeneration, HostPort, Leftover, ProcessExit, Prompt, SealedCredential, View, Waited,
};

/// Everything that moves a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The session's runner process was started.
    RunnerStarted,
    /// The runner reports what it saw.
    Observed(Observation),
    /// The runner process is gone.
    RunnerExited(ProcessExit),
    /// The runner process is there and says nothing any more: stopped, or stuck.
    RunnerSilent {
        /// How long nothing was heard, in milliseconds.
        silent_ms: u64,
    },
    /// The node that runs the session reports nothing more, and has not reported that its runner ended.
    NodeLost,
    /// The session's state could not be made durable; nothing may be done because of it.
    StateNotStored {
        /// Why, one sentence.
        cause: String,
    },
    /// Someone asks for the end.
    EndRequested(Actor),
    /// The sealed credential is durable in the store.
    CredentialStored,
    /// The store could not keep the sealed credential.
    CredentialNotStored {
        /// Why, one sentence.
        cause: String,
    },
    /// The end user has a new link; what the earlier ones opened is closed.
    LinkMade {
        /// Which generation began with it.
        generation: HolderGeneration,
        /// Who made it.
        by: Actor,
    },
    /// No link is good any more, and what they opened is closed.
    LinksRevoked {
        /// Who revoked them.
        by: Actor,
    },
    /// Somebody opened the link, the terminal or VNC.
    Opened {
        /// The view that was opened.
        view: View,
        /// By what right.
        viewer: AccessGrant,
    },
    /// The caller says that the end user is there, and has the CLI started that waits for them.
    ToolStartRequested {
        /// Which caller.
        by: Actor,
    },
    /// A host that the session was refused is let through from now on.
    HostAllowed {
        /// Which.
        host: HostPort,
        /// Who allowed it.
        by: Actor,
    },
    /// The caller is still there, and prolongs the session's time to live.
    Heartbeat,
    /// Time passed; a deadline may be over.
    Tick,
    /// A controller found this session unfinished at its start, or something left of it.
    FoundByReconciliation,
    /// Teardown ran; `leftovers` is what looking at the machine still found.
    TornDown {
        /// Empty when the machine is as it was.
        leftovers: Vec<Leftover>,
    },
}

impl Event {
    /// Who made it happen, where somebody did.
    #[must_use]
    pub fn actor(&self) -> Option<Actor> {
        match self {
            Self::EndRequested(by)
            | Self::LinkMade { by, .. }
            | Self::LinksRevoked { by }
            | Self::ToolStartRequested { by }
            | Self::HostAllowed { by, .. } => Some(by.clone()),
            Self::Opened { viewer, .. } | Self::Observed(Observation::ViewerJoined { viewer }) => {
                Some(viewer.clone().into())
            }
            _ => None,
        }
    }
}

/// A sandbox that was not powered on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cloned {
    /// The template's id.
    pub template: String,
    /// How long it had waited for its session, in milliseconds; absent where it was made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_ms: Option<u64>,
}

/// What a session runner reports to its controller. Also the wire form between the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[strum(serialize_all = "snake_case")]
pub enum Observation {
    /// The sandbox's process runs.
    SandboxStarted {
        /// What booted it.
        driver: DriverKind,
        /// What executes guest code.
        accelerator: Accelerator,
        /// Its process id on the host: the VMM's, or the agent's.
        pid: u32,
        /// What it is a clone of; absent where it was powered on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cloned: Option<Cloned>,
    },
    /// What holds the session's processes was read from the kernel.
    Confined(Box<Confined>),
    /// The agent in the guest said hello.
    AgentConnected {
        /// The agent's version.
        agent_version: String,
        /// The guest's kernel release.
        kernel: String,
        /// How long a clone's start waited for others until then; absent where the sandbox is no clone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        waited: Option<Waited>,
    },
    /// The guest confirmed the SHA-256 of each injected file.
    FilesInjected {
        /// How many.
        count: usize,
    },
    /// A supervised service is ready, as its readiness check observed it.
    ServiceReady {
        /// `x`, `window-manager`, `browser`, `cli`.
        service: String,
    },
    /// A supervised service ended; the supervisor may start it again.
    ServiceExited {
        /// Its name.
        service: String,
        /// Why, by the evidence.
        explanation: Box<Explanation>,
        /// What the supervisor does about it, one sentence.
        then: String,
    },
    /// A service that the session can do without is not to be had.
    ServiceGivenUp {
        /// Its name.
        service: String,
        /// Why, by the evidence.
        explanation: Box<Explanation>,
    },
    /// A process that a service started died.
    ChildDied {
        /// The service.
        service: String,
        /// Why, by the evidence.
        explanation: Box<Explanation>,
    },
    /// All is there but the CLI, which waits for the end user to come.
    SandboxReady,
    /// The CLI waits for the end user.
    SignInAwaited {
        /// What they sign in with.
        prompt: Prompt,
    },
    /// What the CLI's terminal asked was answered by a rule of the provider file.
    QuestionAnswered {
        /// The line that asked.
        question: String,
        /// Whether for the second time, since it stood on as if nobody had answered.
        again: bool,
    },
    /// The CLI opened or shows an address that is not the sign-in's, by the provider file.
    AddressIgnored {
        /// At most 500 characters of it.
        url: String,
    },
    /// The end user's code was typed into the CLI's terminal.
    CodeEntered,
    /// A newer code took the place of one that was not typed.
    CodeReplaced,
    /// The CLI's terminal, or the browser, shows what the provider file has a sentence about.
    EndUserNotified {
        /// The sentence.
        says: String,
    },
    /// A host on the sign-in's list cannot be reached.
    HostUnreachable {
        /// Its name.
        host: String,
        /// Why.
        cause: String,
    },
    /// Such a one was reached after all.
    HostReached {
        /// Its name.
        host: String,
    },
    /// The page that the end user is on goes on at a host that is refused.
    HostNeeded {
        /// Its name, with its port where that is not a usual one.
        host: String,
        /// The provider whose list it is.
        provider: String,
        /// What would lead there.
        remedy: Remedy,
    },
    /// The guest's browser shows the sign-in page (its navigation started).
    SignInPageOpened,
    /// The first video frame was sent to a viewer: of the guest, or of its template's picture.
    FirstFrameSent,
    /// For the first time a viewer has what the guest itself shows: a frame of it was sent, or was equal to
    /// what they had been sent. Once a session.
    LiveFrameShown,
    /// The end user moved, typed or pasted. Said at most every few seconds.
    EndUserActive,
    /// A viewer's media connection is up.
    ViewerJoined {
        /// By what they may view it.
        viewer: AccessGrant,
    },
    /// It is gone.
    ViewerLeft,
    /// The CLI's credential file is complete and stable.
    CredentialFound,
    /// The CLI says itself, of the bundle alone, that it is signed in.
    CredentialVerified {
        /// Its words.
        said: String,
    },
    /// The guest sealed the credential.
    CredentialSealed {
        /// As the guest sealed it.
        sealed: SealedCredential,
    },
    /// An outgoing connection of the guest was made, ended, or was refused.
    HostContacted {
        /// Host name the guest asked for.
        host: String,
        /// TCP port.
        port: u16,
        /// What the gate decided.
        verdict: EgressVerdict,
        /// 1 when it was made or refused, 0 for what an earlier one carried.
        connections: u64,
        /// Bytes guest → host name.
        bytes_up: u64,
        /// Bytes host name → guest.
        bytes_down: u64,
        /// Why it was refused or failed.
        detail: Option<String>,
    },
    /// The session cannot go on.
    Failed(EndReason),
    /// The guest knows that the credential is stored, and has powered off.
    GuestPoweredOff,
    /// It knows, and did not power off.
    GuestNotPoweredOff {
        /// How its process ended meanwhile; none: it did not until it was ended.
        exit: Option<ProcessExit>,
    },
}

/// What would lead a page to a host that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// An entry of the list.
    List,
    /// The same, or the operator's word while the session waits.
    ListOrAllow,
    /// It is an address: nothing but another name, which is mapped to it.
    NameAndMap,
    /// It is a name of a network's own: an entry of the list, and an address that it is mapped to.
    ListAndMap,
    /// It is on the list, and its name leads inside: an address that it is mapped to.
    Map,
}

/// What the egress gate decided on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EgressVerdict {
    /// Connected.
    Allowed,
    /// The host name is not on the provider's list.
    RefusedByPolicy,
    /// The session had as many connections as it may.
    RefusedByLimit,
    /// The name resolved to an address no guest may reach (private, loopback, metadata, …).
    RefusedAddress,
    /// The host is allowed, and what was sent is not: it names another host, or is neither TLS nor
    /// HTTP.
    RefusedRequest,
    /// Allowed, but the connection failed.
    Failed,
}
