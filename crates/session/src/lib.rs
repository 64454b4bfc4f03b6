//! One sign-in, as a pure state machine.
//!
//! Nothing here reads a clock, opens a file or starts a task: the controller feeds [`Event`]s in,
//! stores the new [`State`] and carries out the [`Effect`]s that come back.
//!
//! ```text
//! Requested → Booting → Preparing → AwaitingUser → Capturing → Sealed → Ended{reason}
//!     └──────────┴──────────┴────────────┴─────────────┴──────────────────↗
//! ```
//!
//! Where the CLI is started when the end user comes, `Preparing → Ready → Preparing` is on the way.
#![forbid(unsafe_code)]

mod actor;
mod boundaries;
mod code;
pub mod counted;
mod custody;
mod end_reason;
mod end_sentence;
mod event;
mod explanation;
mod host_name;
mod ids;
mod key_name;
mod machine;
mod process_exit;
mod sandbox;
mod service_title;
mod setup_step;
mod state;
mod state_name;
mod timeline;
mod viewer;
mod waited;

pub use actor::Actor;
pub use boundaries::{Boundaries, Confined, Namespace};
pub use code::CodeTaken;
pub use custody::{NotBase64, OpenableBy, SealedCredential};
pub use end_reason::EndReason;
pub use event::{Cloned, EgressVerdict, Event, Observation, Remedy};
pub use explanation::{Cause, Confidence, Explanation};
pub use host_name::{
    HostPort, HostRefused, InvalidHostPort, USUAL_PORTS, authority, is_local_name, normalise_host,
    port_of, unlistable,
};
pub use ids::{InvalidId, ProviderId, SessionId, UserId};
pub use key_name::{InvalidKeyName, KeyName};
pub use machine::{Chosen, Effect, Session, SessionParams};
pub use process_exit::{ProcessExit, named_signal};
pub use sandbox::{
    Accelerator, DriverKind, Isolation, RunState, ShutdownCause, VmmFailure, VmmFailures,
};
pub use service_title::service_title;
pub use setup_step::SetupStep;
pub use state::{Leftover, Method, Prompt, PromptReason, Start, State, Teardown};
pub use state_name::StateName;
pub use timeline::{TimelineEntry, Timestamp};
pub use viewer::{AccessGrant, HolderGeneration, View};
pub use waited::Waited;
