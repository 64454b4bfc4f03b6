//! `Idempotency-Key`: a call that is made again, since its answer was lost, starts nothing again
//! (draft-ietf-httpapi-idempotency-key-header).

use axum::http::HeaderMap;
use sha2::{Digest, Sha256};

use crate::bearer::bearer;
use crate::problem::Problem;

/// The header.
pub(crate) const HEADER: &str = "idempotency-key";

/// On an answer that was given before.
pub(crate) const REPLAYED: &str = "idempotent-replayed";

/// The longest key, in bytes.
const MAX_KEY: usize = 255;

/// A call that may be made again. Hashes, so that nothing of a caller's is kept in clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// SHA-256 of the caller's API key and their `Idempotency-Key`.
    pub key: [u8; 32],
    /// SHA-256 of the request's body.
    pub body: [u8; 32],
}

impl Idempotency {
    /// From the request; `None` when the caller gave no key.
    pub(crate) fn of(headers: &HeaderMap, body: &[u8]) -> Result<Option<Self>, Problem> {
        let mut values = headers.get_all(HEADER).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Problem::bad_request(
                "a request may have only one Idempotency-Key".to_owned(),
            ));
        }
        let key = value.as_bytes();
        if key.is_empty() || key.len() > MAX_KEY || !key.iter().all(u8::is_ascii_graphic) {
            let detail = format!(
                "Idempotency-Key must be 1 to {MAX_KEY} visible ASCII characters, without spaces"
            );
            return Err(Problem::bad_request(detail));
        }
        // Two callers may choose the same key.
        let caller = bearer(headers).unwrap_or_default();
        let hash = Sha256::new().chain_update(caller).chain_update([0]);
        Ok(Some(Self {
            key: hash.chain_update(key).finalize().into(),
            body: Sha256::digest(body).into(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(caller: &str, key: &str, body: &str) -> Result<Option<Idempotency>, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", caller.parse().unwrap());
        headers.insert(HEADER, key.parse().unwrap());
        Idempotency::of(&headers, body.as_bytes())
    }

    #[test]
    fn callers_keys_and_bodies_are_distinguished() {
        let first = of("Bearer a", "k", "x").unwrap().unwrap();
        assert_eq!(of("Bearer a", "k", "x").unwrap().unwrap(), first);
        assert_eq!(of("bearer  a", "k", "x").unwrap().unwrap(), first);
        assert_ne!(of("Bearer b", "k", "x").unwrap().unwrap().key, first.key);
        assert_ne!(of("Bearer a", "l", "x").unwrap().unwrap().key, first.key);
        assert_ne!(of("Bearer a", "k", "y").unwrap().unwrap().body, first.body);
        assert_eq!(Idempotency::of(&HeaderMap::new(), b"x"), Ok(None));
    }

    #[test]
    fn odd_keys_are_refused() {
        for key in ["", "a b", &"x".repeat(256)] {
            assert!(of("Bearer a", key, "x").is_err(), "{key:?}");
        }
    }
}
