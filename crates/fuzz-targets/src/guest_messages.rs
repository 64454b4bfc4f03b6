//! Messages of guest, host and viewer: what is taken, is written and taken again alike.

use anteroom_guest_protocol::input::InputEvent;
use anteroom_guest_protocol::message::{announced_length, decode, encode};
use anteroom_guest_protocol::{Check, Checked, GuestMessage, HostMessage, PREAMBLE_LEN, Preamble};
use anteroom_media::peer::cursor_message;

const LIMIT: usize = 1024 * 1024;

/// Panics where the reader does not hold what is written above.
pub fn run(bytes: &[u8]) {
    if let Some(prefix) = bytes.first_chunk::<4>()
        && let Ok(length) = announced_length(*prefix, LIMIT)
    {
        assert!(length <= LIMIT);
    }
    if let Some(bytes) = bytes.first_chunk::<PREAMBLE_LEN>()
        && let Ok(preamble) = Preamble::decode(bytes)
    {
        assert_eq!(&preamble.encode(), bytes);
    }
    if let Ok(message) = decode::<GuestMessage>(bytes) {
        let again = encode(&message, LIMIT).expect("what was taken can be written");
        assert!(decode::<GuestMessage>(&again[4..]).is_ok());
        // A guest's pixels, which become a PNG for the viewer.
        if let GuestMessage::Cursor(image) = &message {
            let _ = cursor_message(image);
        }
    }
    let _ = decode::<HostMessage>(bytes);
    let _ = decode::<Check>(bytes);
    if let Ok(checked) = decode::<Checked>(bytes) {
        let again = encode(&checked, LIMIT).expect("what was taken can be written");
        assert!(decode::<Checked>(&again[4..]).is_ok());
    }
    if let Ok(event) = decode::<InputEvent>(bytes) {
        let _ = event.checked();
    }
}
