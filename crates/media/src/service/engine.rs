//! The task: takes what happens, and starts what can be started.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Sender as JobSender;
use std::time::{Duration, Instant};

use anteroom_guest_protocol::frames::Request;
use anteroom_guest_protocol::input::InputEvent;
use anteroom_session::{AccessGrant, HolderGeneration};
use tokio::sync::{mpsc, oneshot};

use super::pacing::Pacing;
use super::worker::{Done, EncodeJob, Encoded, Job, WorkerError};
use super::{Command, Counters, MediaDemux, MediaEvent, OfferAccepted, ScreenshotError};
use crate::frame_source::{Frame, FrameSource, FrameSourceError, Origin};
use crate::peer::{OfferError, Peer, PeerConfig, PeerEvent, cursor_message};

/// A viewer that was answered has this long to connect.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// After this long without a change the connection rests.
const QUIET_AFTER: Duration = Duration::from_secs(1);
/// How long after the last frame a wish for a key frame only says that nothing came: libwebrtc
/// takes a stream for broken that had packets within 5 s and no frame for 3 s, and asks up to twice
/// until it counts the stream as paused (`VideoReceiveStream2::HandleFrameBufferTimeout`). What was
/// lost is asked for sooner: padding follows each change for [`QUIET_AFTER`] and shows the gap.
const ASKS_OUT_OF_SILENCE: std::ops::Range<Duration> =
    Duration::from_millis(2500)..Duration::from_millis(8000);
/// How soon a full input queue of the guest is tried again.
const RELEASE_RETRY: Duration = Duration::from_millis(50);
/// No estimate makes the encoder aim lower, in bits a second.
const MIN_BITRATE_BPS: u64 = 150_000;

pub(super) struct Engine {
    peers: PeerConfig,
    media_demux: Box<dyn MediaDemux>,
    input: mpsc::Sender<InputEvent>,
    events: mpsc::Sender<MediaEvent>,
    jobs: JobSender<Job>,
    counters: Arc<Counters>,
    viewer: Option<Viewer>,
    viewers: u64,
    /// Links before this one are revoked.
    oldest: HolderGeneration,
    source: Source,
    /// Whose the last frame is. A picture of before is no screenshot.
    shown: Origin,
    /// Whether a viewer was shown what the guest itself shows.
    was_live: bool,
    encoder: EncoderState,
    /// A guest's frame that waits for the encoder.
    fresh: Option<Frame>,
    spare: Frame,
    screenshots: Vec<oneshot::Sender<Result<Vec<u8>, ScreenshotError>>>,
    cursor: Option<String>,
    /// The guest's input queue was full when all keys had to be let go.
    owes_release: bool,
}

