//! What a guest did wrong, as the end of its session.

use anteroom_guest_link::{LinkError, chain};
use anteroom_guest_protocol::GuestMessage;
use anteroom_session::EndReason;

/// A failure of the link as a reason: what the guest did wrong, or that the link is gone, which may
/// only be the echo of a machine that is.
#[must_use]
pub fn link_failed(error: LinkError) -> EndReason {
    use yamux::ConnectionError::{Decode, TooManyStreams};
    let cause = chain(&error);
    match error {
        LinkError::Preamble(_)
        | LinkError::Message(_)
        | LinkError::Kind(_)
        | LinkError::Mux(Decode(_) | TooManyStreams) => EndReason::GuestBrokeProtocol { cause },
        LinkError::Io(_) | LinkError::Mux(_) | LinkError::Silent { .. } | LinkError::Closed => {
            EndReason::GuestLinkFailed { cause }
        }
    }
}

/// What the guest did wrong, in words.
#[must_use]
pub fn violation(cause: &str) -> EndReason {
    EndReason::GuestBrokeProtocol { cause: cause.to_owned() }
}

/// A failure of the link in words.
#[must_use]
pub fn broken(cause: &str) -> EndReason {
    EndReason::GuestLinkFailed { cause: cause.to_owned() }
}

/// The wire name of a message's kind.
#[must_use]
pub fn kind(message: &GuestMessage) -> String {
    let json = serde_json::to_value(message).unwrap_or_default();
    json["type"].as_str().unwrap_or("something").to_owned()
}
