use std::net::UdpSocket;
use std::time::Duration;

use anteroom_guest_protocol::frames::{Rect, Request};
use tokio::net::UdpSocket as TokioUdp;
use tokio::time::timeout;

use super::*;
use crate::frame_source::{AwaitedFrames, Frame};
use crate::screen::encode_png;
use crate::testing::TestViewer;

const WIDTH: u16 = 320;
const HEIGHT: u16 = 240;
/// What the guest shows at first, all over.
const GREY: u8 = 60;
/// Long enough for a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// A guest that shows what the test says, when it says so.
struct Guest {
    changes: mpsc::UnboundedReceiver<(Rect, u8)>,
    asked: mpsc::UnboundedSender<Request>,
}

impl FrameSource for Guest {
    async fn next(&mut self, request: Request, frame: &mut Frame) -> Result<(), FrameSourceError> {
        let _ = self.asked.send(request);
        frame.clear(WIDTH, HEIGHT);
        let (rect, grey) = match request {
            Request::Everything => (Rect { x: 0, y: 0, width: WIDTH, height: HEIGHT }, GREY),
            Request::Changes => self.changes.recv().await.ok_or_else(|| FrameSourceError::Io {
                operation: "waiting for a frame",
                source: std::io::ErrorKind::UnexpectedEof.into(),
            })?,
        };
        frame.push(rect, &vec![grey; rect.area() * 4]);
        Ok(())
    }
}

fn link(number: i64) -> AccessGrant {
    AccessGrant::Link { generation: HolderGeneration::from_number(number).unwrap() }
}

/// A media demultiplexer on the loopback; what was authenticated is reported.
struct Loopback(UdpSocket, std::sync::mpsc::Sender<SocketAddr>);

impl MediaDemux for Loopback {
    fn authenticated(&mut self, from: SocketAddr) {
        let _ = self.1.send(from);
    }

    fn send(&mut self, to: SocketAddr, packet: &[u8]) -> std::io::Result<()> {
        self.0.send_to(packet, to).map(drop)
    }
}

struct FakeGuest {
    media: Media,
    change: Option<mpsc::UnboundedSender<(Rect, u8)>>,
    asked: mpsc::UnboundedReceiver<Request>,
    address: SocketAddr,
    authenticated: std::sync::mpsc::Receiver<SocketAddr>,
}

impl FakeGuest {
    /// A service behind a media demultiplexer on the loopback.
    async fn new() -> Self {
        let (change, changes) = mpsc::unbounded_channel();
        let (asked_sender, asked) = mpsc::unbounded_channel();
        let guest = Guest { changes, asked: asked_sender };
        Self::with(guest, change, asked).await
    }

    async fn with(
        frames: impl FrameSource,
        change: mpsc::UnboundedSender<(Rect, u8)>,
        asked: mpsc::UnboundedReceiver<Request>,
    ) -> Self {
        let door = TokioUdp::bind("127.0.0.1:0").await.unwrap();
        let address = door.local_addr().unwrap();
        let door = door.into_std().unwrap();
        let (reported, authenticated) = std::sync::mpsc::channel();
        let config = MediaConfig {
            candidates: vec![address],
            media_demux: Box::new(Loopback(door.try_clone().unwrap(), reported)),
            max_bitrate_bps: 20_000_000,
            start_bitrate_bps: 8_000_000,
        };
        let media = spawn(config, frames).unwrap();
        let handle = media.handle.clone();
        let door = TokioUdp::from_std(door).unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = door.recv_from(&mut buffer).await {
                handle.datagram(from, buffer[..length].to_vec());
            }
        });
        Self { media, change: Some(change), asked, address, authenticated }
    }

    async fn event(&mut self) -> MediaEvent {
        timeout(PATIENCE, self.media.events.recv()).await.unwrap().unwrap()
    }

    /// The first viewer was sent its first frame, which the guest drew.
    async fn is_shown(&mut self) {
        assert!(matches!(self.event().await, MediaEvent::FirstFrameSent));
        assert!(matches!(self.event().await, MediaEvent::LiveFrameShown));
    }

    async fn viewer(&mut self) -> Client {
        self.viewer_by(link(1)).await
    }

    async fn viewer_by(&mut self, right: AccessGrant) -> Client {
        let socket = TokioUdp::bind("127.0.0.1:0").await.unwrap();
        let (mut viewer, offer) =
            TestViewer::new(std::time::Instant::now(), socket.local_addr().unwrap());
        let accepted = self.media.handle.offer(offer, right).await.unwrap();
        assert!(accepted.answer_sdp.contains(&accepted.ufrag));
        viewer.accept(&accepted.answer_sdp);
        Client { viewer, socket, door: self.address, ufrag: accepted.ufrag }
    }
}

struct Client {
    viewer: TestViewer,
    socket: TokioUdp,
    door: SocketAddr,
    ufrag: String,
}