struct Viewer {
    id: u64,
    right: AccessGrant,
    peer: Peer,
    state: ViewerState,
    bitrate_bps: u64,
    pacing: Pacing,
    refine_at: Option<Instant>,
    last_frame: Option<Instant>,
    last_served: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ViewerState {
    Connecting { until: Instant },
    NeedsKey { first: bool },
    Watching,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Nothing is asked: the screen may be out of date.
    Stale,
    /// An answer came just now and nothing is asked yet.
    Answered,
    /// All was asked for.
    AskedEverything,
    /// Changes were asked for: until they come the screen is up to date.
    AskedChanges,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EncoderState {
    Free,
    /// At work on a screen that shows this.
    Busy(Origin),
}

type Pulled = (Frame, Result<(), FrameSourceError>);

impl Engine {
    pub(super) fn new(
        peers: PeerConfig,
        media_demux: Box<dyn MediaDemux>,
        input: mpsc::Sender<InputEvent>,
        events: mpsc::Sender<MediaEvent>,
        jobs: JobSender<Job>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            peers,
            media_demux,
            input,
            events,
            jobs,
            counters,
            viewer: None,
            viewers: 0,
            oldest: HolderGeneration::FIRST,
            source: Source::Stale,
            shown: Origin::Guest,
            was_live: false,
            encoder: EncoderState::Free,
            fresh: None,
            spare: Frame::default(),
            screenshots: Vec::new(),
            cursor: None,
            owes_release: false,
        }
    }

    /// Runs until all handles are gone.
    pub(super) async fn run(
        mut self,
        frames: impl FrameSource,
        mut commands: mpsc::Receiver<Command>,
        mut datagrams: mpsc::Receiver<(SocketAddr, Vec<u8>)>,
        mut results: mpsc::UnboundedReceiver<Done>,
    ) {
        let (ask, asked) = mpsc::channel(1);
        let (answer, mut pulled) = mpsc::channel(1);
        let puller = tokio::spawn(pull(frames, asked, answer));
        loop {
            self.serve_viewer(now());
            self.start_work(now(), &ask);
            let wake = self.wake_at(now());
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.command(command, now()),
                    None => break,
                },
                Some((from, bytes)) = datagrams.recv() => {
                    self.datagram(from, &bytes);
                    // What else has come is taken before the next look around.
                    while let Ok((from, bytes)) = datagrams.try_recv() {
                        self.datagram(from, &bytes);
                    }
                }
                Some((frame, result)) = pulled.recv() => self.pulled(frame, result),
                Some(done) = results.recv() => self.done(done, now()),
                () = sleep_until(wake) => {}
            }
        }
        self.dismiss(now());
        puller.abort();
    }

    fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Offer(sdp, right, reply) => {
                // Whoever asked and is gone needs no answer.
                let _ = reply.send(self.offer(&sdp, right, now));
            }
            Command::Revoke(oldest) => self.revoke_before(oldest, now),
            Command::Dismiss(ufrag) => {
                if self.viewer.as_ref().is_some_and(|viewer| viewer.peer.ufrag() == ufrag) {
                    self.dismiss(now);
                }
            }
            Command::Cursor(image) => match cursor_message(&image) {
                Ok(message) => {
                    if let Some(viewer) = &mut self.viewer {
                        viewer.peer.cursor(message.clone(), now);
                    }
                    self.cursor = Some(message);
                }
                Err(error) => tracing::warn!(%error, "the guest's pointer cannot be shown"),
            },
            Command::Screenshot(reply) if self.source == Source::Failed => {
                let _ = reply.send(Err(ScreenshotError::NoFrames));
            }
            Command::Screenshot(reply) => self.screenshots.push(reply),
        }
    }

    fn offer(
        &mut self,
        sdp: &str,
        right: AccessGrant,
        now: Instant,
    ) -> Result<OfferAccepted, OfferError> {
        if right.is_before(self.oldest) {
            return Err(OfferError::Revoked(right));
        }
        let (peer, answer_sdp) = Peer::answer(sdp, &self.peers, now)?;
        self.dismiss(now);
        self.viewers += 1;
        let ufrag = peer.ufrag().to_owned();
        let bitrate_bps = self.peers.start_bitrate_bps.max(MIN_BITRATE_BPS);
        self.counters.bitrate_bps.store(bitrate_bps, Relaxed);
        self.viewer = Some(Viewer {
            id: self.viewers,
            right,
            peer,
            state: ViewerState::Connecting { until: now + CONNECT_DEADLINE },
            bitrate_bps,
            pacing: Pacing::default(),
            refine_at: None,
            last_frame: None,
            last_served: now,
        });
        Ok(OfferAccepted { answer_sdp, ufrag })
    }

    fn revoke_before(&mut self, oldest: HolderGeneration, now: Instant) {
        self.oldest = self.oldest.max(oldest);
        if self.viewer.as_ref().is_some_and(|viewer| viewer.right.is_before(self.oldest)) {
            self.dismiss(now);
        }
    }

    fn datagram(&mut self, from: SocketAddr, bytes: &[u8]) {
        // The media demultiplexer listens on all addresses; which one a datagram came to matters to no one
        // but the ICE agent, and to that only as one of those it offered.
        let same_family = |to: &&SocketAddr| to.is_ipv4() == from.is_ipv4();
        let candidates = &self.peers.candidates;
        let Some(to) = candidates.iter().find(same_family).or(candidates.first()).copied() else {
            return;
        };
        if let Some(viewer) = &mut self.viewer {
            viewer.peer.datagram(from, to, bytes, now());
        }
    }

    fn pulled(&mut self, frame: Frame, result: Result<(), FrameSourceError>) {
        match result {
            Ok(()) => {
                self.source = Source::Answered;
                self.shown = frame.origin();
                if self.shown == Origin::Guest {
                    self.counters.guest_frames.fetch_add(1, Relaxed);
                }
                self.fresh = Some(frame);
            }
            Err(error) => {
                self.source = Source::Failed;
                for reply in self.screenshots.drain(..) {
                    let _ = reply.send(Err(ScreenshotError::NoFrames));
                }
                self.report(MediaEvent::FrameSourceFailed(error));
            }
        }
    }

    fn done(&mut self, done: Done, now: Instant) {
        match done {
            Done::Applied(frame, result) => {
                self.spare = frame;
                if let Err(error) = result {
                    self.report(MediaEvent::EncoderFailed(WorkerError::Screen(error)));
                }
            }
            Done::Encoded(encoded) => self.encoded(encoded, now),
        }
    }

    fn encoded(&mut self, encoded: Encoded, now: Instant) {
        let shows = std::mem::replace(&mut self.encoder, EncoderState::Free);
        self.spare = encoded.spare.unwrap_or_default();
        self.counters.encode_micros.fetch_add(encoded.micros, Relaxed);
        let viewer = self.viewer.as_mut().filter(|viewer| viewer.id == encoded.viewer);
        match (encoded.result, viewer) {
            (Ok(Some(frame)), Some(viewer)) => {
                let bytes = frame.data.len();
                self.counters.frames.fetch_add(1, Relaxed);
                self.counters.key_frames.fetch_add(u64::from(frame.key), Relaxed);
                self.counters.bytes.fetch_add(bytes as u64, Relaxed);
                viewer.pacing.sent(now, bytes, frame.key, viewer.bitrate_bps);
                viewer.refine_at = encoded.refine_at;
                viewer.last_frame = Some(now);
                viewer.peer.resume();
                let first = frame.key && viewer.state == (ViewerState::NeedsKey { first: true });
                if frame.key && matches!(viewer.state, ViewerState::NeedsKey { .. }) {
                    viewer.state = ViewerState::Watching;
                }
                viewer.peer.frame(frame, encoded.captured, now);
                if first {
                    self.report(MediaEvent::FirstFrameSent);
                }
                self.live(shows);
            }
            (Ok(None), Some(viewer)) => {
                viewer.refine_at = encoded.refine_at;
                // Nothing is left to send: what the viewer has is what the guest shows, to the last pixel.
                if viewer.refine_at.is_none() {
                    self.live(shows);
                }
            }
            (Ok(_), None) => {}
            (Err(error), viewer) => {
                if let Some(viewer) = viewer {
                    viewer.refine_at = None;
                    // No viewer needs a key frame of a screen that cannot be encoded: the next
                    // change makes one anyway.
                    viewer.state = ViewerState::Watching;
                }
                self.report(MediaEvent::EncoderFailed(error));
            }
        }
    }

    /// The viewer has what such a screen shows.
    fn live(&mut self, shows: EncoderState) {
        if shows == EncoderState::Busy(Origin::Guest) && !self.was_live {
            self.was_live = true;
            self.report(MediaEvent::LiveFrameShown);
        }
    }

    /// Sends what the connection has to send and takes what it has to say.
    fn serve_viewer(&mut self, now: Instant) {
        if self.owes_release && self.input.try_send(InputEvent::ReleaseAll {}).is_ok() {
            self.owes_release = false;
        }
        let Some(viewer) = &mut self.viewer else { return };
        if viewer.peer.next_timeout() <= now {
            viewer.peer.timeout(now);
        }
        viewer.last_served = now;
        if viewer.is_quiet() {
            viewer.peer.rest();
        }
        let mut gone = matches!(viewer.state, ViewerState::Connecting { until } if until <= now);
        let mut joined = None;
        while let Some(event) = viewer.peer.poll_event() {
            match event {
                PeerEvent::Connected => {
                    joined = Some(viewer.right.clone());
                    viewer.state = ViewerState::NeedsKey { first: true };
                }
                PeerEvent::Disconnected => gone = true,
                // Before the answer leaves, whose receiver sends what only an address leads here.
                PeerEvent::Authenticated(from) => self.media_demux.authenticated(from),
                PeerEvent::KeyframeRequested
                    if viewer.state == ViewerState::Watching && viewer.misses_a_frame(now) =>
                {
                    viewer.state = ViewerState::NeedsKey { first: false };
                }
                PeerEvent::KeyframeRequested => {}
                PeerEvent::BitrateEstimate(bps) => {
                    viewer.bitrate_bps = bps.max(MIN_BITRATE_BPS);
                    self.counters.bitrate_bps.store(viewer.bitrate_bps, Relaxed);
                }
                // A guest that does not take input loses some; it never grows a queue here.
                PeerEvent::Input(event) => drop(self.input.try_send(event)),
                PeerEvent::CursorChannelOpen => {
                    if let Some(message) = &self.cursor {
                        viewer.peer.cursor(message.clone(), now);
                    }
                }
            }
        }
        send_all(&mut viewer.peer, &mut *self.media_demux, &self.counters);
        if let Some(right) = joined {
            self.report(MediaEvent::ViewerJoined(right));
        }
        if gone {
            self.dismiss(now);
        }
    }

    /// Sends the viewer away, if there is one.
    fn dismiss(&mut self, now: Instant) {
        let Some(mut viewer) = self.viewer.take() else { return };
        viewer.peer.close(now);
        send_all(&mut viewer.peer, &mut *self.media_demux, &self.counters);
        let _ = self.jobs.send(Job::Forget);
        if !matches!(viewer.state, ViewerState::Connecting { .. }) {
            self.owes_release = self.input.try_send(InputEvent::ReleaseAll {}).is_err();
            self.report(MediaEvent::ViewerLeft);
        }
    }

    /// Asks the guest, the encoder or both for what is due.
    fn start_work(&mut self, now: Instant, ask: &mpsc::Sender<(Request, Frame)>) {
        match &self.viewer {
            Some(viewer) if viewer.state.is_connected() => self.encode_if_due(now),
            _ => {
                if let Some(frame) = self.fresh.take() {
                    let _ = self.jobs.send(Job::Apply(frame));
                }
            }
        }
        self.take_screenshots();
        if self.source == Source::Answered && self.fresh.is_none() && !self.is_watched() {
            self.source = Source::Stale;
        }
        if let Some(request) = self.request(now) {
            let frame = std::mem::take(&mut self.spare);
            // The channel is empty: there is one request at a time.
            if ask.try_send((request, frame)).is_ok() {
                self.source = match request {
                    Request::Changes => Source::AskedChanges,
                    Request::Everything => Source::AskedEverything,
                };
            }
        }
    }

    fn encode_if_due(&mut self, now: Instant) {
        if self.encoder != EncoderState::Free || self.encode_at().is_none_or(|at| at > now) {
            return;
        }
        let Some(viewer) = &mut self.viewer else { return };
        let force_key =
            viewer.state.needs_key() && viewer.pacing.next_key().is_none_or(|at| at <= now);
        viewer.pacing.begin(now);
        viewer.refine_at = None;
        let job = EncodeJob {
            frame: self.fresh.take(),
            viewer: viewer.id,
            codec: viewer.peer.codec(),
            bitrate_bps: viewer.bitrate_bps,
            force_key,
            now,
        };
        self.encoder = EncoderState::Busy(self.shown);
        let _ = self.jobs.send(Job::Encode(job));
    }

    /// When there will be something to encode, as far as is known now.
    fn encode_at(&self) -> Option<Instant> {
        let viewer = self.viewer.as_ref().filter(|viewer| viewer.state.is_connected())?;
        let next_frame = viewer.pacing.next_frame();
        if self.fresh.is_some() {
            return Some(next_frame.unwrap_or(viewer.last_served));
        }
        let key = (viewer.state.needs_key() && self.is_current())
            .then(|| viewer.pacing.next_key().unwrap_or(viewer.last_served));
        let refine = viewer.refine_at.map(|at| next_frame.map_or(at, |next| at.max(next)));
        [key, refine].into_iter().flatten().min()
    }

    /// Whether the screen shows what the guest shows.
    fn is_current(&self) -> bool {
        self.source == Source::AskedChanges && self.fresh.is_none()
    }

    fn take_screenshots(&mut self) {
        let current = matches!(self.source, Source::AskedChanges | Source::Answered);
        if self.fresh.is_some() || !current || self.shown == Origin::Picture {
            return;
        }
        for reply in self.screenshots.drain(..) {
            let (png, made) = oneshot::channel();
            let _ = self.jobs.send(Job::Png(png));
            tokio::spawn(async move {
                let result = made.await.map_err(|_| ScreenshotError::Ended);
                // Whoever asked may be gone.
                let _ = reply.send(result.and_then(|png| Ok(png?)));
            });
        }
    }

    /// What to ask the guest for now.
    fn request(&self, now: Instant) -> Option<Request> {
        match self.source {
            Source::AskedEverything | Source::AskedChanges | Source::Failed => None,
            Source::Stale => {
                (self.is_watched() || !self.screenshots.is_empty()).then_some(Request::Everything)
            }
            Source::Answered => {
                self.ask_at().is_some_and(|at| at <= now).then_some(Request::Changes)
            }
        }
    }

    /// When changes can be asked for: as late as can be, so that they are fresh when encoded.
    fn ask_at(&self) -> Option<Instant> {
        let viewer = self.viewer.as_ref().filter(|viewer| viewer.state.is_connected())?;
        let waits = self.encoder == EncoderState::Free && self.fresh.is_none();
        (waits && self.source == Source::Answered)
            .then(|| viewer.pacing.next_frame().unwrap_or(viewer.last_served))
    }

    fn is_watched(&self) -> bool {
        self.viewer.as_ref().is_some_and(|viewer| viewer.state.is_connected())
    }

    fn wake_at(&self, now: Instant) -> Option<Instant> {
        let release = self.owes_release.then_some(now + RELEASE_RETRY);
        let Some(viewer) = &self.viewer else { return release };
        let timers = viewer.peer.next_timeout();
        let until = match viewer.state {
            ViewerState::Connecting { until } => Some(until),
            ViewerState::NeedsKey { .. } | ViewerState::Watching => None,
        };
        let encode = self.encode_at().filter(|_| self.encoder == EncoderState::Free);
        [Some(timers), until, encode, self.ask_at(), release].into_iter().flatten().min()
    }

    fn report(&self, event: MediaEvent) {
        if let Err(error) = self.events.try_send(event) {
            tracing::warn!(%error, "a media event was dropped");
        }
    }
}

