//! A screen as a viewer would see it: encoded, and decoded again.

use std::time::Duration;

use crate::blocks::Blocks;
use crate::encoder::{EncodeError, Encoder};
use crate::refinement::{MAX_QUANTIZER, Plan};
use crate::screen::Screen;
use crate::vpx::decoder::VpxDecoder;
use crate::vpx::{Codec, VpxError};
use crate::yuv;

/// Bits a second for the one frame.
const BITRATE_BPS: u64 = 8_000_000;

/// How far a decoded sample may be from a colour's own, of 255.
const NEAR: u8 = 12;

/// One decoded frame.
pub struct Viewed {
    /// Length of the encoded frame in bytes.
    pub encoded_bytes: usize,
    /// How near its luma is to the screen's, in dB (peak signal to noise); 40 and more is sharp.
    pub psnr_db: f64,
    planes: [Vec<u8>; 3],
}

/// A screen that no viewer could see.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// It could not be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The encoder made nothing of it.
    #[error("the encoder produced no frame of the screen")]
    NoFrame,
    /// The frame could not be decoded.
    #[error("decoding the encoded frame failed")]
    Decode(#[from] VpxError),
}

/// Encodes the screen as one key frame and decodes that.
///
/// # Errors
/// When either fails.
pub fn view(screen: &Screen, codec: Codec) -> Result<Viewed, ViewError> {
    let (width, height) = (screen.coded_width(), screen.coded_height());
    let mut encoder = Encoder::new(codec, width, height, BITRATE_BPS)?;
    let all = Blocks::all(screen.width(), screen.height());
    let plan = Plan { changed: all.clone(), active: all, max_quantizer: MAX_QUANTIZER };
    let frame = encoder.encode(screen, &plan, true, Duration::ZERO)?.ok_or(ViewError::NoFrame)?;
    let edge = |edge: usize| u32::try_from(edge).unwrap_or(u32::MAX);
    let planes = VpxDecoder::new(codec)?.decode(&frame.data, edge(width), edge(height))?;
    let psnr_db = psnr(screen.planes()[0], &planes[0]);
    Ok(Viewed { encoded_bytes: frame.data.len(), psnr_db, planes })
}

impl Viewed {
    /// The part of the picture (0 to 1) that has this colour's hue.
    #[must_use]
    pub fn part_of(&self, [red, green, blue]: [u8; 3]) -> f64 {
        let (wanted_u, wanted_v) = yuv::chroma_of(red, green, blue);
        let [_, u, v] = &self.planes;
        let near = |sample: u8, wanted: u8| sample.abs_diff(wanted) <= NEAR;
        let count = u.iter().zip(v).filter(|(u, v)| near(**u, wanted_u) && near(**v, wanted_v));
        #[expect(clippy::cast_precision_loss, reason = "a count of pixels")]
        let part = count.count() as f64 / u.len().max(1) as f64;
        part
    }
}

/// Peak signal to noise of 8-bit samples, in dB.
pub(crate) fn psnr(a: &[u8], b: &[u8]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    #[expect(clippy::cast_precision_loss, reason = "a count of pixels")]
    let mean = squares / a.len().max(1) as f64;
    10.0 * (255.0 * 255.0 / mean.max(1e-9)).log10()
}

#[cfg(test)]
mod tests {
    use anteroom_guest_protocol::frames::Rect;

    use super::*;

    #[test]
    fn a_coloured_bar_is_seen_in_its_colour() {
        let (width, height) = (320_u16, 180_u16);
        let mut pixels = vec![255; usize::from(width) * usize::from(height) * 4];
        let quarter = pixels.len() / 4;
        for pixel in pixels[..quarter].chunks_exact_mut(4) {
            pixel.copy_from_slice(&[0x5a, 0x1e, 0xc8, 0]);
        }
        let mut screen = Screen::default();
        screen.resize(width, height).unwrap();
        screen.apply(&Rect { x: 0, y: 0, width, height }, &pixels).unwrap();
        for codec in [Codec::Vp9, Codec::Vp8] {
            let seen = view(&screen, codec).unwrap();
            assert!((0.2..0.3).contains(&seen.part_of([0xc8, 0x1e, 0x5a])), "{codec:?}");
            assert!(seen.part_of([0x1e, 0x78, 0xc8]) < 0.01);
            assert!(seen.psnr_db > 30.0, "{}", seen.psnr_db);
        }
    }
}
