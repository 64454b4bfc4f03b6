//! Text of foreign origin: a guest's, a tool's, a file's, a viewer's.
//!
//! It is kept as it came, and shown only by [`ForeignText`]'s `Display`, which writes what would do
//! something where it is shown as its number. Where text of ours and of others is one already, as on
//! the way to a terminal, [`ForeignText::lines`] keeps its lines apart.

use std::fmt::{self, Display, Write};

use crate::MAX_LAST_LINES;

/// The longest text of a guest that is passed on, and the longest name of a service, in characters.
const MAX_PRINTABLE: usize = 500;
const MAX_SERVICE_NAME: usize = 64;

/// Text of foreign origin; its `Display` escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignText<'a> {
    text: &'a str,
    has_lines: bool,
}

impl<'a> ForeignText<'a> {
    /// One line: an end of a line in it is escaped too.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self { text, has_lines: false }
    }

    /// Lines, and tabulators in them.
    #[must_use]
    pub fn lines(text: &'a str) -> Self {
        Self { text, has_lines: true }
    }
}

impl Display for ForeignText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.text.chars() {
            match c {
                '\n' | '\t' if self.has_lines => f.write_char(c)?,
                c if is_harmful(c) => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Whether a character of a foreign text does something where the text is shown: a control character,
/// one that turns the text around it (Unicode's bidirectional controls), one that ends a line or is
/// not seen at all. The joiners that scripts and emoji need (U+200C, U+200D) are not among them.
#[must_use]
pub fn is_harmful(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let ends_line = matches!(c, '\u{2028}' | '\u{2029}');
    let hidden = matches!(c, '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
    c.is_control() || turns || ends_line || hidden
}

/// A guest's text with U+FFFD for each harmful character, at most 500 characters.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().take(MAX_PRINTABLE).map(|c| if is_harmful(c) { '\u{fffd}' } else { c }).collect()
}

/// A guest's lines, each [`printable`], at most [`MAX_LAST_LINES`].
#[must_use]
pub fn printable_lines(lines: &[String]) -> Vec<String> {
    lines.iter().take(MAX_LAST_LINES).map(|line| printable(line)).collect()
}

/// A guest's name for a service, [`printable`], at most 64 characters.
#[must_use]
pub fn service_name(name: &str) -> String {
    printable(name).chars().take(MAX_SERVICE_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_s_text_is_bounded() {
        let hostile = "\u{1b}".repeat(10_000);
        assert_eq!(printable(&hostile), "\u{fffd}".repeat(500));
        assert_eq!(service_name(&hostile).chars().count(), 64);
        assert_eq!(printable_lines(&vec![hostile; 1000]).len(), MAX_LAST_LINES);
    }

    #[test]
    fn nothing_that_does_something_is_shown_as_it_came() {
        let hostile =
            "a\u{1b}[2J\u{9b}31m\u{7}\r\nb\u{202e}c\u{2028}d\u{200b}e\u{feff}\u{e0041}\tf";
        for shown in [ForeignText::new(hostile), ForeignText::lines(hostile)] {
            let shown = shown.to_string();
            assert!(shown.chars().all(|c| c == '\n' || c == '\t' || !is_harmful(c)), "{shown:?}");
        }
        assert_eq!(ForeignText::new("a\u{1b}[0m\nb").to_string(), "a\\u{1b}[0m\\u{a}b");
        assert_eq!(ForeignText::lines("a\n\tb\r").to_string(), "a\n\tb\\u{d}");
        let plain = "größer, 大, 👩\u{200d}💻, نمی\u{200c}خواهم";
        assert_eq!(ForeignText::new(plain).to_string(), plain);
    }
}
