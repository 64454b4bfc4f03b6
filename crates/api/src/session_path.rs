//! The session that a path names.

use anteroom_session::SessionId;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use crate::problem::Problem;

/// The session of a route with `{id}`; what is no session id, or no UTF-8, is a problem in our words.
pub(crate) struct SessionPath(pub(crate) SessionId);

impl<S: Send + Sync> FromRequestParts<S> for SessionPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::bad_request(error.to_string()))?;
        session_id(&text).map(Self)
    }
}

/// One spelling, or there is none.
pub(crate) fn session_id(text: &str) -> Result<SessionId, Problem> {
    text.parse()
        .map_err(|error: anteroom_session::InvalidId| Problem::bad_request(error.to_string()))
}
