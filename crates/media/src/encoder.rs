//! Damage to VP9 or VP8 frames.

use std::time::Duration;

use crate::refinement::{MAX_QUANTIZER, MIN_QUANTIZER, Plan};
use crate::screen::Screen;
use crate::vpx::{Codec, Picture, VpxEncoder, VpxError};

/// The smallest edge of a screen that can be encoded, in pixels.
pub const MIN_EDGE: usize = 16;

const THREADS: u32 = 2;

// libvpx derives the budget of a frame from the time since the one before. After a pause it would
// spend seconds' worth of bits on one frame, which the network then has to carry all at once.
const SHORTEST_STEP_US: i64 = 1_000_000 / 60;
const LONGEST_STEP_US: i64 = 100_000;

/// A libvpx encoder for one size of screen.
pub struct Encoder {
    vpx: VpxEncoder,
    width: usize,
    height: usize,
    last_pts_us: Option<i64>,
    vpx_pts_us: i64,
}

/// A compressed frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedFrame {
    /// The frame as the codec's decoder takes it.
    pub data: Vec<u8>,
    /// Whether it can be decoded without earlier ones.
    pub key: bool,
    /// 0 (sharp) to 63 (coarse).
    pub quantizer: u8,
}

/// Encoding that failed.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// No encoder could be made.
    #[error("making a {codec:?} encoder for {width}x{height} pixels at {bitrate_bps} bit/s failed")]
    New {
        /// The codec.
        codec: Codec,
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Bits a second.
        bitrate_bps: u64,
        /// Why.
        source: VpxError,
    },
    /// A picture could not be encoded.
    #[error("encoding a picture of {width}x{height} pixels failed")]
    Encode {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Why.
        source: VpxError,
    },
    /// The rate could not be changed.
    #[error("setting the encoder to {bitrate_bps} bit/s failed")]
    Bitrate {
        /// Bits a second.
        bitrate_bps: u64,
        /// Why.
        source: VpxError,
    },
}

impl Encoder {
    /// An encoder for screens whose planes are `width` by `height` pixels (even, at least
    /// [`MIN_EDGE`]), aiming at `bitrate_bps` bits a second.
    ///
    /// # Errors
    /// When libvpx cannot do that size.
    pub fn new(
        codec: Codec,
        width: usize,
        height: usize,
        bitrate_bps: u64,
    ) -> Result<Self, EncodeError> {
        let edge = |edge: usize| u32::try_from(edge).unwrap_or(u32::MAX);
        let vpx = VpxEncoder::new(codec, edge(width), edge(height), kbps(bitrate_bps), THREADS)
            .map_err(|source| EncodeError::New { codec, width, height, bitrate_bps, source })?;
        Ok(Self { vpx, width, height, last_pts_us: None, vpx_pts_us: 0 })
    }

    /// Whether this encoder was made for the present size of `screen`.
    #[must_use]
    pub fn fits(&self, screen: &Screen) -> bool {
        (self.width, self.height) == (screen.coded_width(), screen.coded_height())
    }

    /// Encodes the blocks of `plan` as the screen is now; the rest stays as the viewer has it.
    /// `pts` counts from any fixed moment. None when the encoder made nothing of it.
    ///
    /// # Errors
    /// When the screen has another size than the encoder, or libvpx fails.
    pub fn encode(
        &mut self,
        screen: &Screen,
        plan: &Plan,
        force_key: bool,
        pts: Duration,
    ) -> Result<Option<EncodedFrame>, EncodeError> {
        let (width, height) = (self.width, self.height);
        let pts_us = i64::try_from(pts.as_micros()).unwrap_or(i64::MAX);
        let step = self.last_pts_us.map_or(SHORTEST_STEP_US, |last| {
            pts_us.saturating_sub(last).clamp(SHORTEST_STEP_US, LONGEST_STEP_US)
        });
        self.last_pts_us = Some(pts_us);
        self.vpx_pts_us += step;
        let picture = Picture {
            planes: screen.planes(),
            active: plan.active.marks(),
            pts_us: self.vpx_pts_us,
            duration_us: step,
            force_key,
            max_quantizer: plan.max_quantizer.clamp(MIN_QUANTIZER, MAX_QUANTIZER),
        };
        let packet = self.vpx.encode(&picture).map_err(|source| EncodeError::Encode {
            width,
            height,
            source,
        })?;
        Ok(packet.map(|packet| EncodedFrame {
            data: packet.data.to_vec(),
            key: packet.key,
            quantizer: packet.quantizer,
        }))
    }

    /// Aims at another rate, in bits a second.
    ///
    /// # Errors
    /// When libvpx refuses it.
    pub fn set_bitrate(&mut self, bitrate_bps: u64) -> Result<(), EncodeError> {
        self.vpx
            .set_bitrate(kbps(bitrate_bps))
            .map_err(|source| EncodeError::Bitrate { bitrate_bps, source })
    }
}

fn kbps(bitrate_bps: u64) -> u32 {
    u32::try_from(bitrate_bps / 1000).unwrap_or(u32::MAX).clamp(1, 1_000_000)
}

#[cfg(test)]
mod tests;
