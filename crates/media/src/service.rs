//! One session's media: a task that joins guest, encoder and viewer.
//!
//! Everything is pulled. A frame is asked of the guest when a viewer is there, the encoder is free
//! and the frame before has left; so nothing queues, and a still desktop or an absent viewer costs
//! nothing.

mod engine;
mod pacing;
#[cfg(test)]
mod tests;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anteroom_guest_protocol::CursorImage;
use anteroom_guest_protocol::input::InputEvent;
use anteroom_session::{AccessGrant, HolderGeneration};
use tokio::sync::{mpsc, oneshot};

use crate::frame_source::{FrameSource, FrameSourceError};
use crate::peer::{OfferError, PeerConfig};
use crate::screen::ScreenError;
use engine::Engine;
pub use worker::WorkerError;

/// Datagrams that may wait; more are lost, as on any full link.
const DATAGRAM_QUEUE: usize = 512;
const COMMAND_QUEUE: usize = 32;
const INPUT_QUEUE: usize = 1024;
const EVENT_QUEUE: usize = 64;

/// The way out to viewers: whoever holds the port that they reach.
pub trait MediaDemux: Send + 'static {
    /// A request from this address was authentic; said before it is answered.
    fn authenticated(&mut self, from: SocketAddr);

    /// Sends a packet to a viewer, without waiting.
    ///
    /// # Errors
    /// When it could not be taken; it is lost then.
    fn send(&mut self, to: SocketAddr, packet: &[u8]) -> std::io::Result<()>;
}

/// What a session's media needs.
pub struct MediaConfig {
    /// The addresses at which viewers reach the media demultiplexer.
    pub candidates: Vec<SocketAddr>,
    /// The way out to them.
    pub media_demux: Box<dyn MediaDemux>,
    /// Bits a second never to exceed.
    pub max_bitrate_bps: u64,
    /// Bits a second to start with.
    pub start_bitrate_bps: u64,
}

/// A session's media service that runs. It ends when the last [`MediaHandle`] is dropped.
pub struct Media {
    /// Talks to it.
    pub handle: MediaHandle,
    /// What the end user does. [`InputEvent::ReleaseAll`] comes when a viewer leaves.
    pub input: mpsc::Receiver<InputEvent>,
    /// What happens.
    pub events: mpsc::Receiver<MediaEvent>,
    /// The task.
    pub task: tokio::task::JoinHandle<()>,
}

/// Talks to a session's media service.
#[derive(Clone, Debug)]
pub struct MediaHandle {
    commands: mpsc::Sender<Command>,
    datagrams: mpsc::Sender<(SocketAddr, Vec<u8>)>,
    counters: Arc<Counters>,
}

/// An offer that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferAccepted {
    /// The answer.
    pub answer_sdp: String,
    /// The first STUN packets of this viewer carry it: route them here.
    pub ufrag: String,
}

/// What happens in a session's media.
#[derive(Debug)]
pub enum MediaEvent {
    /// A viewer's connection is up.
    ViewerJoined(AccessGrant),
    /// It was sent its first frame: of the guest, or a picture of before.
    FirstFrameSent,
    /// For the first time a viewer has what the guest itself shows. Once.
    LiveFrameShown,
    /// It is gone.
    ViewerLeft,
    /// No more frames come from the guest.
    FrameSourceFailed(FrameSourceError),
    /// A frame could not be encoded; the next ones are tried.
    EncoderFailed(WorkerError),
}

/// What a session's media did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediaStats {
    /// Frames encoded.
    pub frames: u64,
    /// Of these, key frames.
    pub key_frames: u64,
    /// Bytes of all frames.
    pub bytes: u64,
    /// Time of the encoder's thread, in microseconds.
    pub encode_micros: u64,
    /// Frames that the guest sent.
    pub guest_frames: u64,
    /// Datagrams that could not be sent or taken.
    pub lost_datagrams: u64,
    /// The present estimate of what the viewer's network carries, in bits a second.
    pub bitrate_bps: u64,
}

/// A picture of the desktop that could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum ScreenshotError {
    /// The guest sends no frames any more.
    #[error("the guest has stopped sending frames")]
    NoFrames,
    /// The picture could not be made.
    #[error("taking a picture of the desktop failed")]
    Screen(#[from] ScreenError),
    /// The session has ended.
    #[error("the session's media service has ended")]
    Ended,
}

