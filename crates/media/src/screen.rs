//! The host's copy of the guest's desktop.

use anteroom_guest_protocol::frames::{BYTES_PER_PIXEL, MAX_EDGE, Rect};

use crate::blocks::{BLOCK, Blocks};
use crate::frame_source::Frame;
use crate::yuv;

/// The host's copy of the guest's desktop, as pixels and as I420 planes, with what changed since
/// [`Screen::take_damage`] was last called.
#[derive(Debug, Default)]
pub struct Screen {
    width: usize,
    height: usize,
    bgrx: Vec<u8>,
    luma: Vec<u8>,
    chroma_u: Vec<u8>,
    chroma_v: Vec<u8>,
    damage: Blocks,
}

/// Pixels that do not fit the screen, or a screen that cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ScreenError {
    /// The screen is empty or too large.
    #[error(
        "a screen of {width}x{height} pixels was announced; 1x1 to {MAX_EDGE}x{MAX_EDGE} are allowed"
    )]
    Size {
        /// Announced width.
        width: u16,
        /// Announced height.
        height: u16,
    },
    /// A rectangle leaves the screen, or does not come with its pixels.
    #[error(
        "putting {bytes} bytes into the rectangle {}x{}+{}+{} of a screen of {width}x{height} pixels failed",
        .rect.width, .rect.height, .rect.x, .rect.y
    )]
    Rect {
        /// The rectangle.
        rect: Rect,
        /// Bytes that came for it.
        bytes: usize,
        /// Width of the screen.
        width: usize,
        /// Height of the screen.
        height: usize,
    },
    /// There is no desktop yet.
    #[error("no picture of the desktop has arrived yet")]
    Empty,
    /// The picture could not be written.
    #[error("writing a PNG of {width}x{height} pixels failed")]
    Png {
        /// Width of the screen.
        width: usize,
        /// Height of the screen.
        height: usize,
        /// What the PNG writer said.
        source: png::EncodingError,
    },
}

impl Screen {
    /// Makes the screen `width` by `height` pixels. A screen of another size becomes black and
    /// damaged everywhere; one of the same size stays as it is.
    ///
    /// # Errors
    /// When the size is zero or over [`MAX_EDGE`].
    pub fn resize(&mut self, width: u16, height: u16) -> Result<(), ScreenError> {
        if !(1..=MAX_EDGE).contains(&width) || !(1..=MAX_EDGE).contains(&height) {
            return Err(ScreenError::Size { width, height });
        }
        let (width, height) = (usize::from(width), usize::from(height));
        if (width, height) == (self.width, self.height) {
            return Ok(());
        }
        let coded = width.next_multiple_of(2) * height.next_multiple_of(2);
        *self = Self {
            width,
            height,
            bgrx: vec![0; width * height * BYTES_PER_PIXEL],
            luma: vec![16; coded],
            chroma_u: vec![128; coded / 4],
            chroma_v: vec![128; coded / 4],
            damage: Blocks::all(width, height),
        };
        Ok(())
    }

    /// Puts the pixels of a rectangle (BGRX, row by row) on the screen. Only blocks with a pixel
    /// that is in fact another become damage.
    ///
    /// # Errors
    /// When the rectangle leaves the screen or does not have `width × height × 4` bytes.
    pub fn apply(&mut self, rect: &Rect, bgrx: &[u8]) -> Result<(), ScreenError> {
        let (left, top) = (usize::from(rect.x), usize::from(rect.y));
        let (right, bottom) = (left + usize::from(rect.width), top + usize::from(rect.height));
        let fits = right <= self.width && bottom <= self.height;
        if !fits || rect.area() == 0 || bgrx.len() != rect.area() * BYTES_PER_PIXEL {
            let (width, height) = (self.width, self.height);
            return Err(ScreenError::Rect { rect: *rect, bytes: bgrx.len(), width, height });
        }
        for row in top / BLOCK..bottom.div_ceil(BLOCK) {
            let lines = (row * BLOCK).max(top)..((row + 1) * BLOCK).min(bottom);
            let mut run: Option<(usize, usize)> = None;
            for column in left / BLOCK..right.div_ceil(BLOCK) {
                let pixels = (column * BLOCK).max(left)..((column + 1) * BLOCK).min(right);
                let changed = lines.clone().fold(false, |changed, line| {
                    let from =
                        ((line - top) * (right - left) + pixels.start - left) * BYTES_PER_PIXEL;
                    let to = (line * self.width + pixels.start) * BYTES_PER_PIXEL;
                    let bytes = pixels.len() * BYTES_PER_PIXEL;
                    changed | update(&mut self.bgrx[to..to + bytes], &bgrx[from..from + bytes])
                });
                if changed {
                    self.damage.insert(column, row);
                    run = Some((run.map_or(column, |(first, _)| first), column));
                } else if let Some((first, last)) = run.take() {
                    self.convert(row, first, last);
                }
            }
            if let Some((first, last)) = run {
                self.convert(row, first, last);
            }
        }
        Ok(())
    }