impl Client {
    async fn until(&mut self, mut done: impl FnMut(&TestViewer) -> bool) {
        let mut buffer = [0; 2048];
        let run = async {
            loop {
                for (to, bytes) in self.viewer.drain() {
                    self.socket.send_to(&bytes, to).await.unwrap();
                }
                if done(&self.viewer) {
                    return;
                }
                tokio::select! {
                    got = self.socket.recv_from(&mut buffer) => {
                        let (length, _) = got.unwrap();
                        self.viewer.datagram(self.door, &buffer[..length], std::time::Instant::now());
                    }
                    () = tokio::time::sleep_until(self.viewer.next.into()) => {
                        self.viewer.timeout(std::time::Instant::now());
                    }
                }
            }
        };
        timeout(PATIENCE, run).await.expect("the viewer waited in vain");
    }

    async fn watching(&mut self) {
        self.until(|viewer| !viewer.frames.is_empty() && viewer.channels.len() == 2).await;
    }
}

#[tokio::test]
async fn a_screenshot_needs_no_viewer_and_nothing_else_is_pulled() {
    let mut guest = FakeGuest::new().await;
    let png = timeout(PATIENCE, guest.media.handle.screenshot()).await.unwrap().unwrap();
    assert!(png.starts_with(b"\x89PNG"));
    assert_eq!(guest.asked.recv().await, Some(Request::Everything));
    timeout(PATIENCE, guest.media.handle.screenshot()).await.unwrap().unwrap();
    assert_eq!(guest.asked.recv().await, Some(Request::Everything));
    assert!(guest.asked.try_recv().is_err(), "changes were pulled for no one");
    assert_eq!(guest.media.handle.stats().frames, 0);
}

#[tokio::test]
async fn an_address_is_reported_once_a_request_from_it_is_authentic() {
    let mut guest = FakeGuest::new().await;
    let mut end_user = guest.viewer().await;
    let stranger = TokioUdp::bind("127.0.0.1:0").await.unwrap();
    let mut forged = 0;
    while forged == 0 {
        end_user.viewer.timeout(end_user.viewer.next);
        for (to, mut bytes) in end_user.viewer.drain() {
            end_user.socket.send_to(&bytes, to).await.unwrap();
            // The same request in the middle changed: its integrity says so.
            bytes[10] ^= 1;
            stranger.send_to(&bytes, to).await.unwrap();
            forged += 1;
        }
    }
    end_user.watching().await;
    let reported: Vec<SocketAddr> = guest.authenticated.try_iter().collect();
    let own = end_user.socket.local_addr().unwrap();
    assert!(
        !reported.is_empty() && reported.iter().all(|from| *from == own),
        "{reported:?}, not {own}"
    );
}

