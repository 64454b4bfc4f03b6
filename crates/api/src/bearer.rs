//! The API key of a request (RFC 6750, 2.1).

use axum::http::{HeaderMap, header};

/// The API key of a request, as it was given.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    // The scheme's name has no case (RFC 9110, 11.1).
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim_start())
}
