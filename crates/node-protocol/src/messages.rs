//! The messages.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anteroom_confine::SessionUser;
use anteroom_guest_protocol::ScreenSize;
use anteroom_session::{
    Accelerator, AccessGrant, DriverKind, HolderGeneration, Observation, ProcessExit, SessionId,
    VmmFailure,
};
use serde::{Deserialize, Serialize};

use crate::capacity::SandboxQuery;
use crate::sign_in::SignInConfig;

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// What boots its sandboxes.
    pub driver: DriverKind,
    /// What executes their code.
    pub accelerator: Accelerator,
    /// Where it takes media.
    pub media: SocketAddr,
    /// Memory that its sessions, templates and waiting clones may take together.
    pub memory_budget_bytes: u64,
}

/// A session that is to be prepared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrepareSession {
    /// What it is called, unless a sandbox waits for it.
    pub session: SessionId,
    /// What its sandbox has to be.
    pub sandbox: SandboxQuery,
    /// Desktop size.
    pub screen: ScreenSize,
}

/// What was reserved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prepared {
    /// What the session is called: a sandbox that waited has a name already.
    pub session: SessionId,
    /// Who its processes will run as; `None` where the node has no users to give.
    pub user: Option<SessionUser>,
}

/// Why a session cannot be prepared; the text is for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "because", content = "detail", rename_all = "snake_case")]
pub enum NotPrepared {
    /// There is no such image.
    #[error("{0}")]
    NoImage(String),
    /// The image was not verified for the node's processor.
    #[error("{0}")]
    ImageNotVerified(String),
    /// Its log folder cannot be created.
    #[error("{0}")]
    NoLogFolder(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// A session that is to be started.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartSession {
    /// Who signs in to what, and how.
    pub sign_in: SignInConfig,
    /// Desktop size.
    pub screen: ScreenSize,
}

/// What a node reports of a running session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Report {
    /// Something happened.
    Observed {
        /// What was observed.
        observation: Observation,
    },
    /// What the session's media did so far.
    Media {
        /// Since the session started.
        totals: MediaTotals,
    },
    /// How often parts of its VMM failed, by the VMM's own account.
    VmmFailed {
        /// How often each did.
        failures: BTreeMap<VmmFailure, u64>,
    },
    /// The runner is there and says nothing any more.
    RunnerSilent {
        /// For how long, in milliseconds.
        silent_ms: u64,
    },
    /// The runner ended.
    RunnerExited {
        /// Its wait status.
        exit: ProcessExit,
    },
}

/// What a session's media did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MediaTotals {
    /// Frames encoded and sent.
    pub frames: u64,
    /// Of these, key frames.
    pub key_frames: u64,
    /// Bytes of all frames.
    pub bytes: u64,
    /// Time of the encoder's thread, in microseconds.
    pub encode_micros: u64,
    /// Frames that the guest sent.
    pub guest_frames: u64,
    /// Datagrams that could not be sent or taken.
    pub lost_datagrams: u64,
}

/// Sandboxes that wait for a session, and what came of it so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolFigures {
    /// How many wait.
    pub waiting: u64,
    /// For how long the first of them has waited, in milliseconds.
    pub oldest_ms: u64,
    /// What they take of the machine's memory, in bytes; also those that are being ended.
    pub memory_bytes: u64,
    /// Sessions that got one.
    pub hits: u64,
    /// Sessions that could have had one, and there was none.
    pub misses: u64,
    /// Those that ended while they waited.
    pub died: u64,
}

/// What a running session is to do, without an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Notice {
    /// The end user is there: start the tool that waits for them.
    StartTool {},
    /// The sealed credential is durable: the guest may forget it and power off.
    AcknowledgeCredential {},
    /// Show the sign-in page again.
    OpenSignInPage {},
    /// Links before this one are revoked: disconnect their viewers.
    RevokeBefore {
        /// The oldest that is good.
        oldest: HolderGeneration,
    },
    /// The right by which an offer was made has ended: disconnect its viewer.
    Dismiss {
        /// As the offer was answered.
        connection: String,
    },
}

/// A viewer's WebRTC offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// At most 64 KiB.
    pub sdp: String,
    /// Whose it is.
    pub viewer: AccessGrant,
}

/// What a viewer gets back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The SDP answer.
    pub sdp: String,
    /// Names the connection in [`Notice::Dismiss`].
    pub connection: String,
}

/// A session's sandbox, as far as it can be found without its node having been running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxRecord {
    /// The session that it is for.
    pub session: SessionId,
    /// The user that was leased for it.
    pub user: Option<SessionUser>,
    /// The driver that booted it; `None` when that is not known.
    pub driver: Option<DriverKind>,
}

