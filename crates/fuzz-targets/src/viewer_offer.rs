//! A viewer's offer: answered or refused, never a panic.

use std::time::Instant;

use anteroom_media::peer::{Peer, PeerConfig};

use crate::text::text;

/// Panics where the reader does not hold what is written above.
pub fn run(bytes: &[u8]) {
    let offer = text(bytes);
    let config = PeerConfig {
        candidates: vec!["127.0.0.1:5000".parse().unwrap()],
        start_bitrate_bps: 1_000_000,
        max_bitrate_bps: 4_000_000,
    };
    let _ = Peer::answer(offer, &config, Instant::now());
}
