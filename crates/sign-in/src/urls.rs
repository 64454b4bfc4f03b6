//! Web addresses on a screen, also those that go over several rows.

use std::collections::VecDeque;
use std::sync::LazyLock;

use regex::Regex;

/// The longest address taken, in characters.
const MAX_URL: usize = 8 * 1024;

/// How far from the last column a row may end that a program has broken itself: borders and padding.
const MARGIN: usize = 8;

/// Characters of an address (RFC 3986, section 2), from its scheme on.
#[expect(clippy::unwrap_used, reason = "a constant pattern, compiled by every test")]
static URL: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"https?://[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+").unwrap());

/// What addresses are made of.
#[expect(clippy::unwrap_used, reason = "a constant pattern, compiled by every test")]
static REST: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+$").unwrap());

/// Borders that programs draw around what they say.
const BORDER: [char; 10] = ['│', '┃', '║', '|', '╎', '┆', '┊', '▌', '▐', '█'];

/// Addresses on rows (each with whether the terminal itself goes on in the next one), in order.
pub fn on_rows(rows: &[(String, bool)], columns: usize) -> Vec<String> {
    let mut found = Vec::new();
    for (n, (row, _)) in rows.iter().enumerate() {
        // A row that another one goes on in is read with that one.
        let text = inner(row);
        for hit in URL.find_iter(text) {
            let mut url = hit.as_str().to_owned();
            if hit.end() == text.len() {
                continue_on(&mut url, rows, n, columns);
            }
            found.push(without_text_around(&url).to_owned());
        }
    }
    found
}

/// An address without the marks of the text that it stands in; a bracket that it opened is its own.
fn without_text_around(url: &str) -> &str {
    let mut url = url;
    while let Some(last) = url.chars().next_back() {
        let opened = |open| url.matches(open).count() >= url.matches(last).count();
        let is_text = match last {
            '.' | ',' | ';' | ':' | '!' | '?' | '\'' | '*' => true,
            ')' => !opened('('),
            ']' => !opened('['),
            _ => false,
        };
        if !is_text {
            return url;
        }
        url = &url[..url.len() - last.len_utf8()];
    }
    url
}

/// Addresses as shown, completed by links: a link completes an address that is shown cut, and one whose
/// text is not an address comes before all that can be read.
pub fn with_links(mut shown: Vec<String>, links: &VecDeque<String>) -> Vec<String> {
    let mut hidden = Vec::new();
    for link in links {
        match shown.iter_mut().rfind(|url| link.starts_with(url.as_str())) {
            Some(url) => url.clone_from(link),
            None => hidden.push(link.clone()),
        }
    }
    hidden.extend(shown);
    hidden
}

/// Whether a text is a web address of plain characters, with a host.
pub fn is_address(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '['))
        && text.len() <= MAX_URL
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// An address that a browser may be sent to, in the characters that one has (RFC 3986).
pub fn web_address(url: &str) -> Option<String> {
    let parsed = url::Url::parse(url).ok().filter(|_| url.len() <= 8 * 1024)?;
    matches!(parsed.scheme(), "http" | "https").then(|| parsed.into())
}

/// Adds the rows that an address goes on in.
fn continue_on(url: &mut String, rows: &[(String, bool)], first: usize, columns: usize) {
    let mut n = first;
    while let (Some((row, wrapped)), Some((next, _))) = (rows.get(n), rows.get(n + 1)) {
        // A border stands some columns before the end; without one a program breaks where a row ends.
        let row = row.trim_end();
        let margin = if row.ends_with(BORDER) { MARGIN } else { 1 };
        let broken_here = *wrapped || row.chars().count() + margin >= columns;
        let next = inner(next);
        let rest = if *wrapped { next.split(' ').next().unwrap_or_default() } else { next };
        if !broken_here || !REST.is_match(rest) || url.len() + rest.len() > MAX_URL {
            return;
        }
        url.push_str(rest);
        if rest.len() != next.len() {
            return;
        }
        n += 1;
    }
}

/// A row without borders and blanks around it.
fn inner(row: &str) -> &str {
    row.trim_matches(|c: char| c.is_whitespace() || BORDER.contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rows: &[(&str, bool)]) -> Vec<String> {
        let rows: Vec<_> =
            rows.iter().map(|(row, wrapped)| ((*row).to_owned(), *wrapped)).collect();
        on_rows(&rows, 30)
    }

    #[test]
    fn a_program_that_breaks_rows_itself_is_understood() {
        let rows = [
            ("╭──────────────────────────╮", false),
            ("│ https://a.test/auth?x=12 │", false),
            ("│ 34567890123456789012345& │", false),
            ("│ y=2                      │", false),
            ("│ Waiting for you          │", false),
        ];
        assert_eq!(found(&rows), ["https://a.test/auth?x=1234567890123456789012345&y=2"]);
    }

    #[test]
    fn what_is_read_counts_for_more_than_where_a_link_leads() {
        let links = |list: &[&str]| list.iter().map(|link| (*link).to_owned()).collect();
        let shown = || vec!["https://a.test/real".to_owned()];
        let found = with_links(shown(), &links(&["https://evil.test/", "https://a.test/real?x=1"]));
        assert_eq!(found, ["https://evil.test/", "https://a.test/real?x=1"]);
        for bad in ["https://", "https://a b", "https://a\u{202e}", "javascript:x", "https:///x"] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    #[test]
    fn marks_around_an_address_are_no_part_of_it() {
        for (row, url) in [
            ("[here](https://a.test/x).", "https://a.test/x"),
            ("https://a.test/x_(y)", "https://a.test/x_(y)"),
            ("(https://a.test/x_(y))", "https://a.test/x_(y)"),
            ("**https://a.test/x**", "https://a.test/x"),
            ("<https://a.test/x?y=1>,", "https://a.test/x?y=1"),
        ] {
            assert_eq!(found(&[(row, false)]), [url], "{row}");
        }
    }

    #[test]
    fn what_follows_a_short_address_is_not_its_own() {
        let rows = [("See https://a.test/x.", false), ("Waiting", false)];
        assert_eq!(found(&rows), ["https://a.test/x"]);
        let rows = [("https://a.test/12345678901234", true), ("5678 or not", false)];
        assert_eq!(found(&rows), ["https://a.test/123456789012345678"]);
    }

    #[test]
    fn an_address_has_an_address_s_characters() {
        let same = "https://a.test/x?state=b&code_challenge=c-_~";
        assert_eq!(web_address(same).as_deref(), Some(same));
        let clean = web_address("https://a.test/\u{202e}x y").unwrap();
        assert!(clean.is_ascii() && !clean.contains(' '), "{clean}");
        for none in ["", "javascript:x", "file:///x", &format!("https://a/{}", "x".repeat(9000))] {
            assert_eq!(web_address(none), None);
        }
    }
}
