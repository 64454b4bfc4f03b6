//! The sessions' video.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anteroom_node_protocol::MediaTotals;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::{Registry, Unit};

/// What is shown of it.
#[derive(Debug, Default)]
pub struct Media {
    frames: Counter,
    key_frames: Counter,
    guest_frames: Counter,
    bytes: Counter,
    encode_seconds: Counter<f64, AtomicU64>,
    lost_datagrams: Counter,
}

impl Media {
    /// Puts it on the page.
    pub fn register(&self, registry: &mut Registry) {
        let Self { frames, key_frames, guest_frames, bytes, encode_seconds, lost_datagrams } = self;
        for (name, help, counter) in [
            ("frames", "Video frames sent", frames),
            ("key_frames", "Key frames sent", key_frames),
            ("guest_frames", "Frames received from guests", guest_frames),
            (
                "lost_datagrams",
                "Media datagrams that could not be sent or received",
                lost_datagrams,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        let help = "Bytes of the video frames sent";
        registry.register_with_unit("media", help, Unit::Bytes, bytes.clone());
        let help = "Time spent encoding";
        registry.register_with_unit("encode", help, Unit::Seconds, encode_seconds.clone());
    }

    /// What a runner did since its last report.
    pub fn add(&self, before: &MediaTotals, now: &MediaTotals) {
        let since = |of: fn(&MediaTotals) -> u64| of(now).saturating_sub(of(before));
        self.frames.inc_by(since(|totals| totals.frames));
        self.key_frames.inc_by(since(|totals| totals.key_frames));
        self.guest_frames.inc_by(since(|totals| totals.guest_frames));
        self.bytes.inc_by(since(|totals| totals.bytes));
        self.lost_datagrams.inc_by(since(|totals| totals.lost_datagrams));
        let encoding = Duration::from_micros(since(|totals| totals.encode_micros));
        self.encode_seconds.inc_by(encoding.as_secs_f64());
    }
}