    /// Brings the planes up to date for the blocks `first` to `last` of a row of blocks. Blocks
    /// start at even pixels, so no 2x2 cell is cut.
    fn convert(&mut self, row: usize, first: usize, last: usize) {
        let coded_width = self.coded_width();
        let pixels = first * BLOCK..((last + 1) * BLOCK).min(self.width);
        let cells = pixels.start / 2..pixels.end.div_ceil(2);
        let lines = row * BLOCK..((row + 1) * BLOCK).min(self.height);
        for upper in lines.step_by(2) {
            // An odd last line, and an odd last column, are repeated.
            let lower = (upper + 1).min(self.height - 1);
            for (line, source) in [(upper, upper), (upper + 1, lower)] {
                let plane = &mut self.luma[line * coded_width..(line + 1) * coded_width];
                yuv::luma_row(
                    line_of(&self.bgrx, self.width, source, &pixels),
                    &mut plane[pixels.clone()],
                );
                if pixels.end % 2 == 1 {
                    plane[pixels.end] = plane[pixels.end - 1];
                }
            }
            let start = upper / 2 * (coded_width / 2);
            yuv::chroma_row(
                line_of(&self.bgrx, self.width, upper, &pixels),
                line_of(&self.bgrx, self.width, lower, &pixels),
                &mut self.chroma_u[start + cells.start..start + cells.end],
                &mut self.chroma_v[start + cells.start..start + cells.end],
            );
        }
    }

    /// Width in pixels; 0 before the first [`Screen::resize`].
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels; 0 before the first [`Screen::resize`].
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// Width of the planes: the next even number.
    #[must_use]
    pub fn coded_width(&self) -> usize {
        self.width.next_multiple_of(2)
    }

    /// Height of the planes: the next even number.
    #[must_use]
    pub fn coded_height(&self) -> usize {
        self.height.next_multiple_of(2)
    }

    /// Shows a frame: its size and the pixels of its rectangles.
    ///
    /// # Errors
    /// When the screen it announces cannot be, or a rectangle does not fit it.
    pub fn show(&mut self, frame: &Frame) -> Result<(), ScreenError> {
        let (width, height) = frame.screen_size();
        self.resize(width, height)?;
        frame.rects().try_for_each(|(rect, pixels)| self.apply(rect, pixels))
    }

    /// The planes Y, U and V, without padding between lines.
    #[must_use]
    pub fn planes(&self) -> [&[u8]; 3] {
        [&self.luma, &self.chroma_u, &self.chroma_v]
    }

    /// What changed since [`Screen::take_damage`].
    #[must_use]
    pub fn damage(&self) -> &Blocks {
        &self.damage
    }

    /// What changed since the last call.
    pub fn take_damage(&mut self) -> Blocks {
        let none = Blocks::none(self.width, self.height);
        std::mem::replace(&mut self.damage, none)
    }

    /// The screen as an RGB PNG.
    ///
    /// # Errors
    /// When there is no picture yet.
    pub fn png(&self) -> Result<Vec<u8>, ScreenError> {
        if self.bgrx.is_empty() {
            return Err(ScreenError::Empty);
        }
        let rgb: Vec<u8> =
            self.bgrx.as_chunks::<4>().0.iter().flat_map(|[b, g, r, _]| [*r, *g, *b]).collect();
        encode_png(self.width, self.height, png::ColorType::Rgb, &rgb)
            .map_err(|source| ScreenError::Png { width: self.width, height: self.height, source })
    }
}

/// A PNG of 8-bit pixels.
pub(crate) fn encode_png(
    width: usize,
    height: usize,
    color: png::ColorType,
    pixels: &[u8],
) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let edge = |edge: usize| u32::try_from(edge).unwrap_or(u32::MAX);
    let mut encoder = png::Encoder::new(&mut bytes, edge(width), edge(height));
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    encoder.write_header()?.write_image_data(pixels)?;
    Ok(bytes)
}

fn line_of<'a>(
    bgrx: &'a [u8],
    width: usize,
    line: usize,
    pixels: &std::ops::Range<usize>,
) -> &'a [u8] {
    let start = line * width;
    &bgrx[(start + pixels.start) * BYTES_PER_PIXEL..(start + pixels.end) * BYTES_PER_PIXEL]
}

