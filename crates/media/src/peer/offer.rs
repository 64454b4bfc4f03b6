//! A viewer's offer, checked before anything parses it.

use std::net::SocketAddr;

use str0m::RtcError;
use str0m::change::SdpOffer;
use str0m::error::IceError;

/// The longest offer that is read, in bytes.
pub const MAX_OFFER: usize = 64 * 1024;
/// The most candidates in an offer.
pub const MAX_CANDIDATES: usize = 64;

/// An offer that cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// Longer than [`MAX_OFFER`].
    #[error("an offer of {bytes} bytes was sent; at most {MAX_OFFER} are allowed")]
    TooLong {
        /// Bytes that came.
        bytes: usize,
    },
    /// More candidates than [`MAX_CANDIDATES`].
    #[error("an offer with {count} candidates was sent; at most {MAX_CANDIDATES} are allowed")]
    TooManyCandidates {
        /// Candidates that came.
        count: usize,
    },
    /// Not SDP.
    #[error("the offer of {bytes} bytes is not valid SDP")]
    // str0m's own error names addresses in memory, and this is shown to the viewer.
    Unreadable {
        /// Bytes that came.
        bytes: usize,
    },
    /// The viewer's link was revoked.
    #[error("{0} was revoked")]
    Revoked(anteroom_session::AccessGrant),
    /// SDP that cannot be agreed to.
    #[error("answering the offer failed")]
    Unanswerable {
        /// Why.
        source: RtcError,
    },
    /// It does not ask for video that we have.
    #[error(
        "the offer contains neither VP9 nor VP8 video; the viewer must offer to receive one of them"
    )]
    NoVideo,
    /// An address of this server cannot be offered to viewers.
    #[error(
        "offering the address {address} to the viewer failed; choose an address that viewers can reach"
    )]
    Candidate {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: IceError,
    },
    /// The session has ended.
    #[error("the session's media service has ended")]
    Ended,
}

/// Reads an offer, if it is not too large.
pub(super) fn parse(sdp: &str) -> Result<SdpOffer, OfferError> {
    let bytes = sdp.len();
    if bytes > MAX_OFFER {
        return Err(OfferError::TooLong { bytes });
    }
    let count = sdp.lines().filter(|line| line.trim_start().starts_with("a=candidate")).count();
    if count > MAX_CANDIDATES {
        return Err(OfferError::TooManyCandidates { count });
    }
    SdpOffer::from_sdp_string(sdp).map_err(|_| OfferError::Unreadable { bytes })
}