/// How much of the logs is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepLogs {
    /// Days after which a session's logs go.
    pub days: u64,
    /// Bytes of all sessions' logs together; the oldest go first.
    pub bytes: u64,
}

/// A node could not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{cause}")]
pub struct NodeError {
    /// One sentence.
    pub cause: String,
}

/// Why a running session gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "because", rename_all = "snake_case", deny_unknown_fields)]
pub enum AskError {
    /// It said why.
    #[error("{cause}")]
    Refused {
        /// One sentence.
        cause: String,
    },
    /// It is not there any more.
    #[error("the session is ending; its runner is gone")]
    Gone {},
    /// It is there.
    #[error("the session's runner did not answer within {waited_seconds} s")]
    Silent {
        /// How long was waited.
        waited_seconds: u64,
    },
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde::de::DeserializeOwned;

    use super::*;
    use crate::capacity::{
        Capacity, Demand, Free, NodeMemory, Pages, SandboxQuery, SessionMemory, TemplateMemory,
        WaitingMemory,
    };

    fn survives<T: Serialize + DeserializeOwned + Debug>(message: &T) {
        let text = serde_json::to_string(message).unwrap();
        let read: T = serde_json::from_str(&text).unwrap();
        assert_eq!(format!("{read:?}"), format!("{message:?}"), "{text}");
    }

    #[test]
    fn every_kind_of_message_can_cross_a_network() {
        let session = SessionId::generate();
        let oldest = HolderGeneration::FIRST;
        let cause = "no".to_owned();
        let (image, extra_ca_pem) = ("signin".to_owned(), String::new());
        let sandbox = SandboxQuery { image, extra_ca_pem, may_be_clone: true };
        let screen = ScreenSize { width: 1280, height: 720 };
        survives(&PrepareSession { session, sandbox, screen });
        survives(&PoolFigures {
            waiting: 1,
            oldest_ms: 2,
            memory_bytes: 6,
            hits: 3,
            misses: 4,
            died: 5,
        });
        survives(&Prepared { session, user: SessionUser::try_from(1_900_000_000).ok() });
        survives(&SandboxRecord { session, user: None, driver: Some(DriverKind::Host) });
        survives(&Answer { sdp: "v=0".to_owned(), connection: "a".to_owned() });
        survives(&NodeError { cause: cause.clone() });
        survives(&KeepLogs { days: 1, bytes: 2 });
        let (image, extra_ca_pem) = ("signin".to_owned(), String::new());
        survives(&SandboxQuery { image, extra_ca_pem, may_be_clone: true });
        let demand = Demand { memory_bytes: 1, disk_bytes: 2, pids: 3 };
        let free = Free { memory_bytes: Some(1), ..Free::default() };
        survives(&Capacity { demand, free });
        let pages = Some(Pages { private_bytes: 1, shared_bytes: 2 });
        let sessions = vec![SessionMemory { session, template: None, reserve_bytes: 1, pages }];
        let templates = vec![TemplateMemory { id: "a".to_owned(), bytes: 1 }];
        let pages = Pages { private_bytes: 3, shared_bytes: 4 };
        let waiting = vec![WaitingMemory { template: "a".to_owned(), pages }];
        survives(&NodeMemory { free, sessions, templates, waiting });
        for why in [
            NotPrepared::NoImage(cause.clone()),
            NotPrepared::ImageNotVerified(cause.clone()),
            NotPrepared::NoLogFolder(cause.clone()),
            NotPrepared::Failed(cause.clone()),
        ] {
            survives(&why);
        }
        for error in [
            AskError::Refused { cause: cause.clone() },
            AskError::Gone {},
            AskError::Silent { waited_seconds: 20 },
        ] {
            survives(&error);
        }
        for notice in [
            Notice::StartTool {},
            Notice::AcknowledgeCredential {},
            Notice::OpenSignInPage {},
            Notice::RevokeBefore { oldest },
            Notice::Dismiss { connection: "a".to_owned() },
        ] {
            survives(&notice);
        }
        for report in [
            Report::Observed { observation: Observation::FirstFrameSent },
            Report::Observed { observation: Observation::LiveFrameShown },
            Report::Media { totals: MediaTotals::default() },
            Report::VmmFailed { failures: [(VmmFailure::Device, 3)].into() },
            Report::RunnerSilent { silent_ms: 30_000 },
            Report::RunnerExited { exit: ProcessExit::Signalled { signal: 9 } },
        ] {
            survives(&report);
        }
    }
}