impl Viewer {
    fn is_quiet(&self) -> bool {
        self.last_frame.is_some_and(|at| at + QUIET_AFTER < self.last_served)
    }

    /// Whether a wish for a key frame now means that one is missed, see [`ASKS_OUT_OF_SILENCE`].
    fn misses_a_frame(&self, now: Instant) -> bool {
        !self
            .last_frame
            .is_some_and(|at| ASKS_OUT_OF_SILENCE.contains(&now.saturating_duration_since(at)))
    }
}

impl ViewerState {
    fn is_connected(self) -> bool {
        !matches!(self, Self::Connecting { .. })
    }

    fn needs_key(self) -> bool {
        matches!(self, Self::NeedsKey { .. })
    }
}

/// Pulls frames, one at a time, until nobody asks any more or the source fails.
async fn pull(
    mut frames: impl FrameSource,
    mut asked: mpsc::Receiver<(Request, Frame)>,
    answer: mpsc::Sender<Pulled>,
) {
    while let Some((request, mut frame)) = asked.recv().await {
        let result = frames.next(request, &mut frame).await;
        let failed = result.is_err();
        if answer.send((frame, result)).await.is_err() || failed {
            return;
        }
    }
}

fn send_all(peer: &mut Peer, media_demux: &mut dyn MediaDemux, counters: &Counters) {
    while let Some(transmit) = peer.poll_transmit() {
        // A full socket loses datagrams as a full link does: the viewer asks again.
        if media_demux.send(transmit.to, &transmit.bytes).is_err() {
            counters.lost_datagrams.fetch_add(1, Relaxed);
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