fn update(old: &mut [u8], new: &[u8]) -> bool {
    let changed = old != new;
    if changed {
        old.copy_from_slice(new);
    }
    changed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The slow and plain conversion of a whole screen.
    fn reference_planes(screen: &Screen) -> [Vec<u8>; 3] {
        let (w, h) = (screen.coded_width(), screen.coded_height());
        let pixel = |x: usize, y: usize| {
            let at = (y.min(screen.height - 1) * screen.width + x.min(screen.width - 1)) * 4;
            [0, 1, 2].map(|c| i32::from(screen.bgrx[at + c]))
        };
        let mut planes = [vec![0; w * h], vec![0; w * h / 4], vec![0; w * h / 4]];
        for y in 0..h {
            for x in 0..w {
                let [b, g, r] = pixel(x, y);
                planes[0][y * w + x] =
                    u8::try_from(((66 * r + 129 * g + 25 * b + 128) >> 8) + 16).unwrap();
            }
        }
        for y in 0..h / 2 {
            for x in 0..w / 2 {
                let cell =
                    [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(dx, dy)| pixel(2 * x + dx, 2 * y + dy));
                let [b, g, r] = [0, 1, 2].map(|c| cell.iter().map(|p| p[c]).sum::<i32>());
                let at = y * w / 2 + x;
                planes[1][at] =
                    u8::try_from(((-38 * r - 74 * g + 112 * b + 512) >> 10) + 128).unwrap();
                planes[2][at] =
                    u8::try_from(((112 * r - 94 * g - 18 * b + 512) >> 10) + 128).unwrap();
            }
        }
        planes
    }

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed | 1;
        (0..len)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[3]
            })
            .collect()
    }

    fn screen(width: u16, height: u16) -> Screen {
        let mut screen = Screen::default();
        screen.resize(width, height).unwrap();
        screen
    }

    proptest! {
        #[test]
        fn any_rects_give_the_planes_of_a_full_conversion(
            width in 1u16..70,
            height in 1u16..70,
            rects in prop::collection::vec((any::<[u16; 4]>(), any::<u64>()), 1..6),
        ) {
            let mut screen = screen(width, height);
            for ([x, y, w, h], seed) in rects {
                let (x, y) = (x % width, y % height);
                let rect = Rect { x, y, width: 1 + w % (width - x), height: 1 + h % (height - y) };
                screen.apply(&rect, &noise(seed, rect.area() * 4)).unwrap();
            }
            let reference = reference_planes(&screen);
            for (plane, wanted) in screen.planes().into_iter().zip(&reference) {
                prop_assert!(plane == wanted.as_slice());
            }
        }

        #[test]
        fn no_rect_panics(x: u16, y: u16, width: u16, height: u16, bytes in 0usize..5000) {
            let mut screen = screen(40, 30);
            let rect = Rect { x, y, width, height };
            let _ = screen.apply(&rect, &vec![7; bytes]);
            let _ = screen.apply(&rect, &vec![7; rect.area().min(5000) * 4]);
        }
    }

    #[test]
    fn only_blocks_that_changed_are_damage() {
        let mut screen = screen(64, 64);
        assert_eq!(screen.take_damage().len(), 16);
        let whole = Rect { x: 0, y: 0, width: 64, height: 64 };
        let mut pixels = vec![0; 64 * 64 * 4];
        screen.apply(&whole, &pixels).unwrap();
        assert!(screen.damage().is_empty(), "the same pixels again are no damage");
        pixels[(20 * 64 + 40) * 4] = 9;
        screen.apply(&whole, &pixels).unwrap();
        assert_eq!(screen.damage().len(), 1);
        assert!(screen.take_damage().contains(2, 1));
    }

    #[test]
    fn a_new_size_damages_all_and_a_bad_one_is_refused() {
        let mut screen = screen(32, 32);
        screen.take_damage();
        screen.resize(32, 32).unwrap();
        assert!(screen.damage().is_empty());
        screen.resize(31, 17).unwrap();
        assert_eq!(
            (screen.coded_width(), screen.coded_height(), screen.damage().len()),
            (32, 18, 4)
        );
        assert!(screen.resize(0, 5).is_err() && screen.resize(5, 4097).is_err());
    }

    #[test]
    fn the_png_holds_the_pixels() {
        assert!(matches!(Screen::default().png(), Err(ScreenError::Empty)));
        let mut screen = screen(3, 2);
        screen.apply(&Rect { x: 1, y: 0, width: 1, height: 1 }, &[1, 2, 3, 0]).unwrap();
        let png = screen.png().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels[..9], [0, 0, 0, 3, 2, 1, 0, 0, 0]);
    }
}
