//! Whether a screen shows a question that the end user has to answer.

use std::sync::LazyLock;

use regex::Regex;

/// Ends of a line that the cursor waits behind.
const ENDS: [char; 8] = ['?', '？', ':', '：', '>', '»', '❯', '›'];

/// Ends of a line, where the cursor waits behind a choice in brackets: no time, progress or state.
#[expect(clippy::unwrap_used, reason = "a constant pattern, compiled by every test")]
static CHOICE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\[([^\[\]]*\pL[^\[\]]*)\]$").unwrap());
#[expect(clippy::unwrap_used, reason = "a constant pattern, compiled by every test")]
static STATE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?i)^(?:ok|done|failed|failure|skipped|warn\w*|error|info|fatal|debug|\W*\d.*)$|[=#]{2}",
    )
    .unwrap()
});

/// Phrases that ask, anywhere in a line.
#[expect(clippy::unwrap_used, reason = "a constant pattern, compiled by every test")]
static ASKS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?ix)[\[(<]\s?(?:y(?:es)?\s?/\s?n(?:o)?|\pL/\pL)\b[^\])>]{0,24}[\])>]
          | \by(?:es)?\s?/\s?n(?:o)?\s*[?:]?$
          | \b(?:press|hit)\b.{0,24}\b(?:enter|return|any\ key|a\ key)\b
          | \b(?:enter|return|space)\b\ (?:to\ )?(?:submit|select|confirm|continue|choose|accept)\b
          | \buse\ (?:the\ )?arrows?\b | \barrow\ keys\b
          | <\s*(?:yes|ok)\s*>\s+<\s*(?:no|cancel)\s*> | \pL\ =$
          | ^--\s?more\s?-- | ^\(END\)$
          | (?:^|\W)\[\w\]\w+.*\W\[\w\]\w+
          | [(\[]default(?:[:=]?\s*[^\s\])]+)?[)\]]\s*[:?>]?$",
    )
    .unwrap()
});

/// Beginnings of lines that ask the end user to type something, when the cursor waits behind them.
#[expect(clippy::unwrap_used, reason = "a constant pattern, compiled by every test")]
static INSTRUCTS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)^\W*(?:please\s+)?(?:(?:re-?)?enter|type|choose|select|pick|confirm)\s.*[^.…]$|\b(?:password|passphrase|passcode)$")
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
        let asks = ends_in_question(line) || ASKS.is_match(line) || instructs(line);
        // Behind a choice of a menu, below what says how to choose.
        let heads = |above: &&str| ASKS.is_match(above) || ends_in_question(above);
        let menu = || (0..cursor).rev().find_map(row).filter(heads);
        return if asks { Some(line) } else { menu().filter(|_| CHOSEN.is_match(line)) };
    }
    // A program that ended the line before it reads.
    let above = (0..cursor.min(rows.len())).rev().find_map(row)?;
    (above.ends_with(['?', '？']) && ends_in_question(above) || ASKS.is_match(above))
        .then_some(above)
}

/// Whether a line asks for something to be typed here, and not elsewhere.
fn instructs(line: &str) -> bool {
    INSTRUCTS.is_match(line) && !line.contains("://") && !line.contains("browser")
}

/// Whether the end of a line asks; an address or a log's state may end so, too.
fn ends_in_question(line: &str) -> bool {
    let is_address = line.rsplit(' ').next().is_some_and(|last| last.contains("://"));
    let choice = CHOICE.captures(line).and_then(|found| found.get(1));
    (line.ends_with(ENDS) && !is_address)
        || choice.is_some_and(|choice| !STATE.is_match(choice.as_str().trim()))
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
            "Are you sure you want to continue connecting (yes/no/[fingerprint])? ",
            "Enregistrer le jeton ? (o/N)",
            "是否保存令牌？",
            "Overwrite? [A]lways [N]ever [O]nce",
            "Enter to continue, Esc to cancel",
            "Enter your choice (1 or 2)",
            "Type 'yes' to accept the terms",
            "2FA code = ",
            "│      < Yes >      < No >      │",
            "[sudo] password for user: ",
            "Password ",
            "--More--",
            "(END)",
        ] {
            assert_eq!(asked(&["done", line], 1, false).as_deref(), Some(line.trim()), "{line}");
        }
        for line in ["Continue? (yes/no)", "Press ENTER to go on", "Hit any key", "Keep it?"] {
            assert_eq!(asked(&[line, "", ""], 1, false).as_deref(), Some(line), "{line}");
        }
        let keys = ["? Keep it where? (Use arrow keys)", "❯ keychain", "  file"];
        assert_eq!(asked(&keys, 1, false).as_deref(), Some(keys[0]));
        let plain = ["Choose a keyring:", "> keychain", "  file"];
        assert_eq!(asked(&plain, 1, false).as_deref(), Some(plain[0]));
        assert_eq!(asked(&["Opening the page", "> Waiting"], 1, false), None);
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
        for line in [
            "[12:00:01]",
            "[=====>    ]",
            "Starting the server [OK]",
            "https://x.test/login?",
            "Answered yes/no before; waiting",
            "Waiting for browser (default timeout 5 min)",
            "Enter the code on the page that opened.",
            "Enter the code ABCD-EFGH at https://a.test/device",
            "Choose your account in the browser",
        ] {
            assert_eq!(asked(&[line], 0, false), None, "{line}");
        }
        assert_eq!(asked(&["⠋ Waiting for you…"], 0, false), None);
        assert_eq!(asked(&[], 0, true), None);
    }
}
