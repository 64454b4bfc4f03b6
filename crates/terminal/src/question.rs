//! Whether a screen stands at a question, as a person sees it.

use std::sync::LazyLock;

use regex::Regex;

/// Ends of a line that the cursor waits behind.
const ENDS: [char; 7] = ['?', ':', '>', ']', '»', '❯', '›'];

/// Words that ask wherever they stand in a line.
#[expect(clippy::unwrap_used, reason = "a constant pattern, compiled by every test")]
static ASKS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?i)[\[(<]?\b(?:y(?:es)?\s?/\s?n(?:o)?)\b[\])>]?|\b(?:press|hit)\b.{0,24}\b(?:enter|return|any key|a key)\b|[(\[]default\b",
    )
    .unwrap()
});

/// A row of a menu that is chosen from.
#[expect(clippy::unwrap_used, reason = "a constant pattern, compiled by every test")]
static CHOSEN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\s*[│┃|]?\s*(?:❯|›|➤|▸|▶|◉|●|→|\(\*\)|\[[xX ]\]|>)\s*\S").unwrap()
});

/// The line that asks, if the screen stands at one: `cursor` is the row that the cursor is on, `hidden`
/// whether it is not shown, as in menus.
pub fn question(rows: &[String], cursor: usize, hidden: bool) -> Option<&str> {
    let row = |n: usize| rows.get(n).map(|row| row.trim()).filter(|row| !row.is_empty());
    if hidden && let Some(chosen) = rows.iter().position(|row| CHOSEN.is_match(row)) {
        // What is asked stands above the choices.
        return (0..=chosen).rev().find_map(|n| row(n).filter(|row| !CHOSEN.is_match(row)));
    }
    if let Some(line) = row(cursor) {
        return (line.ends_with(ENDS) || ASKS.is_match(line)).then_some(line);
    }
    // A program that ended the line before it reads.
    let above = (0..cursor.min(rows.len())).rev().find_map(row)?;
    (above.ends_with('?') || ASKS.is_match(above)).then_some(above)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(rows: &[&str], cursor: usize, hidden: bool) -> Option<String> {
        let rows: Vec<String> = rows.iter().map(|row| (*row).to_owned()).collect();
        question(&rows, cursor, hidden).map(str::to_owned)
    }

    #[test]
    fn questions_are_known_by_where_the_cursor_waits() {
        for line in [
            "Store the token in a plain file? y/N ",
            "Overwrite [Y/n]",
            "Passphrase: ",
            "Name (default: work)",
            "? Which account?",
            "> ",
        ] {
            assert_eq!(asked(&["done", line], 1, false).as_deref(), Some(line.trim()), "{line}");
        }
        for line in ["Continue? (yes/no)", "Press ENTER to go on", "Hit any key", "Keep it?"] {
            assert_eq!(asked(&[line, "", ""], 1, false).as_deref(), Some(line), "{line}");
        }
        let menu = ["? Which account", "❯ work", "  home"];
        assert_eq!(asked(&menu, 3, true).as_deref(), Some("? Which account"));
    }

    #[test]
    fn a_tool_that_waits_for_something_else_asks_nothing() {
        for line in [
            "Waiting for the browser...",
            "Open https://a.test/x and sign in.",
            "On a remote machine? Use the other way.",
            "Press Ctrl+C to cancel",
            "Tokens:",
        ] {
            assert_eq!(asked(&[line, ""], 1, false), None, "{line}");
        }
        assert_eq!(asked(&["⠋ Waiting for you…"], 0, false), None);
        assert_eq!(asked(&[], 0, true), None);
    }
}
