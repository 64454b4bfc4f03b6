//! What routes ask of a request before they do anything: who asks, and about which session.

use std::sync::Arc;

use anteroom_session::SessionId;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use crate::backend::{Asker, Backend};
use crate::guard::{caller, viewer_or_caller};
use crate::problem::Problem;

/// A caller with an API key. Comes first among a route's arguments: who may not ask learns nothing
/// else, not even whether the rest of the request is well-formed.
pub(crate) struct Caller;

impl<B: Backend> FromRequestParts<Arc<B>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, backend: &Arc<B>) -> Result<Self, Problem> {
        caller(&**backend, &parts.headers).await.map(|()| Self)
    }
}

/// The viewer of the session that the path names, or a caller.
pub(crate) struct Viewer(pub(crate) SessionId, pub(crate) Asker);

impl<B: Backend> FromRequestParts<Arc<B>> for Viewer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, backend: &Arc<B>) -> Result<Self, Problem> {
        match SessionPath::from_request_parts(parts, backend).await {
            Ok(SessionPath(id)) => {
                let asker = viewer_or_caller(&**backend, &parts.headers, id).await?;
                Ok(Self(id, asker))
            }
            // No session has a viewer then.
            Err(problem) => {
                caller(&**backend, &parts.headers).await?;
                Err(problem)
            }
        }
    }
}

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
