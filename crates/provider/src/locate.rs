//! Which line of a TOML text a key or a mistake is on.

use serde::de::Error;
use toml::de::{DeTable, DeValue};

use crate::check::{Key, Step};

/// The lines (from 1) of keys, each its own or that of the nearest thing around it that is there.
pub fn lines_of<'k>(text: &str, keys: impl Iterator<Item = &'k Key>) -> Vec<usize> {
    // Not read again where nothing is to be found.
    let mut keys = keys.peekable();
    if keys.peek().is_none() {
        return Vec::new();
    }
    let Ok(document) = DeTable::parse(text) else { return keys.map(|_| 1).collect() };
    keys.map(|key| line_of(text, document.get_ref(), key)).collect()
}

/// The longest line that a mistake of form is reported with, in bytes.
const MAX_LINE: usize = 500;

/// A mistake of form, which quotes its line: without that where it is long, and cut where its message is.
pub fn without_long_lines(text: &str, error: toml::de::Error) -> toml::de::Error {
    let at = error.span().map_or(0, |span| span.start);
    let before = text.get(..at).unwrap_or_default();
    let begin = before.rfind('\n').map_or(0, |end| end + 1);
    let length = text[begin..].find('\n').unwrap_or(text.len() - begin);
    if length <= MAX_LINE && error.message().len() <= MAX_LINE {
        return error;
    }
    let (line, column) = (before.matches('\n').count() + 1, before[begin..].chars().count() + 1);
    let message: String = error.message().chars().take(MAX_LINE).collect();
    toml::de::Error::custom(format_args!(
        "TOML parse error at line {line}, column {column}: {message}"
    ))
}

fn line_of(text: &str, document: &DeTable<'_>, key: &Key) -> usize {
    let mut at = 0;
    let mut table = Some(document);
    let mut list = None;
    for step in &key.0 {
        let found = match step {
            Step::Name(name) => table.and_then(|table| {
                let (key, value) = table.iter().find(|(key, _)| key.get_ref() == name)?;
                Some((key.span(), value))
            }),
            Step::Item(index) => list.and_then(|list: &toml::de::DeArray<'_>| {
                let value = list.get(*index)?;
                Some((value.span(), value))
            }),
        };
        let Some((span, value)) = found else { break };
        at = span.start;
        (table, list) = match value.get_ref() {
            DeValue::Table(table) => (Some(table), None),
            DeValue::Array(list) => (None, Some(list)),
            _ => (None, None),
        };
    }
    text.get(..at).unwrap_or_default().matches('\n').count() + 1
}
