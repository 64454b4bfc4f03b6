//! What routes ask of a request before they do anything: who asks, and about which session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anteroom_session::SessionId;
use axum::extract::{FromRequestParts, Path};
use axum::http::Extensions;
use axum::http::request::Parts;

use crate::backend::Backend;
use crate::guard::{caller, viewer_or_caller};
use crate::principal::{Principal, Scope};
use crate::problem::{Problem, ProblemCode};

/// Whether whoever asks showed a right that is known here. Whoever serves connections puts one into a
/// request's extensions and looks at it when the answer is there.
#[derive(Clone, Debug, Default)]
pub struct Recognized(Arc<AtomicBool>);

impl Recognized {
    /// Whether they did.
    #[must_use]
    pub fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// They did.
    pub(crate) fn in_extensions(extensions: &Extensions) {
        if let Some(Self(recognized)) = extensions.get() {
            recognized.store(true, Ordering::Relaxed);
        }
    }
}

/// A caller with an API key. Comes first among a route's arguments: who may not ask learns nothing
/// else, not even whether the rest of the request is well-formed.
pub(crate) struct Caller(pub(crate) Principal);

impl<B: Backend> FromRequestParts<Arc<B>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, backend: &Arc<B>) -> Result<Self, Problem> {
        let principal = caller(&**backend, &parts.headers).await?;
        Recognized::in_extensions(&parts.extensions);
        Ok(Self(principal))
    }
}

/// A caller whose key may manage keys.
pub(crate) struct Admin(pub(crate) Principal);

impl<B: Backend> FromRequestParts<Arc<B>> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, backend: &Arc<B>) -> Result<Self, Problem> {
        let principal = caller(&**backend, &parts.headers).await?;
        Recognized::in_extensions(&parts.extensions);
        if principal.may(Scope::Keys) {
            return Ok(Self(principal));
        }
        let detail = "this requires an API key with the role admin; on the controller's own machine, the `anteroom` command has one";
        Err(Problem::new(ProblemCode::NotAdmin, detail))
    }
}

/// The viewer of the session that the path names, or a caller.
pub(crate) struct Viewer(pub(crate) SessionId, pub(crate) Principal);

impl<B: Backend> FromRequestParts<Arc<B>> for Viewer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, backend: &Arc<B>) -> Result<Self, Problem> {
        match SessionPath::from_request_parts(parts, backend).await {
            Ok(SessionPath(id)) => {
                let principal = viewer_or_caller(&**backend, &parts.headers, id).await?;
                Recognized::in_extensions(&parts.extensions);
                Ok(Self(id, principal))
            }
            // No session has a viewer then.
            Err(problem) => {
                caller(&**backend, &parts.headers).await?;
                Recognized::in_extensions(&parts.extensions);
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
