//! What the end user prefers, as far as programs can know it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An end user's language and time zone; the host's own where they are not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preferences {
    /// Their language.
    pub locale: Option<Locale>,
    /// Their time zone, by its IANA name.
    pub time_zone: Option<String>,
}

/// A language as callers name it: language, script and region of BCP 47, in the usual case (RFC 5646,
/// 2.1.1): `de`, `de-AT`, `zh-Hant-TW`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Locale {
    language: String,
    script: Option<String>,
    region: Option<String>,
}

/// A text that names no language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a locale is a language with an optional script and region, such as de, de-AT or zh-Hant-TW"
)]
pub struct InvalidLocale;

impl Locale {
    /// The language alone: `zh`.
    #[must_use]
    pub fn language(&self) -> &str {
        &self.language
    }

    /// As the C library takes it, with its character set: `de_AT.UTF-8`, `zh_TW.UTF-8`.
    #[must_use]
    pub fn posix(&self) -> String {
        match &self.region {
            Some(region) => format!("{}_{region}.UTF-8", self.language),
            None => format!("{}.UTF-8", self.language),
        }
    }
}

impl fmt::Display for Locale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.language)?;
        for part in [&self.script, &self.region].into_iter().flatten() {
            write!(f, "-{part}")?;
        }
        Ok(())
    }
}

impl FromStr for Locale {
    type Err = InvalidLocale;

    fn from_str(tag: &str) -> Result<Self, InvalidLocale> {
        let mut parts = tag.split('-');
        let language = parts.next().filter(|part| is_letters(part, 2..=3)).ok_or(InvalidLocale)?;
        let mut rest = parts.peekable();
        let script = rest.next_if(|part| is_letters(part, 4..=4)).map(capitalised);
        let region = rest.next_if(|part| is_region(part)).map(str::to_ascii_uppercase);
        match rest.next() {
            Some(_) => Err(InvalidLocale),
            None => Ok(Self { language: language.to_ascii_lowercase(), script, region }),
        }
    }
}

impl TryFrom<String> for Locale {
    type Error = InvalidLocale;

    fn try_from(tag: String) -> Result<Self, InvalidLocale> {
        tag.parse()
    }
}

impl From<Locale> for String {
    fn from(locale: Locale) -> Self {
        locale.to_string()
    }
}

fn is_letters(part: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphabetic())
}

fn is_region(part: &str) -> bool {
    is_letters(part, 2..=2) || (part.len() == 3 && part.bytes().all(|b| b.is_ascii_digit()))
}

fn capitalised(part: &str) -> String {
    let (first, rest) = part.split_at(1);
    first.to_ascii_uppercase() + &rest.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_is_written_in_its_usual_case_and_as_the_c_library_takes_it() {
        for (written, tag, posix) in [
            ("de", "de", "de.UTF-8"),
            ("DE-at", "de-AT", "de_AT.UTF-8"),
            ("zh-Hant-TW", "zh-Hant-TW", "zh_TW.UTF-8"),
            ("ZH-hANT", "zh-Hant", "zh.UTF-8"),
            ("zh-hant-tw", "zh-Hant-TW", "zh_TW.UTF-8"),
            ("es-419", "es-419", "es_419.UTF-8"),
        ] {
            let locale: Locale = written.parse().unwrap();
            assert_eq!((locale.to_string().as_str(), locale.posix().as_str()), (tag, posix));
            assert_eq!(locale.language(), &tag[..2]);
            assert_eq!(serde_json::to_value(&locale).unwrap(), tag);
        }
        for bad in ["", "d", "de_AT", "de-AT-x", "de-", "--lang=x", "de;rm", "zh-TW-Hant", "dé"] {
            assert_eq!(bad.parse::<Locale>(), Err(InvalidLocale), "{bad}");
            assert!(serde_json::from_value::<Locale>(bad.into()).is_err(), "{bad}");
        }
    }
}
