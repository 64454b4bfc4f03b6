//! Frames of a guest whose stream comes later, and a picture of its screen until then.

use std::io;

use anteroom_guest_protocol::frames::{MAX_EDGE, Rect, Request};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::{Frame, FrameSource, FrameSourceError, Origin};

/// Waits for a guest's frames. A viewer who comes before sees the picture, where there is one; the guest's
/// first frame takes its place as a whole.
#[derive(Debug)]
pub struct AwaitedFrames<S> {
    picture: Option<Frame>,
    awaited: oneshot::Receiver<S>,
    came: Option<S>,
}

/// A picture that is no screen's.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// It is not a PNG.
    #[error("reading the picture of the desktop failed")]
    Png(#[from] png::DecodingError),
    /// It is a PNG of another kind.
    #[error(
        "the picture of the desktop is no RGB picture of at most {MAX_EDGE} by {MAX_EDGE} pixels"
    )]
    Form,
}

impl<S: FrameSource> AwaitedFrames<S> {
    /// The sender is for the source; dropped, it ends this one with an error.
    #[must_use]
    pub fn new(picture: Option<Frame>) -> (Self, oneshot::Sender<S>) {
        let (sender, awaited) = oneshot::channel();
        (Self { picture, awaited, came: None }, sender)
    }
}

impl<S: FrameSource> FrameSource for AwaitedFrames<S> {
    async fn next(&mut self, request: Request, frame: &mut Frame) -> Result<(), FrameSourceError> {
        if let Some(source) = &mut self.came {
            return source.next(request, frame).await;
        }
        let came = match self.awaited.try_recv() {
            Err(TryRecvError::Empty) => {
                if request == Request::Everything
                    && let Some(picture) = self.picture.take()
                {
                    *frame = picture;
                    return Ok(());
                }
                (&mut self.awaited).await.ok()
            }
            // Once the guest's are there, the picture is of the past.
            came => came.ok(),
        };
        let source = came.ok_or_else(|| FrameSourceError::Io {
            operation: "waiting for the first frame",
            source: io::ErrorKind::BrokenPipe.into(),
        })?;
        // Whatever was shown is not what the guest shows now.
        self.came.insert(source).next(Request::Everything, frame).await
    }
}

impl Frame {
    /// A whole screen as it was, from the PNG that [`Screen::png`](crate::screen::Screen::png) made of it.
    ///
    /// # Errors
    /// When the bytes are something else.
    pub fn from_png(bytes: &[u8]) -> Result<Self, PictureError> {
        let mut reader = png::Decoder::new(io::Cursor::new(bytes)).read_info()?;
        let info = reader.info();
        let edge = |edge: u32| {
            let edge = u16::try_from(edge).ok();
            edge.filter(|edge| *edge <= MAX_EDGE)
        };
        let (Some(width), Some(height)) = (edge(info.width), edge(info.height)) else {
            return Err(PictureError::Form);
        };
        if (info.color_type, info.bit_depth) != (png::ColorType::Rgb, png::BitDepth::Eight) {
            return Err(PictureError::Form);
        }
        let mut rgb = vec![0; usize::from(width) * usize::from(height) * 3];
        reader.next_frame(&mut rgb)?;
        let bgrx: Vec<u8> =
            rgb.as_chunks::<3>().0.iter().flat_map(|[r, g, b]| [*b, *g, *r, 0]).collect();
        let mut frame = Self::default();
        frame.clear(width, height);
        frame.push(Rect { x: 0, y: 0, width, height }, &bgrx);
        frame.origin = Origin::Picture;
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::Screen;

    /// Answers each request with a screen of one pixel, and keeps what was asked.
    struct Asked(Vec<Request>);

    impl FrameSource for Asked {
        async fn next(
            &mut self,
            request: Request,
            frame: &mut Frame,
        ) -> Result<(), FrameSourceError> {
            self.0.push(request);
            frame.clear(1, 1);
            Ok(())
        }
    }

    fn picture() -> Frame {
        let mut frame = Frame::default();
        frame.clear(16, 8);
        frame.push(Rect { x: 0, y: 0, width: 16, height: 8 }, &[1, 2, 3, 0].repeat(16 * 8));
        frame
    }

    #[tokio::test]
    async fn the_picture_is_shown_until_the_guest_s_frames_are_there() {
        let (mut frames, sender) = AwaitedFrames::new(Some(picture()));
        let mut frame = Frame::default();
        frames.next(Request::Everything, &mut frame).await.unwrap();
        assert_eq!(frame.screen_size(), (16, 8));
        let changes = async { frames.next(Request::Changes, &mut frame).await };
        let comes = async { assert!(sender.send(Asked(vec![])).is_ok()) };
        tokio::join!(changes, comes).0.unwrap();
        assert_eq!(frame.screen_size(), (1, 1));
        frames.next(Request::Changes, &mut frame).await.unwrap();
        assert_eq!(frames.came.unwrap().0, [Request::Everything, Request::Changes]);
    }

    #[tokio::test]
    async fn a_picture_of_the_past_is_not_shown() {
        let (mut frames, sender) = AwaitedFrames::new(Some(picture()));
        assert!(sender.send(Asked(vec![])).is_ok());
        let mut frame = Frame::default();
        frames.next(Request::Everything, &mut frame).await.unwrap();
        assert_eq!(frame.screen_size(), (1, 1));
    }

    #[tokio::test]
    async fn a_guest_that_never_comes_is_an_error() {
        let (mut frames, sender) = AwaitedFrames::<Asked>::new(None);
        drop(sender);
        let error = frames.next(Request::Everything, &mut Frame::default()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "waiting for the first frame on the guest's frame stream failed"
        );
    }

    #[test]
    fn a_png_of_a_screen_is_that_screen() {
        let (mut screen, mut other) = (Screen::default(), Screen::default());
        screen.show(&picture()).unwrap();
        other.show(&Frame::from_png(&screen.png().unwrap()).unwrap()).unwrap();
        assert_eq!(screen.png().unwrap(), other.png().unwrap());
        assert!(Frame::from_png(b"\x89PNG").is_err());
        let grey = crate::screen::encode_png(2, 2, png::ColorType::Grayscale, &[0; 4]).unwrap();
        assert!(matches!(Frame::from_png(&grey), Err(PictureError::Form)));
    }
}
