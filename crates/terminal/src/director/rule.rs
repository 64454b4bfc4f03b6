//! A pattern that means something each time it comes onto the screen.

use regex::Regex;

/// Fires when its pattern is on the screen once more than before.
pub struct Rule {
    pattern: Regex,
    seen: usize,
}

/// Where a pattern is on the screen, in bytes of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
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
    pub fn came(&mut self, text: &str) -> Option<Place> {
        let before = self.seen;
        self.seen = self.pattern.find_iter(text).count();
        self.place(text).filter(|_| self.seen > before)
    }

    /// Where it is on the screen; the lowest place.
    pub fn place(&self, text: &str) -> Option<Place> {
        let last = self.pattern.find_iter(text).last();
        last.map(|hit| Place { start: hit.start(), end: hit.end() })
    }
}

/// The line that holds the byte at `at`.
pub fn line_at(text: &str, at: usize) -> &str {
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    text[start..].lines().next().unwrap_or_default().trim()
}
