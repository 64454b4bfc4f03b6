//! Request bodies: bounded, strict, and refused in our own words.

use axum::body::Body;
use futures::StreamExt;
use serde::de::DeserializeOwned;

use crate::problem::{Problem, ProblemCode};

/// The longest body of `POST /api/auth/start`: injected files, together and escaped as JSON.
pub(crate) const START_LIMIT: usize = 12 * 1024 * 1024;

/// The longest body of everything else: a WebRTC offer.
pub(crate) const USUAL_LIMIT: usize = 128 * 1024;

/// Reads a JSON body of at most `limit` bytes. Unknown and duplicate fields are refused (by the
/// types), deep nesting by `serde_json`.
pub(crate) async fn read<T: DeserializeOwned>(body: Body, limit: usize) -> Result<T, Problem> {
    parse(&collect(body, limit).await?)
}

/// What [`collect`] gave, as JSON.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // serde takes an array of the fields' values for a struct.
    if bytes.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        return Err(Problem::bad_request("the request body must be a JSON object"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        Problem::bad_request(format!("the request body is not valid for this route: {error}"))
    })
}

/// The body's bytes.
pub(crate) async fn collect(body: Body, limit: usize) -> Result<Vec<u8>, Problem> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::bad_request("the request body is incomplete"))?;
        if bytes.len().saturating_add(chunk.len()) > limit {
            let detail = format!("the request body is larger than {limit} bytes");
            return Err(Problem::new(ProblemCode::BodyTooLarge, detail));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
