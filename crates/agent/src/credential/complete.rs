//! When the content of a credential's file is complete.

use std::borrow::Cow;

use anteroom_guest_protocol::{Completeness, CredentialFileSpec};
use anyhow::{Context, Result};
use regex::Regex;

/// What a file's content must have.
pub enum Complete {
    /// JSON with non-empty strings at these pointers.
    Json(Vec<String>),
    /// Text that matches each.
    Text(Vec<Regex>),
    /// Any bytes.
    Binary,
}

impl Complete {
    /// As a provider file asks for it.
    pub fn of(spec: &CredentialFileSpec) -> Result<Self> {
        Ok(match &spec.complete {
            Completeness::Json { pointers } => Self::Json(pointers.clone()),
            Completeness::Text { patterns } => {
                let patterns = patterns.iter().map(|pattern| Regex::new(pattern));
                let patterns = patterns.collect::<Result<_, _>>();
                Self::Text(patterns.with_context(|| {
                    format!("a pattern for {} is not a valid regular expression", spec.path)
                })?)
            }
            Completeness::Binary {} => Self::Binary,
        })
    }

    /// What is wrong with the content first, as it follows "exists, but". Half-written JSON
    /// does not parse, so a parse with every required field is completeness.
    pub fn wrong_with(&self, content: &[u8]) -> Option<String> {
        if content.is_empty() {
            return Some("is empty".to_owned());
        }
        match self {
            Self::Json(pointers) => {
                let Some(text) = text_of(content) else {
                    return Some("is not UTF-8 or UTF-16 text".to_owned());
                };
                let json = match serde_json::from_str::<serde_json::Value>(&text) {
                    Ok(json) => json,
                    Err(error) => {
                        let (line, column) = (error.line(), error.column());
                        return Some(format!("is not valid JSON (line {line}, column {column})"));
                    }
                };
                pointers.iter().find_map(|pointer| match json.pointer(pointer) {
                    None | Some(serde_json::Value::Null) => Some(format!("has no {pointer}")),
                    Some(value) => match value.as_str() {
                        Some("") => Some(format!("its {pointer} is empty")),
                        Some(_) => None,
                        None => Some(format!("its {pointer} is not a string")),
                    },
                })
            }
            Self::Text(patterns) => {
                let Some(text) = text_of(content) else {
                    return Some("is not UTF-8 or UTF-16 text".to_owned());
                };
                let missing = patterns.iter().find(|pattern| !pattern.is_match(&text));
                missing.map(|pattern| format!("nothing in it matches {pattern}"))
            }
            Self::Binary => None,
        }
    }
}

/// A file's text without its byte order mark, which also shows how it is encoded.
pub fn text_of(content: &[u8]) -> Option<Cow<'_, str>> {
    let utf_16 = |content: &[u8], character: fn([u8; 2]) -> u16| {
        let (pairs, rest) = content.as_chunks::<2>();
        let text = char::decode_utf16(pairs.iter().map(|pair| character(*pair)));
        let text: String = text.collect::<Result<_, _>>().ok()?;
        rest.is_empty().then_some(Cow::Owned(text))
    };
    match content {
        [0xef, 0xbb, 0xbf, text @ ..] => std::str::from_utf8(text).ok().map(Cow::Borrowed),
        [0xff, 0xfe, text @ ..] => utf_16(text, u16::from_le_bytes),
        [0xfe, 0xff, text @ ..] => utf_16(text, u16::from_be_bytes),
        text => std::str::from_utf8(text).ok().map(Cow::Borrowed),
    }
}
