//! The encoder's thread: a frame takes milliseconds, and input must not wait that long.

use std::sync::mpsc;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::blocks::Blocks;
use crate::encoder::{EncodeError, EncodedFrame, Encoder};
use crate::frame_source::Frame;
use crate::refinement::Refinement;
use crate::screen::{Screen, ScreenError};
use crate::vpx::Codec;

/// What the thread is to do.
pub(super) enum Job {
    /// Show the frame on the screen, if any, and encode what changed.
    Encode(EncodeJob),
    /// Show the frame on the screen.
    Apply(Frame),
    /// Give a picture of the screen.
    Png(oneshot::Sender<Result<Vec<u8>, ScreenError>>),
    /// The viewer left: free the encoder.
    Forget,
}

pub(super) struct EncodeJob {
    pub(super) frame: Option<Frame>,
    pub(super) viewer: u64,
    pub(super) codec: Codec,
    pub(super) bitrate_bps: u64,
    pub(super) force_key: bool,
    pub(super) now: Instant,
}

/// What the thread has done.
pub(super) enum Done {
    Encoded(Encoded),
    /// The frame's memory comes back.
    Applied(Frame, Result<(), ScreenError>),
}

pub(super) struct Encoded {
    /// The frame's memory comes back.
    pub(super) spare: Option<Frame>,
    pub(super) viewer: u64,
    /// When the pixels were there.
    pub(super) captured: Instant,
    /// How long it took, in microseconds.
    pub(super) micros: u64,
    /// When to encode again so that the picture becomes sharper.
    pub(super) refine_at: Option<Instant>,
    pub(super) result: Result<Option<EncodedFrame>, WorkerError>,
}

/// A frame that could not be shown or encoded.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The guest's frame does not fit.
    #[error("showing a frame of the guest failed")]
    Screen(#[from] ScreenError),
    /// The encoder failed.
    #[error("encoding the desktop failed")]
    Encode(#[from] EncodeError),
}

struct Worker {
    screen: Screen,
    encoding: Option<Encoding>,
    start: Instant,
}

struct Encoding {
    encoder: Encoder,
    codec: Codec,
    viewer: u64,
    bitrate_bps: u64,
    refinement: Refinement,
}

/// Starts the thread. It ends when the job sender is dropped.
pub(super) fn start(done: UnboundedSender<Done>) -> std::io::Result<mpsc::Sender<Job>> {
    let (jobs, queue) = mpsc::channel();
    std::thread::Builder::new().name("encoder".into()).spawn(move || {
        let mut worker =
            Worker { screen: Screen::default(), encoding: None, start: Instant::now() };
        for job in queue {
            worker.run(job, &done);
        }
    })?;
    Ok(jobs)
}

impl Worker {
    fn run(&mut self, job: Job, done: &UnboundedSender<Done>) {
        // Whoever is not there any more to take a result has no use for it.
        match job {
            Job::Encode(job) => drop(done.send(Done::Encoded(self.encode(job)))),
            Job::Apply(frame) => {
                let result = self.screen.show(&frame);
                drop(done.send(Done::Applied(frame, result)));
            }
            Job::Png(reply) => drop(reply.send(self.screen.png())),
            Job::Forget => self.encoding = None,
        }
    }

    fn encode(&mut self, job: EncodeJob) -> Encoded {
        let started = Instant::now();
        let applied = job.frame.as_ref().map_or(Ok(()), |frame| self.screen.show(frame));
        let result =
            applied.map_err(WorkerError::from).and_then(|()| Ok(self.encode_screen(&job)?));
        if result.is_err() {
            // The damage was taken and not shown: start over with a key frame.
            self.encoding = None;
        }
        Encoded {
            spare: job.frame,
            viewer: job.viewer,
            captured: job.now,
            micros: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
            refine_at: self.encoding.as_ref().and_then(|encoding| encoding.refinement.due()),
            result,
        }
    }

    fn encode_screen(&mut self, job: &EncodeJob) -> Result<Option<EncodedFrame>, EncodeError> {
        let (width, height) = (self.screen.coded_width(), self.screen.coded_height());
        let fits = |encoding: &Encoding| {
            encoding.viewer == job.viewer
                && encoding.codec == job.codec
                && encoding.encoder.fits(&self.screen)
        };
        let fresh = !self.encoding.as_ref().is_some_and(fits);
        if fresh {
            self.encoding = None;
            let encoder = Encoder::new(job.codec, width, height, job.bitrate_bps)?;
            let (codec, viewer, bitrate_bps) = (job.codec, job.viewer, job.bitrate_bps);
            let refinement = Refinement::default();
            self.encoding = Some(Encoding { encoder, codec, viewer, bitrate_bps, refinement });
        }
        let Some(encoding) = &mut self.encoding else { return Ok(None) };
        // Small corrections are not worth a reconfiguration.
        if encoding.bitrate_bps.abs_diff(job.bitrate_bps) > encoding.bitrate_bps / 20 {
            encoding.encoder.set_bitrate(job.bitrate_bps)?;
            encoding.bitrate_bps = job.bitrate_bps;
        }
        let key = job.force_key || fresh;
        let mut changed = self.screen.take_damage();
        if key {
            changed = Blocks::all(self.screen.width(), self.screen.height());
        }
        let plan = encoding.refinement.plan(job.now, changed, job.bitrate_bps);
        if plan.active.is_empty() {
            return Ok(None);
        }
        let pts = job.now.saturating_duration_since(self.start);
        let frame = encoding.encoder.encode(&self.screen, &plan, key, pts)?;
        // A frame that the encoder left out counts as the coarsest: its blocks are due again.
        let (quantizer, bytes) =
            frame.as_ref().map_or((u8::MAX, 0), |f| (f.quantizer, f.data.len()));
        encoding.refinement.encoded(job.now, &plan, quantizer, bytes, job.bitrate_bps);
        Ok(frame)
    }
}
