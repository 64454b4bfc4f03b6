//! Request bodies: bounded, strict, and refused in our own words.

use axum::body::{Body, to_bytes};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// The longest body of `POST /api/auth/start`: injected files.
pub(crate) const START_LIMIT: usize = 4 * 1024 * 1024;

/// The longest body of everything else: a WebRTC offer.
pub(crate) const USUAL_LIMIT: usize = 128 * 1024;

/// Reads a JSON body of at most `limit` bytes. Unknown and duplicate fields are refused (by the
/// types), deep nesting by `serde_json`.
pub(crate) async fn read<T: DeserializeOwned>(body: Body, limit: usize) -> Result<T, Problem> {
    let bytes = to_bytes(body, limit).await.map_err(|error| {
        let too_large = std::error::Error::source(&error)
            .is_some_and(|source| source.to_string().contains("length limit exceeded"));
        if too_large {
            let detail = format!("the request's body is over {limit} bytes");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
        } else {
            Problem::bad_request("the request's body did not arrive whole")
        }
    })?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Problem::bad_request(format!("the request's body is not what this route takes: {error}"))
    })
}
