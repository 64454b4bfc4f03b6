//! What a CLI writes to its terminal: whatever it is, a bounded screen comes of it, and what draws that
//! screen holds nothing but text, colours and cursor movements.

use anteroom_guest_protocol::{TERMINAL_COLUMNS as COLUMNS, TERMINAL_ROWS as ROWS};
use anteroom_sign_in::Terminal;
use arbitrary::{Arbitrary, Unstructured};

/// Panics where the reader does not hold what is written above.
pub fn run(bytes: &[u8]) {
    let Ok(pieces) = Vec::<Vec<u8>>::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let mut terminal = Terminal::default();
    for piece in pieces {
        let before = terminal.screen();
        terminal.feed(&piece);
        let drawn = terminal.screen();
        for drawn in [drawn.drawn(), drawn.drawn_after(&before)] {
            // No string sequences (OSC, DCS, APC, PM, SOS) and no C1 controls.
            assert!(
                !["\x1b]", "\x1bP", "\x1b_", "\x1b^", "\x1bX"].iter().any(|s| drawn.contains(s))
            );
            assert!(!drawn.chars().any(|c| ('\u{80}'..='\u{9f}').contains(&c)));
        }
        assert!(terminal.lines().len() <= usize::from(ROWS));
        assert!(
            terminal
                .text()
                .lines()
                .all(|line| line.chars().count() <= 64 * usize::from(ROWS * COLUMNS))
        );
        let _ = terminal.urls();
    }
}
