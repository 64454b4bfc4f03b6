//! A pattern that means something each time it comes onto the screen.

use regex::Regex;

/// Fires when its pattern is on the screen once more than before.
pub struct Rule {
    pattern: Regex,
    seen: usize,
}

/// Where a pattern is on the screen, in bytes of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it begins.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

impl Rule {
    /// Of a provider file's pattern.
    pub fn new(pattern: &str) -> Result<Self, regex::Error> {
        Ok(Self { pattern: Regex::new(pattern)?, seen: 0 })
    }

    /// Where it is on the screen, if it is there once more than before.
    pub fn came(&mut self, text: &str) -> Option<Span> {
        let before = self.seen;
        self.seen = self.pattern.find_iter(text).count();
        self.place(text).filter(|_| self.seen > before)
    }

    /// Where it is on the screen; the lowest place.
    pub fn place(&self, text: &str) -> Option<Span> {
        let last = self.pattern.find_iter(text).last();
        last.map(|hit| Span { start: hit.start(), end: hit.end() })
    }
}

/// The line that holds the byte at `at`, without what moves behind it and runs of blanks.
pub fn line_at(text: &str, at: usize) -> String {
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    let mut parts: Vec<&str> = line.split_whitespace().collect();
    while parts.len() > 1 && parts.last().is_some_and(|last| last.chars().all(spins)) {
        parts.pop();
    }
    parts.join(" ")
}

/// What a text says, whatever a clock, a counter or a spinner in it shows: without white space, and the
/// same for each of their pictures.
pub fn at_rest(text: &str) -> String {
    let mut rest = String::new();
    let mut moved = false;
    for c in text.chars() {
        let moves = spins(c) || c.is_ascii_digit();
        match moves {
            true if !moved => rest.push('#'),
            false if !c.is_whitespace() => rest.push(c),
            _ => {}
        }
        moved = moves;
    }
    rest
}

/// Whether what stands behind a question is what stood there `before`, with nothing new but a part of
/// what was typed, which the terminal may have shown. All three [`at_rest`].
pub fn stands_on(before: &str, behind: &str, typed: &str) -> bool {
    let Some(new) = behind.len().checked_sub(before.len()) else { return false };
    let cuts = before.char_indices().map(|(at, _)| at).chain([before.len()]);
    cuts.into_iter().any(|at| {
        behind.starts_with(&before[..at])
            && behind.ends_with(&before[at..])
            && behind.get(at..at + new).is_some_and(|new| typed.starts_with(new))
    })
}

/// A picture of a spinner.
fn spins(c: char) -> bool {
    matches!(c, '|' | '/' | '-' | '\\' | '\u{2800}'..='\u{28ff}' | '◐'..='◓' | '◴'..='◷')
}
