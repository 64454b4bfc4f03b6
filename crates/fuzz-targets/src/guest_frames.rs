//! What a guest sends as pixels: each rectangle that is taken lies within its screen.

use anteroom_guest_protocol::frames::{FRAME_HEADER_LEN, FrameHeader, RECT_LEN, Rect};

/// Panics where the reader does not hold what is written above.
pub fn run(bytes: &[u8]) {
    let Some((head, rest)) = bytes.split_first_chunk::<FRAME_HEADER_LEN>() else { return };
    let Ok(header) = FrameHeader::decode(head) else { return };
    // The last two bytes are reserved.
    assert_eq!(header.encode()[..18], head[..18]);
    for bytes in rest.as_chunks::<RECT_LEN>().0 {
        let Ok(rect) = Rect::decode(bytes, &header) else { continue };
        assert_eq!(&rect.encode(), bytes);
        assert!(rect.area() > 0);
        assert!(rect.area() <= usize::from(header.width) * usize::from(header.height));
    }
}
