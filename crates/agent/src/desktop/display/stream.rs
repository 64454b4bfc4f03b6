//! From the capture thread to the frame stream.
//!
//! The thread sleeps until X reports something or the host asks; each request gets exactly one
//! answer. When a new request comes while one for changes is still open, the open one is answered
//! without pixels, so the host is never a request ahead.

use anteroom_guest_link::{LinkError, LinkStream};
use anteroom_guest_protocol::GuestMessage;
use anteroom_guest_protocol::frames::Request;
use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use super::capture::Capture;
use super::cursor;
use super::server::DisplayAddress;
use crate::desktop::mailbox::{Letter, Mailbox, Post, mailbox};
use crate::report::Reporter;

struct Wanted {
    what: Request,
    reply: oneshot::Sender<Vec<u8>>,
}

/// The desktop's pixels, on request. Cheap to clone.
#[derive(Clone)]
pub struct Pixels(Mailbox<Wanted>);

impl Pixels {
    /// Starts the capture thread. It ends with the X server or with the last `Pixels`.
    pub fn capture(address: &DisplayAddress, reporter: Reporter) -> Result<Self> {
        let (sender, post) = mailbox()?;
        let capture = Capture::new(address)?;
        std::thread::Builder::new().name("capture".into()).spawn(move || {
            if let Err(error) = run(capture, &post, &reporter) {
                reporter.note(&format!("the capture of the desktop ended: {error:#}"));
            }
        })?;
        Ok(Self(sender))
    }
}

/// Answers the host's requests on its frame stream until the stream ends.
pub async fn serve_frames(stream: LinkStream, pixels: Pixels) -> Result<(), LinkError> {
    let (mut requests, mut answers) = tokio::io::split(stream);
    let (queue, mut replies) = tokio::sync::mpsc::channel::<oneshot::Receiver<Vec<u8>>>(4);
    let read = async move {
        loop {
            let mut byte = [0; 1];
            if requests.read(&mut byte).await? == 0 {
                return Ok(());
            }
            let Ok(what) = Request::try_from(byte[0]) else { return Err(LinkError::Closed) };
            let (reply, answer) = oneshot::channel();
            if !pixels.0.send(Wanted { what, reply }) || queue.send(answer).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some(answer) = replies.recv().await {
            // The capture thread is gone with its X server: the session is ending.
            let Ok(bytes) = answer.await else { return Ok(()) };
            answers.write_all(&bytes).await?;
            answers.flush().await?;
        }
        Ok::<(), LinkError>(())
    };
    tokio::try_join!(read, write).map(|_| ())
}

fn run(mut capture: Capture, post: &Post<Wanted>, reporter: &Reporter) -> Result<()> {
    let mut open: Option<oneshot::Sender<Vec<u8>>> = None;
    // What was on the screen before we came has to be sent too.
    let mut damaged = true;
    let mut cursor_changed = true;
    loop {
        loop {
            match post.take() {
                Letter::Message(wanted) => {
                    if let Some(earlier) = open.take() {
                        let _ = earlier.send(capture.nothing()?);
                    }
                    match wanted.what {
                        Request::Changes => open = Some(wanted.reply),
                        Request::Everything => {
                            damaged = false;
                            let _ = wanted.reply.send(capture.everything()?);
                        }
                    }
                }
                Letter::Empty => break,
                Letter::Closed => return Ok(()),
            }
        }
        let changes = capture.changes()?;
        damaged |= changes.damage;
        cursor_changed |= changes.cursor;
        if cursor_changed {
            cursor_changed = false;
            if let Some(image) = cursor::image(&capture)? {
                reporter.offer(GuestMessage::Cursor(image));
            }
        }
        if damaged && let Some(reply) = open.take() {
            damaged = false;
            let _ = reply.send(capture.damaged()?);
        }
        // Answers from X may have carried events along; those are not on the socket any more.
        let more = capture.changes()?;
        damaged |= more.damage;
        cursor_changed |= more.cursor;
        if !(cursor_changed || damaged && open.is_some()) {
            post.wait(capture.fd())?;
        }
    }
}