#[tokio::test]
async fn a_viewer_sees_changes_sends_input_and_is_replaced() {
    let mut guest = FakeGuest::new().await;
    let pointer =
        CursorImage { width: 0, height: 0, hot_x: 0, hot_y: 0, rgba_base64: String::new() };
    guest.media.handle.cursor(pointer).await;
    let mut first = guest.viewer().await;
    first.watching().await;
    assert!(matches!(guest.event().await, MediaEvent::ViewerJoined(_)));
    guest.is_shown().await;
    first.until(|viewer| !viewer.cursors.is_empty()).await;

    // A change is seen; so is the answer to a lost picture.
    let sent = guest.media.handle.stats().frames;
    let change = guest.change.clone().unwrap();
    change.send((Rect { x: 8, y: 8, width: 40, height: 40 }, 200)).unwrap();
    let handle = guest.media.handle.clone();
    first.until(|_| handle.stats().frames > sent).await;
    first.viewer.ask_for_key_frame();
    first.until(|_| handle.stats().key_frames == 2).await;

    first.viewer.send_input(r#"{"type":"pointer_move","x":1,"y":2}"#);
    let wanted = InputEvent::PointerMove { x: 1, y: 2 };
    first.until(|_| guest.media.input.try_recv().is_ok_and(|event| event == wanted)).await;

    // The last viewer wins; the one before lets go of all keys.
    let mut second = guest.viewer().await;
    assert_eq!(guest.media.input.recv().await, Some(InputEvent::ReleaseAll {}));
    assert!(matches!(guest.event().await, MediaEvent::ViewerLeft));
    second.watching().await;
    assert!(matches!(guest.event().await, MediaEvent::ViewerJoined(_)));
    let png = timeout(PATIENCE, guest.media.handle.screenshot()).await.unwrap().unwrap();
    assert!(png.starts_with(b"\x89PNG"));
}

/// Grey all over, as the guest shows it at first.
fn picture(grey: u8) -> Frame {
    let rgb = [grey; 3].repeat(usize::from(WIDTH) * usize::from(HEIGHT));
    let (width, height) = (usize::from(WIDTH), usize::from(HEIGHT));
    let png = encode_png(width, height, png::ColorType::Rgb, &rgb).unwrap();
    Frame::from_png(&png).unwrap()
}

#[tokio::test]
async fn a_picture_of_before_is_no_live_frame_but_one_that_is_still_true_becomes_one() {
    for grey in [200, GREY] {
        let (frames, comes) = AwaitedFrames::new(Some(picture(grey)));
        let (change, changes) = mpsc::unbounded_channel();
        let (asked_sender, asked) = mpsc::unbounded_channel();
        let mut guest = FakeGuest::with(frames, change, asked).await;
        let mut viewer = guest.viewer().await;
        viewer.watching().await;
        assert!(matches!(guest.event().await, MediaEvent::ViewerJoined(_)));
        assert!(matches!(guest.event().await, MediaEvent::FirstFrameSent));
        assert!(guest.media.events.try_recv().is_err());
        assert!(comes.send(Guest { changes, asked: asked_sender }).is_ok());
        let mut event = None;
        viewer
            .until(|_| {
                event = guest.media.events.try_recv().ok();
                event.is_some()
            })
            .await;
        assert!(matches!(event, Some(MediaEvent::LiveFrameShown)), "{event:?}");
    }
}

#[tokio::test]
async fn a_bad_offer_leaves_the_viewer_there_alone() {
    let mut guest = FakeGuest::new().await;
    let mut viewer = guest.viewer().await;
    viewer.watching().await;
    assert!(matches!(guest.event().await, MediaEvent::ViewerJoined(_)));
    guest.is_shown().await;
    assert!(guest.media.handle.offer("nonsense".into(), link(1)).await.is_err());
    viewer.viewer.ask_for_key_frame();
    let handle = guest.media.handle.clone();
    viewer.until(|_| handle.stats().key_frames == 2).await;
    assert!(guest.media.events.try_recv().is_err());
}

#[tokio::test]
async fn a_revoked_link_s_viewer_is_sent_away_and_gets_no_other_offer_answered() {
    let mut guest = FakeGuest::new().await;
    let mut first = guest.viewer_by(link(1)).await;
    first.watching().await;
    assert!(matches!(guest.event().await, MediaEvent::ViewerJoined(viewer) if viewer == link(1)));
    guest.is_shown().await;
    let second = HolderGeneration::from_number(2).unwrap();
    guest.media.handle.revoke_before(second).await;
    assert!(matches!(guest.event().await, MediaEvent::ViewerLeft));
    let refused = guest.media.handle.offer("whatever".into(), link(1)).await.unwrap_err();
    assert_eq!(refused.to_string(), "link 1 was revoked");
    let mut later = guest.viewer_by(link(2)).await;
    later.watching().await;
    assert!(matches!(guest.event().await, MediaEvent::ViewerJoined(viewer) if viewer == link(2)));
    // Once a session.
    assert!(matches!(guest.event().await, MediaEvent::FirstFrameSent));
    // What is revoked once stays so, and who has the newer link, or a key, goes on.
    guest.media.handle.revoke_before(HolderGeneration::FIRST).await;
    guest.media.handle.revoke_before(second).await;
    later.viewer.ask_for_key_frame();
    let handle = guest.media.handle.clone();
    later.until(|_| handle.stats().key_frames >= 3).await;
    assert!(guest.media.handle.offer("whatever".into(), link(1)).await.is_err());
}

#[tokio::test]
async fn a_viewer_is_sent_away_by_the_answer_to_their_own_offer_alone() {
    let mut guest = FakeGuest::new().await;
    let mut first = guest.viewer_by(link(1)).await;
    first.watching().await;
    assert!(matches!(guest.event().await, MediaEvent::ViewerJoined(_)));
    guest.is_shown().await;
    let handle = guest.media.handle.clone();
    handle.dismiss("another".to_owned()).await;
    first.viewer.ask_for_key_frame();
    first.until(|_| handle.stats().key_frames >= 2).await;
    handle.dismiss(first.ufrag.clone()).await;
    assert!(matches!(guest.event().await, MediaEvent::ViewerLeft));
}

#[tokio::test]
async fn the_end_of_the_guest_is_reported_and_the_service_ends_with_its_handles() {
    let mut guest = FakeGuest::new().await;
    let mut viewer = guest.viewer().await;
    viewer.watching().await;
    guest.change = None;
    loop {
        if let MediaEvent::FrameSourceFailed(error) = guest.event().await {
            assert!(matches!(error, FrameSourceError::Io { .. }));
            break;
        }
    }
    let error = guest.media.handle.screenshot().await.unwrap_err();
    assert!(matches!(error, ScreenshotError::NoFrames));
}

#[tokio::test]
async fn the_service_ends_with_its_last_handle() {
    let door = TokioUdp::bind("127.0.0.1:0").await.unwrap();
    let config = MediaConfig {
        candidates: vec![door.local_addr().unwrap()],
        media_demux: Box::new(Loopback(door.into_std().unwrap(), std::sync::mpsc::channel().0)),
        max_bitrate_bps: 20_000_000,
        start_bitrate_bps: 8_000_000,
    };
    let (_change, changes) = mpsc::unbounded_channel();
    let (asked, _) = mpsc::unbounded_channel();
    let Media { handle, task, .. } = spawn(config, Guest { changes, asked }).unwrap();
    drop(handle);
    timeout(PATIENCE, task).await.unwrap().unwrap();
}
