//! From bytes to a screen.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use anteroom_guest_protocol::{TERMINAL_COLUMNS as COLUMNS, TERMINAL_ROWS as ROWS};

use crate::question::question;
use crate::urls;

/// Bytes without one that could end it after which a sequence is ended: `vte` keeps a control string
/// (OSC) until its end, however far that is.
const LONGEST_STRING: usize = 16 * 1024;

/// CAN ends any sequence and does nothing outside one (ECMA-48, 8.2.1).
const CANCEL: &[u8] = b"\x18";

/// Targets of hyperlinks that are remembered.
const MAX_LINKS: usize = 16;

/// A terminal that a CLI writes to.
pub struct Terminal {
    parser: vt100::Parser<Beside>,
    since_control: usize,
}

/// What the terminal showed at some moment, to see what changed since.
#[derive(Clone)]
pub struct Screen(vt100::Screen);

/// What a terminal does beside showing.
#[derive(Default)]
struct Beside {
    /// Targets of hyperlinks, newest last.
    links: VecDeque<String>,
    /// What the CLI asked and waits for.
    answers: String,
}

/// Bytes of answers that wait; a CLI that asks without end gets no more.
const MAX_ANSWERS: usize = 256;

impl vt100::Callbacks for Beside {
    /// Questions of ECMA-48 that programs wait for the answers of: the cursor's place (6n), whether the
    /// terminal is well (5n), and what it is (c; a VT100 with nothing added).
    fn unhandled_csi(
        &mut self,
        screen: &mut vt100::Screen,
        first: Option<u8>,
        second: Option<u8>,
        parameters: &[&[u16]],
        letter: char,
    ) {
        let answer = match (first, second, parameters, letter) {
            (None, None, [[6]], 'n') => {
                let (row, column) = screen.cursor_position();
                format!("\x1b[{};{}R", row + 1, column + 1)
            }
            (None, None, [[5]], 'n') => "\x1b[0n".to_owned(),
            (None, None, [] | [[0]], 'c') => "\x1b[?1;0c".to_owned(),
            _ => return,
        };
        if self.answers.len() + answer.len() <= MAX_ANSWERS {
            self.answers.push_str(&answer);
        }
    }

    /// OSC 8: `8 ; parameters ; URI`. Only the parser's cut at `;` has to be undone.
    fn unhandled_osc(&mut self, _: &mut vt100::Screen, parts: &[&[u8]]) {
        let [b"8", _, uri @ ..] = parts else { return };
        let Ok(uri) = String::from_utf8(uri.join(&b';')) else { return };
        if !urls::is_address(&uri) || self.links.back() == Some(&uri) {
            return;
        }
        if self.links.len() == MAX_LINKS {
            self.links.pop_front();
        }
        self.links.push_back(uri);
    }
}

impl Default for Terminal {
    fn default() -> Self {
        let size = |n| NonZeroU16::new(n).unwrap_or(NonZeroU16::MIN);
        let parser =
            vt100::Parser::new_with_callbacks(size(ROWS), size(COLUMNS), 0, Beside::default());
        Self { parser, since_control: 0 }
    }
}

impl Terminal {
    /// Takes what the CLI wrote.
    pub fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(LONGEST_STRING / 4) {
            if self.since_control > LONGEST_STRING {
                self.parser.process(CANCEL);
                self.since_control = 0;
            }
            // BEL, CAN, SUB and ESC end a string; other control characters are ignored in one.
            let ends = |byte: &u8| matches!(byte, 0x07 | 0x18 | 0x1a | 0x1b);
            self.since_control = match piece.iter().rposition(ends) {
                Some(last) => piece.len() - last,
                None => self.since_control + piece.len(),
            };
            self.parser.process(piece);
        }
    }

    /// What the terminal answers to what the CLI asked of it since the last call; to be typed.
    pub fn take_answers(&mut self) -> String {
        std::mem::take(&mut self.parser.callbacks_mut().answers)
    }

    /// The screen as text: rows that go on in the next one are joined.
    #[must_use]
    pub fn text(&self) -> String {
        self.parser.screen().contents()
    }

    /// Its rows without what is empty.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let rows = self.rows();
        rows.into_iter()
            .map(|row| row.trim_end().to_owned())
            .filter(|row| !row.is_empty())
            .collect()
    }

    /// Web addresses that it shows or links to, the newest last; what the end user reads counts for
    /// more than where a link leads.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        let screen = self.parser.screen();
        let rows: Vec<(String, bool)> =
            self.rows().into_iter().zip((0..ROWS).map(|row| screen.row_wrapped(row))).collect();
        let shown = urls::on_rows(&rows, usize::from(COLUMNS));
        urls::with_links(shown, &self.parser.callbacks().links)
    }

    /// The line that asks, if the screen stands at a question.
    #[must_use]
    pub fn question(&self) -> Option<String> {
        let screen = self.parser.screen();
        let row = usize::from(screen.cursor_position().0);
        question(&self.rows(), row, screen.hide_cursor()).map(str::to_owned)
    }

    /// What it shows now.
    #[must_use]
    pub fn screen(&self) -> Screen {
        Screen(self.parser.screen().clone())
    }

    fn rows(&self) -> Vec<String> {
        self.parser.screen().rows(0, COLUMNS).collect()
    }
}

