//! Which line of a TOML text a key is on.

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
