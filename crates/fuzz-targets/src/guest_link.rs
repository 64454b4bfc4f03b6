//! A hostile guest on the whole link: handshake, multiplexer, and the streams as the session runner
//! reads them. Whatever the guest sends before it hangs up, the host comes to an end, in time.

use std::time::Duration;

use anteroom_guest_link::{
    Incoming, LinkError, LinkStream, Opener, Side, connect, read_kind, read_message,
    start_handshake,
};
use anteroom_guest_protocol::frames::Request;
use anteroom_guest_protocol::{GuestMessage, MAX_CONTROL_MESSAGE, Preamble, StreamKind};
use anteroom_media::frame_source::{Frame, FrameSource, LinkFrameSource};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const NONCE: [u8; 16] = [7; 16];
const BOOT: Duration = Duration::from_secs(60);
/// A boot, and then what is longest of the link's own limits. The clock is a virtual one.
const AT_MOST: Duration = Duration::from_secs(120);

/// Panics where the reader does not hold what is written above.
pub fn run(bytes: &[u8]) {
    // The first byte says whether the guest gets as far as the multiplexer by itself.
    let Some((first, sent)) = bytes.split_first() else { return };
    let mut wire = Vec::with_capacity(sent.len() + 32);
    if first % 2 == 1 {
        wire.extend(Preamble::new(NONCE).encode());
    }
    wire.extend(sent);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (guest, host) = tokio::io::duplex(64 * 1024);
        let both = async { tokio::join!(run_guest(guest, &wire), run_host(host)) };
        tokio::time::timeout(AT_MOST, both).await.expect("the host came to an end");
    });
}

/// Sends what it has and hangs up. What the host says is taken and not looked at.
async fn run_guest(guest: DuplexStream, wire: &[u8]) {
    let (mut from_host, mut to_host) = tokio::io::split(guest);
    let mut heard = tokio::io::sink();
    let speak = async {
        let _ = to_host.write_all(wire).await;
        let _ = to_host.shutdown().await;
    };
    let _ = tokio::join!(speak, tokio::io::copy(&mut from_host, &mut heard));
}

async fn run_host(mut link: DuplexStream) {
    if start_handshake(&mut link, NONCE, BOOT).await.is_err() {
        return;
    }
    let (opener, incoming, drive) = connect(link, Side::Host);
    let _ =
        tokio::join!(drive, read_control(&opener), read_frames(&opener), take_streams(incoming));
}

async fn read_control(opener: &Opener) -> Result<(), LinkError> {
    let mut control = opener.open(StreamKind::Control).await?;
    while let Some(_message) =
        read_message::<GuestMessage, _>(&mut control, MAX_CONTROL_MESSAGE).await?
    {}
    Ok(())
}

async fn read_frames(opener: &Opener) -> Result<(), LinkError> {
    let mut source = LinkFrameSource::new(opener.open(StreamKind::Frames).await?);
    let mut frame = Frame::default();
    while source.next(Request::Changes, &mut frame).await.is_ok() {
        let (width, height) = frame.screen_size();
        let screen = usize::from(width) * usize::from(height);
        let taken: usize = frame.rects().map(|(_, pixels)| pixels.len() / 4).sum();
        assert!(taken <= 2 * screen, "{taken} pixels were taken for a screen of {screen}");
    }
    Ok(())
}

/// The runner reads each in a task of its own; here one after another is enough, since each ends with
/// the link.
async fn take_streams(mut incoming: Incoming) {
    while let Some(stream) = incoming.next().await {
        take(stream).await;
    }
}

async fn take(mut stream: LinkStream) {
    if let Ok(StreamKind::Egress) = read_kind(&mut stream).await {
        let mut byte = [0; 512];
        while stream.read(&mut byte).await.is_ok_and(|read| read > 0) {}
    }
}
