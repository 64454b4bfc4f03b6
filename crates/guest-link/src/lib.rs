//! The guest link: handshake, multiplexer and messages on one reliable byte stream.
//!
//! Used by both ends: the session runner (host) and the agent (guest). `guest-protocol` says what
//! travels, this crate moves it with tokio and yamux.
#![forbid(unsafe_code)]

mod handshake;
mod message_io;
mod mux;
mod shared;

pub use anteroom_guest_protocol::chain;
pub use handshake::{
    answer_handshake, answer_handshake_whenever, say_waiting, start_handshake, until_waiting,
};
pub use message_io::{read_message, write_message};
pub use mux::{Incoming, LinkStream, Opener, Side, connect, read_kind};
pub use shared::SharedStream;

use anteroom_guest_protocol::message::MessageError;
use anteroom_guest_protocol::{PreambleError, UnknownStreamKind};

/// The link, or something that came over it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The stream ended or failed.
    #[error("reading or writing the guest link failed")]
    Io(#[from] std::io::Error),
    /// The multiplexer refused what came.
    #[error("the multiplexer of the guest link failed")]
    Mux(#[from] yamux::ConnectionError),
    /// The first bytes were not the preamble.
    #[error("the handshake of the guest link failed")]
    Preamble(#[from] PreambleError),
    /// A message broke its limits or the schema.
    #[error("a message on the guest link was refused")]
    Message(#[from] MessageError),
    /// A stream of an unknown kind.
    #[error("a stream on the guest link was refused")]
    Kind(#[from] UnknownStreamKind),
    /// Something that was begun did not go on.
    #[error("the other side began {what} and then sent nothing for {seconds} s")]
    Silent {
        /// What was begun.
        what: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// The link is gone.
    #[error("the guest link is closed")]
    Closed,
}
