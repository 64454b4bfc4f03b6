use tokio::io::DuplexStream;

use super::*;

const HEADER: FrameHeader =
    FrameHeader { sequence: 1, captured_us: 5, width: 64, height: 48, rects: 1 };

/// A source whose guest has said `said` and then stays silent, and the guest's end.
async fn source(said: &[u8]) -> (LinkFrameSource<DuplexStream>, DuplexStream) {
    let (host, mut guest) = tokio::io::duplex(1 << 20);
    guest.write_all(said).await.unwrap();
    (LinkFrameSource::new(host), guest)
}

async fn refused(said: &[u8]) -> FrameSourceError {
    let (mut source, _guest) = source(said).await;
    source.next(Request::Changes, &mut Frame::default()).await.unwrap_err()
}

fn said(header: &FrameHeader, rects: &[(Rect, usize)]) -> Vec<u8> {
    let mut bytes = header.encode().to_vec();
    for (rect, pixels) in rects {
        bytes.extend(rect.encode());
        bytes.extend(vec![7; pixels * 4]);
    }
    bytes
}

fn rect(x: u16, y: u16, width: u16, height: u16) -> Rect {
    Rect { x, y, width, height }
}

#[tokio::test]
async fn a_frame_is_read_and_its_memory_reused() {
    let header = FrameHeader { rects: 2, ..HEADER };
    let bytes = said(&header, &[(rect(0, 0, 8, 8), 64), (rect(60, 40, 4, 8), 32)]);
    let (mut source, mut guest) = source(&bytes).await;
    let mut frame = Frame::default();
    source.next(Request::Everything, &mut frame).await.unwrap();
    assert_eq!(guest.read_u8().await.unwrap(), u8::from(Request::Everything));
    assert_eq!(frame.screen_size(), (64, 48));
    let got: Vec<_> = frame.rects().map(|(rect, pixels)| (*rect, pixels.len())).collect();
    assert_eq!(got, [(rect(0, 0, 8, 8), 256), (rect(60, 40, 4, 8), 128)]);

    guest.write_all(&said(&FrameHeader { rects: 0, ..HEADER }, &[])).await.unwrap();
    source.next(Request::Changes, &mut frame).await.unwrap();
    assert_eq!(frame.rects().count(), 0);
}

#[tokio::test]
async fn lies_are_refused_before_memory_is_taken() {
    let huge = FrameHeader { width: 4096, height: 4096, rects: 64, ..HEADER };
    let mut bytes = huge.encode().to_vec();
    bytes[12..14].copy_from_slice(&u16::MAX.to_be_bytes());
    assert!(matches!(
        refused(&bytes).await,
        FrameSourceError::Protocol { source: FrameError::Screen { .. } }
    ));

    let many = FrameHeader { rects: 65, ..HEADER };
    assert!(matches!(
        refused(&many.encode()).await,
        FrameSourceError::Protocol { source: FrameError::TooManyRects(65) }
    ));

    let outside = said(&HEADER, &[(rect(60, 0, 5, 1), 0)]);
    assert!(matches!(
        refused(&outside).await,
        FrameSourceError::Protocol { source: FrameError::RectOutside { .. } }
    ));

    // 64 full screens, of which the third is one too many.
    let overlapping = FrameHeader { rects: 64, ..HEADER };
    let whole = (rect(0, 0, 64, 48), 64 * 48);
    assert!(matches!(
        refused(&said(&overlapping, &[whole, whole, whole])).await,
        FrameSourceError::TooManyPixels { .. }
    ));
}

#[tokio::test]
async fn an_announced_screen_takes_no_memory_before_its_pixels_come() {
    let header = FrameHeader { width: 4096, height: 4096, ..HEADER };
    let (mut source, guest) = source(&said(&header, &[(rect(0, 0, 4096, 4096), 10)])).await;
    drop(guest);
    let mut frame = Frame::default();
    let error = source.next(Request::Changes, &mut frame).await.unwrap_err();
    // The request may meet the closed stream first; either way little was taken.
    assert!(matches!(error, FrameSourceError::Io { .. }));
    assert!(frame.pixels.capacity() < 1 << 20);
}

#[tokio::test(start_paused = true)]
async fn half_a_frame_and_silence_ends_after_the_deadline() {
    let start = Instant::now();
    let half = said(&HEADER, &[(rect(0, 0, 8, 8), 3)]);
    assert!(matches!(
        refused(&half).await,
        FrameSourceError::Silent { operation: "finishing a frame" }
    ));
    assert_eq!(start.elapsed().as_secs(), FRAME_DEADLINE.as_secs());

    let (mut silent, _guest) = source(&[]).await;
    let error = silent.next(Request::Everything, &mut Frame::default()).await.unwrap_err();
    assert!(matches!(error, FrameSourceError::Silent { operation: "beginning a frame" }));
}

#[tokio::test(start_paused = true)]
async fn a_still_desktop_may_stay_still() {
    let (mut source, _guest) = source(&[]).await;
    let mut frame = Frame::default();
    let wait = source.next(Request::Changes, &mut frame);
    assert!(timeout(Duration::from_secs(3600), wait).await.is_err(), "no deadline while waiting");
}
