//! The pointer's shape, from the guest's pixels to the viewer's message.

use anteroom_guest_protocol::CursorImage;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::screen::encode_png;

/// The largest pointer that is shown, in pixels.
pub const MAX_CURSOR_EDGE: u16 = 128;

/// A pointer image that cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    /// Too large.
    #[error(
        "a pointer of {width}x{height} pixels was sent; at most {MAX_CURSOR_EDGE}x{MAX_CURSOR_EDGE} are allowed"
    )]
    TooLarge {
        /// Width in pixels.
        width: u16,
        /// Height in pixels.
        height: u16,
    },
    /// Its pixels are not base64.
    #[error("reading the pixels of a pointer of {width}x{height} pixels failed")]
    NotBase64 {
        /// Width in pixels.
        width: u16,
        /// Height in pixels.
        height: u16,
        /// What is wrong.
        source: base64::DecodeError,
    },
    /// Its pixels are too many or too few.
    #[error("a pointer of {width}x{height} pixels was sent with {bytes} bytes")]
    WrongLength {
        /// Width in pixels.
        width: u16,
        /// Height in pixels.
        height: u16,
        /// Bytes that came.
        bytes: usize,
    },
    /// It could not be written as PNG.
    #[error("writing a pointer of {width}x{height} pixels as PNG failed")]
    Png {
        /// Width in pixels.
        width: u16,
        /// Height in pixels.
        height: u16,
        /// What the PNG writer said.
        source: png::EncodingError,
    },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
enum Message {
    Cursor { width: u16, height: u16, hot_x: u16, hot_y: u16, png_base64: String },
    CursorHidden {},
}

/// The viewer's message (JSON) for a pointer image of the guest.
///
/// # Errors
/// When the image is too large or its pixels do not have its size.
pub fn cursor_message(image: &CursorImage) -> Result<String, CursorError> {
    let CursorImage { width, height, hot_x, hot_y, .. } = *image;
    if width == 0 || height == 0 {
        return Ok(json(&Message::CursorHidden {}));
    }
    if width > MAX_CURSOR_EDGE || height > MAX_CURSOR_EDGE {
        return Err(CursorError::TooLarge { width, height });
    }
    let rgba = STANDARD.decode(&image.rgba_base64).map_err(|source| CursorError::NotBase64 {
        width,
        height,
        source,
    })?;
    if rgba.len() != usize::from(width) * usize::from(height) * 4 {
        return Err(CursorError::WrongLength { width, height, bytes: rgba.len() });
    }
    let png = encode_png(width.into(), height.into(), png::ColorType::Rgba, &rgba)
        .map_err(|source| CursorError::Png { width, height, source })?;
    let png_base64 = STANDARD.encode(png);
    Ok(json(&Message::Cursor { width, height, hot_x, hot_y, png_base64 }))
}

fn json(message: &Message) -> String {
    serde_json::to_string(message).expect("numbers and strings always serialise")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(width: u16, height: u16, bytes: usize) -> CursorImage {
        CursorImage {
            width,
            height,
            hot_x: 1,
            hot_y: 2,
            rgba_base64: STANDARD.encode(vec![9; bytes]),
        }
    }

    #[test]
    fn the_message_is_what_the_player_reads() {
        let message: serde_json::Value =
            serde_json::from_str(&cursor_message(&image(2, 3, 24)).unwrap()).unwrap();
        assert_eq!(message["type"], "cursor");
        assert_eq!(
            (&message["width"], &message["hotX"], &message["hotY"]),
            (&2.into(), &1.into(), &2.into())
        );
        let png = STANDARD.decode(message["pngBase64"].as_str().unwrap()).unwrap();
        assert!(png.starts_with(b"\x89PNG"));
        assert_eq!(cursor_message(&image(0, 0, 0)).unwrap(), r#"{"type":"cursor_hidden"}"#);
    }

    #[test]
    fn a_lying_guest_is_refused() {
        assert!(matches!(
            cursor_message(&image(2, 2, 15)),
            Err(CursorError::WrongLength { bytes: 15, .. })
        ));
        assert!(matches!(cursor_message(&image(129, 1, 4)), Err(CursorError::TooLarge { .. })));
        let image = CursorImage { rgba_base64: "%".into(), ..image(1, 1, 4) };
        assert!(matches!(cursor_message(&image), Err(CursorError::NotBase64 { .. })));
    }
}