impl Screen {
    /// What draws it on an empty terminal: text, colours and cursor movements, and how the cursor's
    /// keys and a paste are to be sent (DECCKM, bracketed paste). Nothing else.
    #[must_use]
    pub fn drawn(&self) -> String {
        self.0.contents_formatted() + &self.modes()
    }

    /// What makes `before` this.
    #[must_use]
    pub fn drawn_after(&self, before: &Self) -> String {
        let modes = self.modes();
        let changed = if modes == before.modes() { "" } else { &modes };
        self.0.contents_diff(&before.0) + changed
    }

    fn modes(&self) -> String {
        let set = |on: bool| if on { 'h' } else { 'l' };
        let (cursor, paste) = (set(self.0.application_cursor()), set(self.0.bracketed_paste()));
        format!("\x1b[?1{cursor}\x1b[?2004{paste}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(bytes: &[u8]) -> Terminal {
        let mut terminal = Terminal::default();
        terminal.feed(bytes);
        terminal
    }

    #[test]
    fn what_is_overwritten_is_not_there() {
        let terminal = shown(b"Waiting...\r\x1b[2K\x1b[31mPaste code here\x1b[0m > ");
        assert_eq!(terminal.text(), "Paste code here > ");
    }

    #[test]
    fn an_address_over_rows_is_one() {
        let url = format!("https://a.test/authorize?{}", "x".repeat(300));
        let terminal = shown(format!("Go to:\r\n\r\n{url}\r\n\r\nand sign in.").as_bytes());
        assert_eq!(terminal.urls(), [url]);
    }

    #[test]
    fn a_links_target_counts_as_shown() {
        let terminal = shown(b"\x1b]8;;https://a.test/x?a=1;b=2\x07here\x1b]8;;\x07");
        assert_eq!(terminal.urls(), ["https://a.test/x?a=1;b=2"]);
    }

    #[test]
    fn a_string_without_end_is_ended() {
        let mut terminal = shown(b"\x1b]0;");
        for _ in 0..64 {
            terminal.feed(&b"text without an end\r\n".repeat(200));
        }
        terminal.feed(b"\r\nseen");
        assert!(terminal.text().ends_with("seen"));
    }

    #[test]
    fn how_keys_are_sent_is_drawn_too() {
        let mut terminal = Terminal::default();
        let before = terminal.screen();
        terminal.feed(b"\x1b[?1h\x1b[?1000h");
        let drawn = terminal.screen().drawn_after(&before);
        assert!(drawn.contains("\x1b[?1h\x1b[?2004l") && !drawn.contains("1000"), "{drawn:?}");
        let same = terminal.screen();
        assert!(!same.drawn_after(&same).contains("\x1b[?1h"));
    }

    #[test]
    fn what_is_drawn_holds_no_string_sequence() {
        let terminal = shown(b"\x1b]52;c;ZXZpbA==\x07\x1b]0;evil\x07\x1bPq#evil\x1b\\\x1b[5ntext");
        let drawn = terminal.screen().drawn();
        assert!(drawn.contains("text") && !drawn.contains("evil") && !drawn.contains("ZXZ"));
        assert!(!drawn.contains("\x1b]") && !drawn.contains("\x1bP"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_it(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let before = Terminal::default().screen();
            let terminal = shown(&bytes);
            let _ = (terminal.urls(), terminal.lines(), terminal.screen().drawn_after(&before));
        }

        #[test]
        fn differences_add_up(one in "[ -~\\r\\n]{0,200}", two in "[ -~\\r\\n]{0,200}") {
            let mut terminal = Terminal::default();
            let mut other = Terminal::default();
            for part in [one, two] {
                let before = terminal.screen();
                terminal.feed(part.as_bytes());
                other.feed(terminal.screen().drawn_after(&before).as_bytes());
            }
            prop_assert_eq!(terminal.lines(), other.lines());
        }
    }
}
