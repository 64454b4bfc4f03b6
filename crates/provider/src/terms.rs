//! What a provider's terms say of who may hold a login.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Somebody has read the provider's terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TermsOfUse {
    /// The page that was read.
    pub page: String,
    /// When, as `2026-11-27`: terms change.
    #[schemars(extend("format" = "date"))]
    pub read: String,
    /// Who may hold the credential, as that page says.
    pub custody: Custody,
}

/// Who may hold a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Custody {
    /// The end user alone: it is sealed to a key of theirs, never to the vault.
    RecipientOnly,
    /// The operator too: it may be sealed to the vault.
    Vault,
}

/// Whether this is a day of the calendar as RFC 3339 writes it.
pub(crate) fn is_date(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut number = |digits: usize, range: std::ops::RangeInclusive<u16>| {
        parts.next().is_some_and(|part| {
            part.len() == digits
                && part.bytes().all(|b| b.is_ascii_digit())
                && part.parse().is_ok_and(|value| range.contains(&value))
        })
    };
    number(4, 2000..=9999) && number(2, 1..=12) && number(2, 1..=31) && parts.next().is_none()
}
