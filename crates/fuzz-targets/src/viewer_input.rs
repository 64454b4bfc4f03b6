//! What a viewer sends on the data channel: what is taken can be passed on to the guest, and is
//! within the limits that the guest counts on.

use anteroom_guest_protocol::input::{InputEvent, MAX_SCROLL, MAX_TEXT};
use anteroom_guest_protocol::message::{LENGTH_BYTES, decode, encode};
use anteroom_guest_protocol::{MAX_INPUT_MESSAGE, MAX_PASTE};
use anteroom_media::peer::read_input;

/// Panics where the reader does not hold what is written above.
pub fn run(message: &[u8]) {
    let Ok(event) = read_input(message) else { return };
    match &event {
        InputEvent::Text { text } => {
            assert!(text.len() <= MAX_TEXT && !text.chars().any(char::is_control));
        }
        InputEvent::Paste { text } => {
            assert!(text.len() <= MAX_PASTE && !text.contains(['\0', '\u{1b}', '\u{7f}']));
        }
        InputEvent::Scroll { dx, dy } => {
            let taken = -MAX_SCROLL..=MAX_SCROLL;
            assert!(taken.contains(dx) && taken.contains(dy));
        }
        InputEvent::PointerMove { .. }
        | InputEvent::PointerButton { .. }
        | InputEvent::Key { .. }
        | InputEvent::ReleaseAll {} => {}
    }
    let sent = encode(&event, MAX_INPUT_MESSAGE).expect("what was taken fits the guest's stream");
    assert_eq!(decode::<InputEvent>(&sent[LENGTH_BYTES..]).unwrap(), event);
}
