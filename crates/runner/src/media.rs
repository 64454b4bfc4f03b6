//! The viewers' media: from the guest link to the media demultiplexer and back.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram as StdUnixDatagram;
use std::time::{Duration, Instant};

use anteroom_fail_point::fail_point;
use anteroom_guest_link::{LinkStream, Opener, chain, write_message};
use anteroom_guest_protocol::input::InputEvent;
use anteroom_guest_protocol::{MAX_INPUT_MESSAGE, StreamKind};
use anteroom_guest_session::link_failed;
use anteroom_media::frame_source::{AwaitedFrames, Frame, LinkFrameSource};
use anteroom_media::service::{MediaConfig, MediaDemux, MediaEvent, MediaHandle, spawn};
use anteroom_runner_protocol::datagram;
use anteroom_session::{EndReason, Observation, SetupStep};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::net::UnixDatagram;
use tokio::sync::{mpsc, oneshot};

use super::controller_link::ControllerSender;

/// Bits a second of video: where congestion control starts, and its bound.
const START_BITRATE: u64 = 8_000_000;
const MAX_BITRATE: u64 = 12_000_000;

/// How often the end user's input is reported.
const REPORT_ACTIVITY: Duration = Duration::from_secs(5);

/// A guest that viewers are not connected with yet.
pub struct Unconnected {
    frames: oneshot::Sender<LinkFrameSource<LinkStream>>,
    input: oneshot::Sender<LinkStream>,
}

impl Unconnected {
    /// Opens the frame and input streams: what viewers see and do is the guest's from now on.
    pub async fn connect(self, opener: &Opener) -> Result<(), EndReason> {
        let frames = opener.open(StreamKind::Frames).await.map_err(link_failed)?;
        let input = opener.open(StreamKind::Input).await.map_err(link_failed)?;
        // Who takes them is gone when the session has ended, which is reported elsewhere.
        let _ = self.frames.send(LinkFrameSource::new(frames));
        let _ = self.input.send(input);
        Ok(())
    }
}

/// Starts serving viewers, who see the picture (a PNG in base64), where there is one, until the guest is
/// connected.
pub fn start(
    candidates: Vec<SocketAddr>,
    picture: Option<&str>,
    from_media_demux: StdUnixDatagram,
    sender: &ControllerSender,
) -> Result<(MediaHandle, mpsc::Receiver<MediaEvent>, Unconnected), EndReason> {
    let failed =
        |cause: String| EndReason::SessionSetupFailed { step: SetupStep::StartMedia, cause };
    let picture = picture.map(shown).transpose().map_err(failed)?;
    let (source, frames) = AwaitedFrames::new(picture);
    let (input_stream, connected) = oneshot::channel();
    fail_point("runner.media").map_err(|error| failed(error.to_string()))?;
    from_media_demux.set_nonblocking(true).map_err(|error| failed(error.to_string()))?;
    let to_media_demux = from_media_demux.try_clone().map_err(|error| failed(error.to_string()))?;
    let media_config = MediaConfig {
        candidates,
        media_demux: Box::new(ToMediaDemux(to_media_demux)),
        max_bitrate_bps: MAX_BITRATE,
        start_bitrate_bps: START_BITRATE,
    };
    let media = spawn(media_config, source).map_err(|error| failed(chain(&error)))?;
    let from_media_demux =
        UnixDatagram::from_std(from_media_demux).map_err(|error| failed(error.to_string()))?;
    sender.count(media.handle.clone());
    tokio::task::spawn_local(take_datagrams(from_media_demux, media.handle.clone()));
    tokio::task::spawn_local(send_input(media.input, connected, sender.clone()));
    Ok((media.handle, media.events, Unconnected { frames, input: input_stream }))
}

/// The picture as a frame, or a sentence why it is none.
fn shown(picture: &str) -> Result<Frame, String> {
    let png = STANDARD.decode(picture).map_err(|error| chain(&error))?;
    Frame::from_png(&png).map_err(|error| chain(&error))
}

/// The runner's end of the socket to the media demultiplexer.
struct ToMediaDemux(StdUnixDatagram);

impl MediaDemux for ToMediaDemux {
    fn authenticated(&mut self, from: SocketAddr) {
        // Where the demultiplexer does not keep up, the viewer's next request is reported.
        let _ = self.0.send(&datagram::encode(from, &[]));
    }

    fn send(&mut self, to: SocketAddr, packet: &[u8]) -> std::io::Result<()> {
        self.0.send(&datagram::encode(to, packet)).map(drop)
    }
}

async fn take_datagrams(socket: UnixDatagram, media: MediaHandle) {
    let mut buffer = vec![0; datagram::MAX_LEN];
    while let Ok(length) = socket.recv(&mut buffer).await {
        if length == 0 {
            return;
        }
        if let Some((from, payload)) = datagram::decode(&buffer[..length]) {
            media.datagram(from, payload.to_vec());
        }
    }
}

/// Carries input to the guest once that is connected, and reports now and then that there is some.
async fn send_input(
    mut input: mpsc::Receiver<InputEvent>,
    connected: oneshot::Receiver<LinkStream>,
    sender: ControllerSender,
) {
    // What was meant for a guest that nobody saw yet is nobody's.
    let mut connected = connected;
    let mut stream = loop {
        tokio::select! {
            biased;
            stream = &mut connected => match stream {
                Ok(stream) => break stream,
                Err(_) => return,
            },
            Some(_) = input.recv() => {}
        }
    };
    let mut reported: Option<Instant> = None;
    while let Some(event) = input.recv().await {
        let by_end_user = !matches!(event, InputEvent::ReleaseAll {});
        // The link's end is noticed and reported by the task that reads the guest's messages.
        if write_message(&mut stream, &event, MAX_INPUT_MESSAGE).await.is_err() {
            return;
        }
        if by_end_user && reported.is_none_or(|reported| reported.elapsed() >= REPORT_ACTIVITY) {
            reported = Some(Instant::now());
            sender.observed(Observation::EndUserActive).await;
        }
    }
}
