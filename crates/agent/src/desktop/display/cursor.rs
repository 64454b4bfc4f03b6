//! The pointer's shape, for the viewer to draw without a round trip.

use anteroom_guest_protocol::CursorImage;
use anyhow::Result;
use base64::Engine;
use x11rb::protocol::xfixes::ConnectionExt as _;

use super::capture::Capture;

/// The largest cursor sent, in pixels an edge.
const MAX_EDGE: u16 = 128;

/// The present shape; `None` when it is larger than a pointer can be.
pub fn image(capture: &Capture) -> Result<Option<CursorImage>> {
    let reply = capture.connection.xfixes_get_cursor_image()?.reply()?;
    if reply.width > MAX_EDGE || reply.height > MAX_EDGE {
        return Ok(None);
    }
    let rgba: Vec<u8> = reply.cursor_image.iter().flat_map(|&argb| straight(argb)).collect();
    Ok(Some(CursorImage {
        width: reply.width,
        height: reply.height,
        hot_x: reply.xhot.min(reply.width),
        hot_y: reply.yhot.min(reply.height),
        rgba_base64: base64::engine::general_purpose::STANDARD.encode(rgba),
    }))
}

/// Premultiplied ARGB (as XFIXES has it) to straight RGBA.
fn straight(argb: u32) -> [u8; 4] {
    let [alpha, red, green, blue] = argb.to_be_bytes();
    let divide = |channel: u8| match alpha {
        0 => 0,
        _ => u8::try_from((u32::from(channel) * 255 / u32::from(alpha)).min(255)).unwrap_or(255),
    };
    [divide(red), divide(green), divide(blue), alpha]
}

#[cfg(test)]
mod tests {
    use super::straight;

    #[test]
    fn alpha_is_divided_out() {
        assert_eq!(straight(0xff10_2030), [0x10, 0x20, 0x30, 0xff]);
        assert_eq!(straight(0x8040_2000), [127, 63, 0, 0x80]);
        assert_eq!(straight(0), [0, 0, 0, 0]);
    }
}
