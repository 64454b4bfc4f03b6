//! Which key gives which character, and keys borrowed for characters that no key gives.

use anyhow::{Context, Result, ensure};
use x11rb::connection::Connection;
use x11rb::protocol::xproto::{ConnectionExt as _, Keycode, Keysym};
use x11rb::rust_connection::RustConnection;

/// evdev codes plus 8 of the left Shift and left Control keys.
const SHIFT_LEFT: Keycode = 42 + 8;
const CONTROL_LEFT: Keycode = 29 + 8;

/// Keys borrowed in turn: a client that is slow to read the new mapping still reads the right one.
const BORROWED: usize = 8;

/// The server's key table.
pub struct Keyboard {
    /// Keycode of a Shift key.
    pub shift: Keycode,
    /// Keycode of a Control key.
    pub control: Keycode,
    first: Keycode,
    columns: usize,
    keysyms: Vec<Keysym>,
    spare: Vec<Keycode>,
    next_spare: usize,
}

/// How to type one character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stroke {
    /// The key.
    pub keycode: Keycode,
    /// Whether Shift is held.
    pub shift: bool,
}

impl Keyboard {
    /// Reads the table.
    pub fn read(connection: &RustConnection) -> Result<Self> {
        let setup = connection.setup();
        let (first, last) = (setup.min_keycode, setup.max_keycode);
        let mapping = connection
            .get_keyboard_mapping(first, last - first + 1)?
            .reply()
            .context("reading the key table failed")?;
        let columns = usize::from(mapping.keysyms_per_keycode);
        ensure!(columns > 0, "the key table is empty");
        let unused = |row: &[Keysym]| row.iter().all(|keysym| *keysym == 0);
        let spare = (first..=last)
            .zip(mapping.keysyms.chunks(columns))
            .filter(|(_, row)| unused(row))
            .map(|(keycode, _)| keycode)
            .take(BORROWED)
            .collect();
        Ok(Self {
            shift: SHIFT_LEFT,
            control: CONTROL_LEFT,
            first,
            columns,
            keysyms: mapping.keysyms,
            spare,
            next_spare: 0,
        })
    }

    /// How to type `character`; borrows a key for it when the layout has none.
    pub fn stroke(&mut self, connection: &RustConnection, character: char) -> Result<Stroke> {
        let keysym = keysym_of(character);
        if let Some(stroke) = self.in_layout(keysym) {
            return Ok(stroke);
        }
        ensure!(!self.spare.is_empty(), "the key table has no free key for {character:?}");
        let keycode = self.spare[self.next_spare % self.spare.len()];
        self.next_spare += 1;
        // Both columns, so that Shift makes no difference.
        connection.change_keyboard_mapping(1, keycode, 2, &[keysym, keysym])?;
        connection.get_input_focus()?.reply().context("the X server did not take the key")?;
        Ok(Stroke { keycode, shift: false })
    }

    fn in_layout(&self, keysym: Keysym) -> Option<Stroke> {
        let rows = || (self.first..=u8::MAX).zip(self.keysyms.chunks(self.columns));
        let with = |column: usize| {
            rows().find(|(_, row)| row.get(column) == Some(&keysym)).map(|(keycode, _)| keycode)
        };
        let plain = with(0).map(|keycode| Stroke { keycode, shift: false });
        plain.or_else(|| with(1).map(|keycode| Stroke { keycode, shift: true }))
    }
}

/// X keysyms of characters: Latin-1 as they are, others with a flag (X protocol, appendix A).
fn keysym_of(character: char) -> Keysym {
    match u32::from(character) {
        code @ (0x20..=0x7e | 0xa0..=0xff) => code,
        code => 0x0100_0000 | code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_no_key_has_is_looked_for_up_to_the_last_keycode() {
        let keyboard = Keyboard {
            shift: SHIFT_LEFT,
            control: CONTROL_LEFT,
            first: 8,
            columns: 2,
            keysyms: (8..=u8::MAX).flat_map(|code| [Keysym::from(code), 0]).collect(),
            spare: Vec::new(),
            next_spare: 0,
        };
        assert_eq!(keyboard.in_layout(0x20ac), None);
        assert_eq!(keyboard.in_layout(255), Some(Stroke { keycode: 255, shift: false }));
    }

    #[test]
    fn keysyms_of_latin_and_other_characters() {
        assert_eq!(keysym_of('a'), 0x61);
        assert_eq!(keysym_of('é'), 0xe9);
        assert_eq!(keysym_of('€'), 0x0100_20ac);
        assert_eq!(keysym_of('漢'), 0x0100_6f22);
    }
}
