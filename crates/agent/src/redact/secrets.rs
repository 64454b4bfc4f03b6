//! Secrets that the host typed into the CLI's terminal, which shows what is typed, and those of the
//! credential: they are kept out of all logs and reports, also in pieces, since a terminal shows a long one
//! over several rows.

use std::sync::{Arc, Mutex, PoisonError};

use super::patterns::MARK as REDACTED;

/// So many characters in a row that are in a secret too are taken for a piece of it.
const PIECE: usize = 6;

/// Secrets that are kept, and characters of one: an end user types few, and a credential's file has few.
const MAX_SECRETS: usize = 256;
const MAX_LENGTH: usize = 64 * 1024;

/// The secrets of a session. Cheap to clone.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    secrets: Vec<String>,
    /// Whether the last line ended in a secret: the next may begin with less of it than a piece.
    goes_on: bool,
}

impl Secrets {
    /// From now on this is not logged: each line of it, without the keys that are no characters. What
    /// is shorter than a piece is no secret.
    pub fn add(&self, typed: &str) {
        let secrets = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner).secrets;
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

    /// A text without them and their pieces.
    pub fn redact(&self, text: &str) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.secrets.is_empty() {
            return text.to_owned();
        }
        let characters: Vec<char> = text.chars().collect();
        replaced(&characters, &pieces(&kept.secrets, &characters))
    }

    /// The terminal's next row without them and their pieces.
    pub fn redact_row(&self, line: &str) -> String {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let goes_on = std::mem::take(&mut kept.goes_on);
        let secrets = &kept.secrets;
        if secrets.is_empty() {
            return line.to_owned();
        }
        let characters: Vec<char> = line.chars().collect();
        let mut is_secret = pieces(secrets, &characters);
        let inner = |c: &char| c.is_alphanumeric() || c.is_ascii_punctuation() && *c != '|';
        if goes_on && let Some(start) = characters.iter().position(inner) {
            let rest = characters[start..].iter().take_while(|c| inner(c)).count();
            let rest = start..start + rest;
            let text: String = characters[rest.clone()].iter().collect();
            let is_last_word = characters[rest.end..].iter().all(|c| !inner(c));
            if is_last_word && secrets.iter().any(|secret| secret.ends_with(&text)) {
                is_secret[rest].fill(true);
            }
        }
        let end = characters.iter().rposition(inner);
        let redacted = line.trim_end_matches(|c| !inner(&c)).ends_with(REDACTED);
        let ends_secret = end.is_some_and(|end| is_secret[end]);
        let last: String = end.map_or_else(String::new, |end| {
            let from = (0..=end).rev().take(PIECE).take_while(|at| is_secret[*at]).last();
            characters[from.unwrap_or(end)..=end].iter().collect()
        });
        let is_whole = secrets.iter().any(|secret| secret.ends_with(&last));
        kept.goes_on = redacted || (ends_secret && !is_whole);
        replaced(&characters, &is_secret)
    }
}

/// Which characters are of pieces of secrets.
fn pieces(secrets: &[String], characters: &[char]) -> Vec<bool> {
    let mut is_secret = vec![false; characters.len()];
    for (start, piece) in characters.windows(PIECE).enumerate() {
        let piece: String = piece.iter().collect();
        if secrets.iter().any(|secret| secret.contains(&piece)) {
            is_secret[start..start + PIECE].fill(true);
        }
    }
    is_secret
}

/// The characters, with a mark for each run of secret ones.
fn replaced(characters: &[char], is_secret: &[bool]) -> String {
    let mut clean = String::with_capacity(characters.len());
    for (at, character) in characters.iter().enumerate() {
        if !is_secret[at] {
            clean.push(*character);
        } else if at == 0 || !is_secret[at - 1] {
            clean.push_str(REDACTED);
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_cut_or_over_rows_they_are_not_there() {
        let secrets = Secrets::default();
        assert_eq!(secrets.redact_row("code > abcdefgh#123"), "code > abcdefgh#123");
        secrets.add("abcdefgh#123456789-tail");
        assert_eq!(secrets.redact_row("code > abcdefgh#123456789-tail ok"), "code > [redacted] ok");
        assert_eq!(secrets.redact_row("code > abcdefg"), "code > [redacted]");
        assert_eq!(secrets.redact_row("| 456789-tail |"), "| [redacted] |");
        assert_eq!(secrets.redact_row("^[[200~abcdefgh#1^[[201~"), "^[[200~[redacted]^[[201~");
    }

    #[test]
    fn what_is_left_for_the_next_row_is_none_however_short() {
        let secrets = Secrets::default();
        secrets.add("sk-ant-oat01-abcdefghijklmnop-xyz");
        assert_eq!(secrets.redact_row("│ [redacted] │"), "│ [redacted] │", "by its form, before");
        assert_eq!(secrets.redact_row("│ xyz        │"), "│ [redacted]        │");
        assert_eq!(secrets.redact_row("xyz"), "xyz", "not of the row above");
        assert_eq!(secrets.redact_row("token: abcdefghijklm"), "token: [redacted]");
        assert_eq!(secrets.redact_row("z and more"), "z and more", "words");
        assert_eq!(secrets.redact_row("│ abcdefghijklm │"), "│ [redacted] │");
        assert_eq!(secrets.redact_row("│ p-xyz │"), "│ [redacted] │");
    }

    #[test]
    fn each_line_of_a_paste_counts_and_short_ones_do_not() {
        let secrets = Secrets::default();
        secrets.add("\x1b[200~firstline-1\rsecondline-2\x1b[201~");
        secrets.add("e");
        assert_eq!(secrets.redact_row("> secondline-2 here"), "> [redacted] here");
        assert_eq!(secrets.redact_row("> firstline-1, then"), "> [redacted], then");
    }
}
