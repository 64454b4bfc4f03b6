//! The viewer's stream: damaged pixels from the guest become VP9 or VP8 frames on a WebRTC
//! connection, and what the end user does comes back.
//!
//! Data goes this way: a [`frame_source`] pulls a frame over the guest link, [`screen`] takes its
//! pixels and finds the blocks that changed, [`encoder`] compresses those, [`peer`] (sans-IO) turns
//! frames into datagrams, and [`service`] drives all of it for one session. [`refinement`] decides
//! when a still picture is sent again so that its text becomes sharp.

pub mod blocks;
pub mod decoder;
pub mod encoder;
pub mod frame_source;
pub mod peer;
pub mod refinement;
pub mod screen;
pub mod service;
#[cfg(test)]
mod testing;
pub mod viewed;
mod vpx;
mod yuv;

pub use vpx::{Codec, VpxError};