/// The service could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The encoder's thread.
    #[error("starting the encoder's thread failed")]
    Thread(#[source] std::io::Error),
}

enum Command {
    Offer(String, AccessGrant, oneshot::Sender<Result<OfferAccepted, OfferError>>),
    Revoke(HolderGeneration),
    Dismiss(String),
    Cursor(Box<CursorImage>),
    Screenshot(oneshot::Sender<Result<Vec<u8>, ScreenshotError>>),
}

#[derive(Debug, Default)]
struct Counters {
    frames: AtomicU64,
    key_frames: AtomicU64,
    bytes: AtomicU64,
    encode_micros: AtomicU64,
    guest_frames: AtomicU64,
    lost_datagrams: AtomicU64,
    bitrate_bps: AtomicU64,
}

/// Starts a session's media service on the current tokio runtime.
///
/// # Errors
/// When the encoder's thread cannot be started.
pub fn spawn(config: MediaConfig, frames: impl FrameSource) -> Result<Media, StartError> {
    let MediaConfig { candidates, media_demux, max_bitrate_bps, start_bitrate_bps } = config;
    let (commands, command_queue) = mpsc::channel(COMMAND_QUEUE);
    let (datagrams, datagram_queue) = mpsc::channel(DATAGRAM_QUEUE);
    let (input_queue, input) = mpsc::channel(INPUT_QUEUE);
    let (event_queue, events) = mpsc::channel(EVENT_QUEUE);
    let counters = Arc::new(Counters::default());
    let (done, results) = mpsc::unbounded_channel();
    let jobs = worker::start(done).map_err(StartError::Thread)?;
    let peers = PeerConfig { candidates, start_bitrate_bps, max_bitrate_bps };
    let engine =
        Engine::new(peers, media_demux, input_queue, event_queue, jobs, Arc::clone(&counters));
    let task = tokio::spawn(engine.run(frames, command_queue, datagram_queue, results));
    Ok(Media { handle: MediaHandle { commands, datagrams, counters }, input, events, task })
}

impl MediaHandle {
    /// Answers a viewer's offer. The viewer before it, if any, is sent away.
    ///
    /// # Errors
    /// When the offer cannot be answered, or the viewer's right was revoked; the viewer before then
    /// stays.
    pub async fn offer(
        &self,
        sdp: String,
        viewer: AccessGrant,
    ) -> Result<OfferAccepted, OfferError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(Command::Offer(sdp, viewer, reply))
            .await
            .map_err(|_| OfferError::Ended)?;
        answer.await.map_err(|_| OfferError::Ended)?
    }

    /// Sends the viewer away whose link is of a generation before `oldest`, and answers none of theirs
    /// from now on.
    pub async fn revoke_before(&self, oldest: HolderGeneration) {
        // A session that is over shows nothing.
        let _ = self.commands.send(Command::Revoke(oldest)).await;
    }

    /// Sends the viewer away whose offer was answered with this user fragment, if they are still the one.
    pub async fn dismiss(&self, ufrag: String) {
        // A session that is over shows nothing.
        let _ = self.commands.send(Command::Dismiss(ufrag)).await;
    }

    /// Hands over a datagram from the media demultiplexer. Too many are lost, as on any full link.
    pub fn datagram(&self, from: SocketAddr, bytes: Vec<u8>) {
        if self.datagrams.try_send((from, bytes)).is_err() {
            self.counters.lost_datagrams.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Shows the viewer another pointer.
    pub async fn cursor(&self, image: CursorImage) {
        // A session that is over shows no pointer.
        let _ = self.commands.send(Command::Cursor(Box::new(image))).await;
    }

    /// A PNG of the desktop, also when no viewer is there.
    ///
    /// # Errors
    /// When the guest has stopped sending frames.
    pub async fn screenshot(&self) -> Result<Vec<u8>, ScreenshotError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Screenshot(reply)).await.map_err(|_| ScreenshotError::Ended)?;
        answer.await.map_err(|_| ScreenshotError::Ended)?
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> MediaStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        MediaStats {
            frames: of(&counters.frames),
            key_frames: of(&counters.key_frames),
            bytes: of(&counters.bytes),
            encode_micros: of(&counters.encode_micros),
            guest_frames: of(&counters.guest_frames),
            lost_datagrams: of(&counters.lost_datagrams),
            bitrate_bps: of(&counters.bitrate_bps),
        }
    }
}
