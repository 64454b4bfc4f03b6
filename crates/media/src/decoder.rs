//! A stream as a viewer decodes it, for who looks at one without a browser: tests and benchmarks.

use crate::vpx::decoder::{VpxDecoder, key_frame_size};
use crate::vpx::{Codec, VpxError};

/// How far the brightest luma of a picture must be from its darkest, of 255, to show something.
const LEAST_CONTRAST: u8 = 24;

/// Decodes the frames of one stream, in their order.
pub struct Decoder {
    codec: Codec,
    vpx: VpxDecoder,
    /// Of the last key frame; without one nothing can be decoded.
    size: Option<(u32, u32)>,
}

/// A decoded picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// The mean of its luma, 16 (black) to 235 (white).
    pub mean_luma: u8,
    /// Its brightest luma less its darkest: 0 is one colour all over.
    pub contrast: u8,
}

impl Decoder {
    /// A decoder of a stream that begins.
    ///
    /// # Errors
    /// When libvpx makes none.
    pub fn new(codec: Codec) -> Result<Self, VpxError> {
        Ok(Self { codec, vpx: VpxDecoder::new(codec)?, size: None })
    }

    /// The picture after this frame; `None` before the first key frame.
    ///
    /// # Errors
    /// When it is not decodable: one before it was lost, or it is no frame.
    pub fn decode(&mut self, frame: &[u8]) -> Result<Option<Picture>, VpxError> {
        self.size = key_frame_size(self.codec, frame)?.or(self.size);
        let Some((width, height)) = self.size else { return Ok(None) };
        let [luma, _, _] = self.vpx.decode(frame, width, height)?;
        Ok(Some(Picture::of(width, height, &luma)))
    }
}

impl Picture {
    /// Whether it is more than one colour, as a desktop is.
    #[must_use]
    pub fn shows_something(&self) -> bool {
        self.contrast >= LEAST_CONTRAST
    }

    fn of(width: u32, height: u32, luma: &[u8]) -> Self {
        let sum: u64 = luma.iter().map(|sample| u64::from(*sample)).sum();
        let mean = sum / u64::try_from(luma.len().max(1)).unwrap_or(u64::MAX);
        let mean_luma = u8::try_from(mean).unwrap_or(u8::MAX);
        let (darkest, brightest) = (luma.iter().min(), luma.iter().max());
        let contrast = brightest.zip(darkest).map_or(0, |(brightest, darkest)| brightest - darkest);
        Self { width, height, mean_luma, contrast }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use anteroom_guest_protocol::frames::Rect;

    use super::*;
    use crate::blocks::Blocks;
    use crate::encoder::Encoder;
    use crate::refinement::{MAX_QUANTIZER, Plan};
    use crate::screen::Screen;

    const SIZE: (u16, u16) = (320, 180);

    fn screen(white_rows: usize) -> Screen {
        let (width, height) = SIZE;
        let row = usize::from(width) * 4;
        let mut pixels = vec![0; row * usize::from(height)];
        pixels[..row * white_rows].fill(255);
        let mut screen = Screen::default();
        screen.resize(width, height).unwrap();
        screen.apply(&Rect { x: 0, y: 0, width, height }, &pixels).unwrap();
        screen
    }

    fn frame(encoder: &mut Encoder, screen: &Screen, is_key: bool, at_ms: u64) -> Vec<u8> {
        let all = Blocks::all(SIZE.0.into(), SIZE.1.into());
        let plan = Plan { changed: all.clone(), active: all, max_quantizer: MAX_QUANTIZER };
        let at = Duration::from_millis(at_ms);
        encoder.encode(screen, &plan, is_key, at).unwrap().unwrap().data
    }

    #[test]
    fn a_stream_is_decoded_from_its_key_frame_on() {
        for codec in [Codec::Vp9, Codec::Vp8] {
            let (black, half) = (screen(0), screen(90));
            let coded = (black.coded_width(), black.coded_height());
            let mut encoder = Encoder::new(codec, coded.0, coded.1, 4_000_000).unwrap();
            let key = frame(&mut encoder, &black, true, 0);
            let next = frame(&mut encoder, &half, false, 40);

            let mut decoder = Decoder::new(codec).unwrap();
            assert_eq!(decoder.decode(&next).unwrap(), None, "{codec:?}");
            let seen = decoder.decode(&key).unwrap().unwrap();
            assert_eq!((seen.width as usize, seen.height as usize), coded, "{codec:?}");
            assert!(!seen.shows_something() && seen.mean_luma < 24, "{codec:?}: {seen:?}");
            let seen = decoder.decode(&next).unwrap().unwrap();
            assert!(seen.shows_something() && seen.mean_luma > 80, "{codec:?}: {seen:?}");
        }
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        assert!(Decoder::new(Codec::Vp8).unwrap().decode(&[]).is_err());
    }
}
