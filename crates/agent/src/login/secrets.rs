//! Secrets that the host typed into the CLI's terminal, which shows what is typed: they are kept out
//! of logs, also in pieces, since a terminal shows a long one over several rows.

use std::cell::RefCell;
use std::rc::Rc;

use crate::supervise::REDACTED;

/// So many characters in a row that are in a secret too are taken for a piece of it.
const PIECE: usize = 6;

/// Secrets that are kept, and characters of one; a person types few, and not for long.
const MAX_SECRETS: usize = 256;
const MAX_LENGTH: usize = 4096;

/// The secrets of a session. Cheap to clone.
#[derive(Clone, Default)]
pub struct Secrets(Rc<RefCell<Vec<String>>>);

impl Secrets {
    /// From now on this is not logged: each line of it, without the keys that are no characters. What
    /// is shorter than a piece is no secret.
    pub fn add(&self, typed: &str) {
        let mut secrets = self.0.borrow_mut();
        for line in typed.replace("\x1b[200~", "").replace("\x1b[201~", "").split(['\r', '\n']) {
            let secret: String =
                line.chars().filter(|c| !c.is_control()).take(MAX_LENGTH).collect();
            if secret.chars().count() < PIECE || secrets.contains(&secret) {
                continue;
            }
            if secrets.len() == MAX_SECRETS {
                secrets.remove(0);
            }
            secrets.push(secret);
        }
    }

    /// The line without them and their pieces.
    pub fn redact(&self, line: &str) -> String {
        let secrets = self.0.borrow();
        if secrets.is_empty() {
            return line.to_owned();
        }
        let characters: Vec<char> = line.chars().collect();
        let mut is_secret = vec![false; characters.len()];
        for (start, piece) in characters.windows(PIECE).enumerate() {
            let piece: String = piece.iter().collect();
            if secrets.iter().any(|secret| secret.contains(&piece)) {
                is_secret[start..start + PIECE].fill(true);
            }
        }
        let mut clean = String::with_capacity(line.len());
        for (at, character) in characters.iter().enumerate() {
            if !is_secret[at] {
                clean.push(*character);
            } else if at == 0 || !is_secret[at - 1] {
                clean.push_str(REDACTED);
            }
        }
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_cut_or_over_rows_they_are_not_there() {
        let secrets = Secrets::default();
        assert_eq!(secrets.redact("code > abcdefgh#123"), "code > abcdefgh#123");
        secrets.add("abcdefgh#123456789-tail");
        assert_eq!(secrets.redact("code > abcdefgh#123456789-tail ok"), "code > [redacted] ok");
        assert_eq!(secrets.redact("code > abcdefg"), "code > [redacted]");
        assert_eq!(secrets.redact("| 456789-tail |"), "| [redacted] |");
        assert_eq!(secrets.redact("^[[200~abcdefgh#1^[[201~"), "^[[200~[redacted]^[[201~");
    }

    #[test]
    fn each_line_of_a_paste_counts_and_short_ones_do_not() {
        let secrets = Secrets::default();
        secrets.add("\x1b[200~firstline-1\rsecondline-2\x1b[201~");
        secrets.add("e");
        assert_eq!(secrets.redact("> secondline-2 here"), "> [redacted] here");
        assert_eq!(secrets.redact("> firstline-1, then"), "> [redacted], then");
    }
}
