//! What the end user does. The same JSON travels from the viewer's data channel to the guest.

use serde::{Deserialize, Serialize};

use crate::{MAX_PASTE, PhysicalKey};

/// One act of the end user. Coordinates are pixels of the guest's screen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum InputEvent {
    /// The pointer is here.
    PointerMove {
        /// From the left.
        x: u16,
        /// From the top.
        y: u16,
    },
    /// A button changed.
    PointerButton {
        /// The button that was pressed or released.
        button: PointerButton,
        /// Down or up.
        pressed: bool,
    },
    /// The wheel turned, in notches; positive is right and down.
    Scroll {
        /// Sideways.
        dx: i16,
        /// Up and down.
        dy: i16,
    },
    /// A physical key changed.
    Key {
        /// `KeyboardEvent.code` (W3C UI Events).
        code: PhysicalKey,
        /// Down or up.
        pressed: bool,
    },
    /// Text that no single key of the guest's layout gives.
    Text {
        /// At most [`MAX_TEXT`] bytes.
        text: String,
    },
    /// Text to put on the clipboard and paste.
    Paste {
        /// At most [`MAX_PASTE`] bytes.
        text: String,
    },
    /// Let go of every key and button: the viewer lost focus or is gone.
    ReleaseAll {},
}

/// The longest composed text, in bytes of UTF-8.
pub const MAX_TEXT: usize = 256;

/// The most notches of one scroll event.
pub const MAX_SCROLL: i16 = 32;

/// A pointer button.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PointerButton {
    /// Usually the left.
    Left,
    /// Usually the wheel.
    Middle,
    /// Usually the right.
    Right,
}

/// An input event over its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// Too much text.
    #[error("{bytes} bytes of text were sent; at most {limit} are allowed")]
    TextTooLong {
        /// Sent.
        bytes: usize,
        /// Taken.
        limit: usize,
    },
    /// Control characters that no keyboard sends as text.
    #[error("the text holds a control character")]
    ControlCharacter,
}

impl InputEvent {
    /// Checks what the type cannot: text lengths and characters; clamps the wheel.
    ///
    /// # Errors
    /// When text is too long or holds control characters (line breaks and tabs may be pasted).
    pub fn checked(self) -> Result<Self, InputError> {
        match self {
            Self::Text { text } => {
                check_length(&text, MAX_TEXT)?;
                if text.chars().any(char::is_control) {
                    return Err(InputError::ControlCharacter);
                }
                Ok(Self::Text { text })
            }
            Self::Paste { text } => {
                check_length(&text, MAX_PASTE)?;
                if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
                    return Err(InputError::ControlCharacter);
                }
                Ok(Self::Paste { text })
            }
            Self::Scroll { dx, dy } => {
                let clamp = |notches: i16| notches.clamp(-MAX_SCROLL, MAX_SCROLL);
                Ok(Self::Scroll { dx: clamp(dx), dy: clamp(dy) })
            }
            other @ (Self::PointerMove { .. }
            | Self::PointerButton { .. }
            | Self::Key { .. }
            | Self::ReleaseAll {}) => Ok(other),
        }
    }
}

fn check_length(text: &str, limit: usize) -> Result<(), InputError> {
    if text.len() > limit {
        return Err(InputError::TextTooLong { bytes: text.len(), limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_viewers_json_is_read() {
        let event: InputEvent =
            serde_json::from_str(r#"{"type":"key","code":"KeyA","pressed":true}"#).unwrap();
        let InputEvent::Key { code, pressed: true } = event else { panic!("{event:?}") };
        assert_eq!(code.evdev(), 30);
        assert!(
            serde_json::from_str::<InputEvent>(r#"{"type":"key","code":"Nope","pressed":true}"#)
                .is_err()
        );
        assert_eq!(
            serde_json::from_str::<InputEvent>(r#"{"type":"release_all"}"#).unwrap(),
            InputEvent::ReleaseAll {}
        );
    }

    #[test]
    fn limits_hold() {
        let paste = |n: usize| InputEvent::Paste { text: "x".repeat(n) }.checked();
        assert!(paste(MAX_PASTE).is_ok());
        assert_eq!(paste(MAX_PASTE + 1), Err(InputError::TextTooLong { bytes: 4097, limit: 4096 }));
        assert!(InputEvent::Text { text: "\u{1b}".into() }.checked().is_err());
        assert_eq!(
            InputEvent::Scroll { dx: i16::MIN, dy: i16::MAX }.checked(),
            Ok(InputEvent::Scroll { dx: -32, dy: 32 })
        );
    }
}
