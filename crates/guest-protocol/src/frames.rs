//! The frame stream: the host asks, the guest answers with what changed.
//!
//! Request: one byte ([`Request`]). Answer, once there is damage: a [`FrameHeader`]
//! (20 bytes big-endian), then for each rectangle a [`Rect`] (8 bytes big-endian) and its
//! `width × height` pixels, 4 bytes each: blue, green, red, unused. Nothing is sent unasked, so
//! nothing queues, and damage coalesces in the guest while the host is busy.

/// Bytes of a frame header.
pub const FRAME_HEADER_LEN: usize = 20;
/// Bytes of a rectangle.
pub const RECT_LEN: usize = 8;
/// Bytes of a pixel.
pub const BYTES_PER_PIXEL: usize = 4;
/// The most rectangles in a frame; a guest with more damage merges them.
pub const MAX_RECTS: u16 = 64;
/// The largest screen edge, in pixels.
pub const MAX_EDGE: u16 = 4096;

/// What the host wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// What changed since the last answer, as soon as something has.
    Changes,
    /// The whole screen, now.
    Everything,
}

impl From<Request> for u8 {
    fn from(request: Request) -> Self {
        match request {
            Request::Changes => 1,
            Request::Everything => 2,
        }
    }
}

impl TryFrom<u8> for Request {
    type Error = FrameError;

    fn try_from(byte: u8) -> Result<Self, FrameError> {
        match byte {
            1 => Ok(Self::Changes),
            2 => Ok(Self::Everything),
            _ => Err(FrameError::UnknownRequest(byte)),
        }
    }
}

/// What precedes the rectangles of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Counts answers, from 1.
    pub sequence: u32,
    /// When the pixels were read, in microseconds of the guest's monotonic clock.
    pub captured_us: u64,
    /// Screen width in pixels.
    pub width: u16,
    /// Screen height in pixels.
    pub height: u16,
    /// Rectangles that follow.
    pub rects: u16,
}

/// A part of the screen, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rect {
    /// From the left.
    pub x: u16,
    /// From the top.
    pub y: u16,
    /// At least 1.
    pub width: u16,
    /// At least 1.
    pub height: u16,
}

/// Bytes on the frame stream that are not of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not a request.
    #[error("frame request {0} is not known")]
    UnknownRequest(u8),
    /// The screen is empty or too large.
    #[error(
        "a frame of a screen of {width}x{height} pixels was announced; at most {MAX_EDGE}x{MAX_EDGE} are allowed"
    )]
    Screen {
        /// Announced width.
        width: u16,
        /// Announced height.
        height: u16,
    },
    /// Too many rectangles.
    #[error("a frame of {0} rectangles was announced; at most {MAX_RECTS} are allowed")]
    TooManyRects(u16),
    /// A rectangle is empty or leaves the screen.
    #[error("the rectangle {width}x{height}+{x}+{y} is empty or leaves the screen")]
    RectOutside {
        /// From the left.
        x: u16,
        /// From the top.
        y: u16,
        /// Width.
        width: u16,
        /// Height.
        height: u16,
    },
}

impl FrameHeader {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; FRAME_HEADER_LEN] {
        let mut bytes = [0; FRAME_HEADER_LEN];
        bytes[0..4].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.captured_us.to_be_bytes());
        bytes[12..14].copy_from_slice(&self.width.to_be_bytes());
        bytes[14..16].copy_from_slice(&self.height.to_be_bytes());
        bytes[16..18].copy_from_slice(&self.rects.to_be_bytes());
        bytes
    }

    /// Reads and checks a header. The last two bytes are reserved and ignored.
    ///
    /// # Errors
    /// When the screen is empty or too large, or the rectangles are too many.
    pub fn decode(bytes: &[u8; FRAME_HEADER_LEN]) -> Result<Self, FrameError> {
        let u16_at = |i: usize| u16::from_be_bytes([bytes[i], bytes[i + 1]]);
        let mut sequence = [0; 4];
        sequence.copy_from_slice(&bytes[0..4]);
        let mut captured = [0; 8];
        captured.copy_from_slice(&bytes[4..12]);
        let (width, height, rects) = (u16_at(12), u16_at(14), u16_at(16));
        let edge_fits = |edge: u16| (1..=MAX_EDGE).contains(&edge);
        if !edge_fits(width) || !edge_fits(height) {
            return Err(FrameError::Screen { width, height });
        }
        if rects > MAX_RECTS {
            return Err(FrameError::TooManyRects(rects));
        }
        Ok(Self {
            sequence: u32::from_be_bytes(sequence),
            captured_us: u64::from_be_bytes(captured),
            width,
            height,
            rects,
        })
    }
}

impl Rect {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; RECT_LEN] {
        let mut bytes = [0; RECT_LEN];
        bytes[0..2].copy_from_slice(&self.x.to_be_bytes());
        bytes[2..4].copy_from_slice(&self.y.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.width.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.height.to_be_bytes());
        bytes
    }

    /// Reads a rectangle that lies within the screen of `header`.
    ///
    /// # Errors
    /// When it is empty or leaves the screen.
    pub fn decode(bytes: &[u8; RECT_LEN], header: &FrameHeader) -> Result<Self, FrameError> {
        let u16_at = |i: usize| u16::from_be_bytes([bytes[i], bytes[i + 1]]);
        let rect = Self { x: u16_at(0), y: u16_at(2), width: u16_at(4), height: u16_at(6) };
        let fits = |start: u16, length: u16, edge: u16| {
            length > 0 && u32::from(start) + u32::from(length) <= u32::from(edge)
        };
        if fits(rect.x, rect.width, header.width) && fits(rect.y, rect.height, header.height) {
            Ok(rect)
        } else {
            let Self { x, y, width, height } = rect;
            Err(FrameError::RectOutside { x, y, width, height })
        }
    }

    /// Pixels in it.
    #[must_use]
    pub fn area(&self) -> usize {
        usize::from(self.width) * usize::from(self.height)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_decoded_rect_lies_within_the_screen(head: [u8; FRAME_HEADER_LEN], body: [u8; RECT_LEN]) {
            if let Ok(header) = FrameHeader::decode(&head)
                && let Ok(rect) = Rect::decode(&body, &header)
            {
                prop_assert!(rect.area() > 0);
                prop_assert!(u32::from(rect.x) + u32::from(rect.width) <= u32::from(header.width));
                prop_assert!(u32::from(rect.y) + u32::from(rect.height) <= u32::from(header.height));
                prop_assert_eq!(rect.encode(), body);
            }
        }
    }

    #[test]
    fn a_header_survives_the_wire() {
        let header =
            FrameHeader { sequence: 9, captured_us: 1 << 40, width: 1280, height: 720, rects: 3 };
        assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
    }
}
