//! Output of services: bounded, line by line, harmless to a terminal.

use std::collections::VecDeque;

use anteroom_crash::is_stack_line;
use anteroom_guest_protocol::{GuestMessage, MAX_FIRST_LINES, MAX_LAST_LINES};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::redact::Rows;

/// Characters of a line that are kept for a record of death: all its lines together fit one message.
const MAX_TAIL_LINE: usize = 1024;

/// Of a long stack the first and the last lines that are kept: what was said above it explains more.
const STACK_BEGINS: usize = 6;
const STACK_ENDS: usize = 3;

/// Bytes of a line that are kept; the rest of it is dropped.
const MAX_LINE: usize = 4096;

/// What is done with a line of output.
#[derive(Debug, PartialEq, Eq)]
pub enum LogLine {
    /// It is logged.
    Logged,
    /// It is not.
    Dropped,
    /// It is reported as what it means.
    Reported(GuestMessage),
}

/// Decides what is done with a line.
pub type LineFilter = fn(&str) -> LogLine;

/// Logs every line.
pub fn all_lines(_: &str) -> LogLine {
    LogLine::Logged
}

/// The last lines of a service, and its first ones.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    last: VecDeque<String>,
    first: Vec<String>,
    /// How many lines of one stack came last.
    of_stack: usize,
}

impl Tail {
    /// Adds a line, dropping the middle of a long stack, and the oldest beyond the bound.
    pub fn push(&mut self, line: &str) {
        let line: String = line.chars().take(MAX_TAIL_LINE).collect();
        if self.first.len() < MAX_FIRST_LINES {
            self.first.push(line.clone());
        }
        self.of_stack = if is_stack_line(&line) { self.of_stack + 1 } else { 0 };
        self.last.push_back(line);
        if let Some(left_out) =
            self.of_stack.checked_sub(STACK_BEGINS + STACK_ENDS).filter(|n| *n > 0)
        {
            self.leave_out(left_out);
        }
        if self.last.len() > MAX_LAST_LINES {
            self.last.pop_front();
        }
    }

    /// Says in the place of the stack's middle how many of its lines are left out.
    fn leave_out(&mut self, count: usize) {
        let at = self.last.len() - STACK_ENDS - 1;
        if count > 1 {
            // What is said already stands above it.
            self.last.remove(at);
        }
        let place = if count > 1 { at - 1 } else { at };
        self.last[place] = format!("    ... {count} more of this stack");
    }

    /// The last lines, oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.last.iter().cloned().collect()
    }

    /// The first lines, at most [`MAX_FIRST_LINES`].
    pub fn first_lines(&self) -> &[String] {
        &self.first
    }
}

/// Calls `on_line` for each line until the end of `reader`. Empty lines are passed over.
pub async fn watch_lines(mut reader: impl AsyncRead + Unpin, on_line: impl FnMut(&str)) {
    let mut buffer = [0; 4096];
    let mut lines = Lines::new(on_line);
    // An error is an end too: a terminal answers EIO when its last program is gone.
    while let Ok(count @ 1..) = reader.read(&mut buffer).await {
        lines.feed(&buffer[..count]);
    }
}

/// Cuts bytes into clean lines; the last one ends with it.
pub struct Lines<F: FnMut(&str)> {
    line: Vec<u8>,
    secrets: Rows,
    on_line: F,
}

impl<F: FnMut(&str)> Lines<F> {
    /// Calls `on_line` for each line that is not empty.
    pub fn new(on_line: F) -> Self {
        Self { line: Vec::new(), secrets: Rows::default(), on_line }
    }

    /// Takes what was printed.
    pub fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' || byte == b'\r' {
                self.flush();
            } else if self.line.len() < MAX_LINE {
                self.line.push(byte);
            }
        }
    }

    fn flush(&mut self) {
        let text = self.secrets.redact(&clean_line(&self.line));
        self.line.clear();
        if !text.is_empty() {
            (self.on_line)(&text);
        }
    }
}

impl<F: FnMut(&str)> Drop for Lines<F> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// A line without terminal escapes and control characters, whatever its bytes.
pub fn clean_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut clean = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            skip_escape(&mut characters);
        } else if character == '\t' {
            clean.push(' ');
        } else if !character.is_control() {
            clean.push(character);
        }
    }
    clean.trim_end().to_owned()
}

/// Skips the rest of an escape sequence (ECMA-48: CSI, OSC and two-character forms).
fn skip_escape(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match characters.next() {
        Some('[') => {
            characters.by_ref().find(|c| ('\u{40}'..='\u{7e}').contains(c));
        }
        Some(']') => {
            // Ended by BEL or by ESC \.
            while let Some(c) = characters.next() {
                if c == '\u{7}' {
                    return;
                }
                if c == '\u{1b}' {
                    characters.next_if_eq(&'\\');
                    return;
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_controls_are_gone() {
        let line = b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07plain\x1b]8;;x\x1b\\\x08\ttab \xff ";
        assert_eq!(clean_line(line), "red plain tab \u{fffd}");
    }

    #[tokio::test]
    async fn a_line_without_end_is_bounded_and_the_tail_keeps_the_last() {
        let endless = vec![b'a'; 3 * MAX_LINE];
        let mut lines = Vec::new();
        watch_lines(&endless[..], |line| lines.push(line.to_owned())).await;
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].len(), MAX_LINE);
        let mut tail = Tail::default();
        (0..50).for_each(|n| tail.push(&n.to_string()));
        assert_eq!(tail.lines().len(), MAX_LAST_LINES);
        assert_eq!(tail.lines().last().map(String::as_str), Some("49"));
    }

    #[test]
    fn what_stands_above_a_long_stack_is_kept() {
        let stack = |tail: &mut Tail, frames: u32| {
            tail.push("Exception in thread \"main\" java.lang.StackOverflowError");
            (0..frames).for_each(|n| tail.push(&format!(" at A.f{n}(A.java:1)")));
        };
        for (frames, left_out) in [(9, None), (10, Some(1)), (11, Some(2)), (1024, Some(1015))] {
            let mut tail = Tail::default();
            (0..50).for_each(|n| tail.push(&n.to_string()));
            stack(&mut tail, frames);
            let lines = tail.lines();
            assert_eq!(lines.len(), MAX_LAST_LINES);
            let heading = lines.iter().position(|line| line.starts_with("Exception")).unwrap();
            let below = &lines[heading + 1..];
            let middle = left_out.map(|count| format!("    ... {count} more of this stack"));
            let first = (0..6).map(|n| format!(" at A.f{n}(A.java:1)"));
            let last = (frames - 3..frames).map(|n| format!(" at A.f{n}(A.java:1)"));
            let expected: Vec<_> = first.chain(middle).chain(last).collect();
            assert_eq!(below, expected, "{frames}");
        }
        let mut tail = Tail::default();
        (0..9).for_each(|_| stack(&mut tail, 200));
        assert_eq!(tail.lines().len(), MAX_LAST_LINES);
    }
}
