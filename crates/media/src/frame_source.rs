//! Pulls frames over the guest link. Everything a guest says here is hostile.

mod awaited;

use std::future::Future;
use std::io;
use std::time::Duration;

use anteroom_guest_protocol::frames::{
    BYTES_PER_PIXEL, FRAME_HEADER_LEN, FrameError, FrameHeader, RECT_LEN, Rect, Request,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

pub use awaited::{AwaitedFrames, PictureError};

/// How long a guest may take over a frame that it has begun, or over one that it has to send at
/// once. Generous: under emulation a guest can be away for several seconds.
pub const FRAME_DEADLINE: Duration = Duration::from_secs(30);

/// Rectangles of a frame may overlap, but all together cover no more than this many screens.
const MAX_COVERAGE: usize = 2;

/// Where frames of a guest come from.
pub trait FrameSource: Send + 'static {
    /// Asks for a frame and waits for it. `frame` is overwritten; its memory is reused. For
    /// [`Request::Changes`] the answer comes when there is damage, which can be never.
    fn next(
        &mut self,
        request: Request,
        frame: &mut Frame,
    ) -> impl Future<Output = Result<(), FrameSourceError>> + Send;
}

/// What a guest answered: rectangles and their pixels.
#[derive(Debug, Default)]
pub struct Frame {
    width: u16,
    height: u16,
    rects: Vec<Rect>,
    pixels: Vec<u8>,
    origin: Origin,
}

/// Whose a frame is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The guest sent it.
    #[default]
    Guest,
    /// A picture of the guest's screen, taken before.
    Picture,
}

/// Frames over one stream of the guest link.
#[derive(Debug)]
pub struct LinkFrameSource<S> {
    stream: S,
}

/// A frame that did not come as it should.
#[derive(Debug, thiserror::Error)]
pub enum FrameSourceError {
    /// The stream failed or ended.
    #[error("{operation} on the guest's frame stream failed")]
    Io {
        /// What was done.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The guest's bytes are not of the protocol.
    #[error("reading the guest's frame failed")]
    Protocol {
        /// What is wrong.
        #[from]
        source: FrameError,
    },
    /// The rectangles cover the screen several times.
    #[error("a frame of {pixels} pixels in all was announced for a screen of {width}x{height}")]
    TooManyPixels {
        /// Pixels of the rectangles so far.
        pixels: usize,
        /// Width of the screen.
        width: u16,
        /// Height of the screen.
        height: u16,
    },
    /// The guest fell silent.
    #[error("{operation} took the guest more than {} seconds", FRAME_DEADLINE.as_secs())]
    Silent {
        /// What was waited for.
        operation: &'static str,
    },
}

impl Frame {
    /// Starts over with a screen of this size in pixels.
    pub fn clear(&mut self, width: u16, height: u16) {
        (self.width, self.height) = (width, height);
        self.origin = Origin::Guest;
        self.rects.clear();
        self.pixels.clear();
    }

    /// Adds a rectangle with its pixels; more or fewer than it needs are a mistake of the caller
    /// that [`crate::screen::Screen::apply`] refuses.
    pub fn push(&mut self, rect: Rect, bgrx: &[u8]) {
        self.rects.push(rect);
        self.pixels.extend_from_slice(bgrx);
    }

    /// Whose it is.
    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }

    /// Width and height of the screen in pixels.
    #[must_use]
    pub fn screen_size(&self) -> (u16, u16) {
        (self.width, self.height)
    }

    /// The rectangles with their pixels.
    pub fn rects(&self) -> impl Iterator<Item = (&Rect, &[u8])> {
        let mut rest = self.pixels.as_slice();
        self.rects.iter().map(move |rect| {
            let (pixels, after) = rest.split_at((rect.area() * BYTES_PER_PIXEL).min(rest.len()));
            rest = after;
            (rect, pixels)
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> LinkFrameSource<S> {
    /// Takes a frame stream: the stream kind byte was written already.
    pub fn new(stream: S) -> Self {
        Self { stream }
    }

    async fn ask(&mut self, request: Request) -> Result<(), FrameSourceError> {
        let ask = async {
            self.stream.write_all(&[request.into()]).await?;
            self.stream.flush().await
        };
        let operation = "asking for a frame";
        timeout(FRAME_DEADLINE, ask)
            .await
            .map_err(|_| FrameSourceError::Silent { operation })?
            .map_err(|source| FrameSourceError::Io { operation, source })
    }

    async fn read_rest(&mut self, first: u8, frame: &mut Frame) -> Result<(), FrameSourceError> {
        let failed = |operation| move |source| FrameSourceError::Io { operation, source };
        let mut bytes = [0; FRAME_HEADER_LEN];
        bytes[0] = first;
        self.stream.read_exact(&mut bytes[1..]).await.map_err(failed("reading a header"))?;
        let header = FrameHeader::decode(&bytes)?;
        let (width, height) = (header.width, header.height);
        frame.clear(width, height);

        let most = usize::from(width) * usize::from(height) * MAX_COVERAGE;
        let mut pixels = 0;
        for _ in 0..header.rects {
            let mut bytes = [0; RECT_LEN];
            self.stream.read_exact(&mut bytes).await.map_err(failed("reading a rectangle"))?;
            let rect = Rect::decode(&bytes, &header)?;
            pixels += rect.area();
            if pixels > most {
                return Err(FrameSourceError::TooManyPixels { pixels, width, height });
            }
            // Memory grows with what has in fact come, not with what was announced.
            let wanted = rect.area() * BYTES_PER_PIXEL;
            let read = (&mut self.stream)
                .take(wanted as u64)
                .read_to_end(&mut frame.pixels)
                .await
                .map_err(failed("reading pixels"))?;
            if read < wanted {
                return Err(failed("reading pixels")(io::ErrorKind::UnexpectedEof.into()));
            }
            frame.rects.push(rect);
        }
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> FrameSource for LinkFrameSource<S> {
    async fn next(&mut self, request: Request, frame: &mut Frame) -> Result<(), FrameSourceError> {
        self.ask(request).await?;
        let first = self.stream.read_u8();
        let first = match request {
            Request::Changes => first.await,
            Request::Everything => timeout(FRAME_DEADLINE, first)
                .await
                .map_err(|_| FrameSourceError::Silent { operation: "beginning a frame" })?,
        };
        let first = first
            .map_err(|source| FrameSourceError::Io { operation: "waiting for a frame", source })?;
        let deadline = Instant::now() + FRAME_DEADLINE;
        timeout_at(deadline, self.read_rest(first, frame))
            .await
            .map_err(|_| FrameSourceError::Silent { operation: "finishing a frame" })?
    }
}

#[cfg(test)]
mod tests;
