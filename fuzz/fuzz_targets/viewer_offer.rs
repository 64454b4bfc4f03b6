//! A viewer's offer: answered or refused, never a panic.
#![no_main]

use std::time::Instant;

use anteroom_media::peer::{Peer, PeerConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|offer: &str| {
    let config = PeerConfig {
        candidates: vec!["127.0.0.1:5000".parse().unwrap()],
        start_bitrate_bps: 1_000_000,
        max_bitrate_bps: 4_000_000,
    };
    let _ = Peer::answer(offer, &config, Instant::now());
});
