//! Routes of API callers, by Bearer key.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Json, Response};
use futures::{Stream, StreamExt};
use tokio_stream::wrappers::WatchStream;

use crate::backend::{Backend, Begun, Revoked, Watched};
use crate::extract::{Caller, SessionPath};
use crate::idempotency::{self, Idempotency};
use crate::json::{START_LIMIT, USUAL_LIMIT, collect, parse, read};
use crate::memory::MemoryView;
use crate::problem::Problem;
use crate::wire::{
    AllowHost, Code, CodeTaken, CredentialStatus, OAuthUrl, SessionEvent, SessionSummary,
    SessionView, StartAnswer, StartRequest, ViewerLink,
};

/// Start a sign-in: boot a disposable sandbox and return a one-use link for the end user. With an
/// `Idempotency-Key` (kept for a day), the same call returns the same session and a new link.
#[utoipa::path(post, path = "/api/auth/start", request_body = StartRequest, security(("apiKey" = [])),
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255, pattern = "^[!-~]+$",
        description = "A value that the caller chooses, a new one for each sign-in")),
    responses(
    (status = 201, body = StartAnswer, description = "The session was created",
        headers(("Idempotent-Replayed" = Option<String>, description = "`true` if an earlier identical call created the session"))),
    (status = 400, body = Problem, description = "The request is not valid"),
    (status = 401, body = Problem, description = "The API key is missing or unknown"),
    (status = 404, body = Problem, description = "There is no provider with this id"),
    (status = 409, body = Problem, description = "A call with the same Idempotency-Key is in progress"),
    (status = 413, body = Problem, description = "The request body is too large"),
    (status = 422, body = Problem, description = "A value is not valid, the provider's terms require a recipient, or the Idempotency-Key was used with a different body"),
    (status = 503, body = Problem, description = "There is no capacity for the session (Retry-After is absent where there can never be) or no image, isolation is too weak, the disk is full, or the controller is stopping",
        headers(("Retry-After" = Option<u64>, description = "When to retry, in seconds")))
))]
pub(super) async fn start<B: Backend>(
    State(backend): State<Arc<B>>,
    Caller(principal): Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let body = collect(body, START_LIMIT).await?;
    let idempotency = Idempotency::of(&headers, &body)?;
    let request: StartRequest = parse(&body)?;
    Ok(match backend.start(request, idempotency, &principal).await? {
        Begun::Now(answer) => (StatusCode::CREATED, Json(answer)).into_response(),
        Begun::Before(answer) => {
            (StatusCode::CREATED, [(idempotency::REPLAYED, "true")], Json(answer)).into_response()
        }
    })
}

/// List all sessions, newest first.
#[utoipa::path(get, path = "/api/sessions", security(("apiKey" = [])), responses(
    (status = 200, body = Vec<SessionSummary>), (status = 401, body = Problem)
))]
pub(super) async fn sessions<B: Backend>(
    State(backend): State<Arc<B>>,
    Caller(_): Caller,
) -> Result<Json<Vec<SessionSummary>>, Problem> {
    Ok(Json(backend.sessions().await?))
}

/// Measure the memory of all sessions that run.
#[utoipa::path(get, path = "/api/memory", security(("apiKey" = [])), responses(
    (status = 200, body = MemoryView), (status = 401, body = Problem)
))]
pub(super) async fn memory<B: Backend>(
    State(backend): State<Arc<B>>,
    Caller(_): Caller,
) -> Result<Json<MemoryView>, Problem> {
    Ok(Json(backend.memory().await))
}

/// Retrieve a session with its state, timeline and reason.
#[utoipa::path(get, path = "/api/auth/session/{id}", params(("id" = String, Path)), security(("apiKey" = [])), responses(
    (status = 200, body = SessionView), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 404, body = Problem)
))]
pub(super) async fn session<B: Backend>(
    State(backend): State<Arc<B>>,
    Caller(_): Caller,
    SessionPath(id): SessionPath,
) -> Result<Json<SessionView>, Problem> {
    Ok(Json(backend.session(id).await?))
}

/// End a session and tear down its sandbox. The call can be repeated.
#[utoipa::path(delete, path = "/api/auth/session/{id}", params(("id" = String, Path)), security(("apiKey" = [])), responses(
    (status = 204, description = "The session has ended, and that is stored"), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 404, body = Problem),
    (status = 503, body = Problem, description = "The end of the session is not stored yet")
))]
pub(super) async fn delete<B: Backend>(
    State(backend): State<Arc<B>>,
    Caller(principal): Caller,
    SessionPath(id): SessionPath,
) -> Result<StatusCode, Problem> {
    backend.end(id, &principal).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End a session, as DELETE does, for callers that cannot send DELETE.
#[utoipa::path(post, path = "/api/auth/session/{id}/cancel", params(("id" = String, Path)), security(("apiKey" = [])), responses(
    (status = 204, description = "The session has ended, and that is stored"), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 404, body = Problem),
    (status = 503, body = Problem, description = "The end of the session is not stored yet")
))]
pub(super) async fn cancel<B: Backend>(
    state: State<Arc<B>>,
    caller: Caller,
    id: SessionPath,
) -> Result<StatusCode, Problem> {
    delete(state, caller, id).await
}

/// Retrieve the tool's sign-in URL, once the tool has shown one.
#[utoipa::path(get, path = "/api/auth/session/{id}/oauth-url", params(("id" = String, Path)), security(("apiKey" = [])), responses(
    (status = 200, body = OAuthUrl), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 404, body = Problem), (status = 409, body = Problem, description = "The session's state does not allow this")
))]
pub(super) async fn oauth_url<B: Backend>(
    State(backend): State<Arc<B>>,
    Caller(_): Caller,
    SessionPath(id): SessionPath,
) -> Result<Json<OAuthUrl>, Problem> {
    let view = backend.session(id).await?;
    match view.sign_in_url {
        Some(url) => Ok(Json(OAuthUrl { url })),
        None => {
            Err(Problem::wrong_state(format!("{} and has no sign-in URL", view.state.sentence())))
        }
    }
}

/// Show the sign-in page again in the browser of the desktop.
#[utoipa::path(post, path = "/api/auth/session/{id}/open-sign-in-page", params(("id" = String, Path)), security(("apiKey" = [])), responses(
    (status = 202, description = "The sandbox was notified"), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 404, body = Problem), (status = 409, body = Problem, description = "The session's state does not allow this")
))]
pub(super) async fn open_sign_in_page<B: Backend>(
    State(backend): State<Arc<B>>,
    Caller(principal): Caller,
    SessionPath(id): SessionPath,
) -> Result<StatusCode, Problem> {
    backend.open_sign_in_page(id, &principal).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Report that the end user is there, for callers who show them the page themselves: a tool that waits
/// for the end user is started, as it is when they open their link. Other tools start without this call.
#[utoipa::path(post, path = "/api/auth/session/{id}/start-tool", params(("id" = String, Path)), security(("apiKey" = [])), responses(
    (status = 202, description = "The end user's arrival is recorded: a tool that waits for it is started now, or as soon as its sandbox is ready"), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 404, body = Problem), (status = 409, body = Problem, description = "The session has ended")
))]
pub(super) async fn start_tool<B: Backend>(
    State(backend): State<Arc<B>>,
    Caller(principal): Caller,
    SessionPath(id): SessionPath,
) -> Result<StatusCode, Problem> {
    backend.start_tool(id, &principal).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Send the code that the last page of the sign-in shows. It is typed into the tool's terminal when the
/// tool asks for it; until then it waits, and a newer code replaces it (`replaced` in the response,
/// `code_replaced` in the timeline). Whether the tool accepts it shows in `state`, and in
/// `end_user_notified` in the timeline.
#[utoipa::path(post, path = "/api/auth/session/{id}/code", request_body = Code, params(("id" = String, Path)), security(("apiKey" = [])), responses(
    (status = 202, body = CodeTaken, description = "The code was typed, or will be typed when the tool asks for it"), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 404, body = Problem),
    (status = 409, body = Problem, description = "The session's state does not allow this"), (status = 413, body = Problem),
    (status = 422, body = Problem, description = "The tool does not accept this code, or any code"),
    (status = 504, body = Problem, description = "The session's runner does not respond")
))]
pub(super) async fn code<B: Backend>(
    State(backend): State<Arc<B>>,
    Caller(principal): Caller,
    SessionPath(id): SessionPath,
    body: Body,
) -> Result<(StatusCode, Json<CodeTaken>), Problem> {
    let Code { code } = read(body, USUAL_LIMIT).await?;
    Ok((StatusCode::ACCEPTED, Json(backend.enter_code(id, code, &principal).await?)))
}

/// Allow a host that this session was refused, for this session only, where its provider file says
/// `sso = "ask"`; the page can then be reloaded. Addresses in private networks stay refused.
#[utoipa::path(post, path = "/api/auth/session/{id}/egress/allow", request_body = AllowHost, params(("id" = String, Path)), security(("apiKey" = [])), responses(
    (status = 204, description = "The host is allowed"), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 404, body = Problem), (status = 409, body = Problem, description = "This host cannot be allowed, or the session's state does not allow it"),
    (status = 413, body = Problem), (status = 504, body = Problem, description = "The session's runner does not respond")
))]
pub(super) async fn allow_host<B: Backend>(
    State(backend): State<Arc<B>>,
    Caller(principal): Caller,
    SessionPath(id): SessionPath,
    body: Body,
) -> Result<StatusCode, Problem> {
    let AllowHost { host } = read(body, USUAL_LIMIT).await?;
    backend.allow_host(id, host, &principal).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Extend a session: its time to live counts from now again, up to the maximum duration of a session.
/// Returns the session's state.
#[utoipa::path(post, path = "/api/auth/session/{id}/heartbeat", params(("id" = String, Path)), security(("apiKey" = [])), responses(
    (status = 200, body = SessionView), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 404, body = Problem)
))]
pub(super) async fn heartbeat<B: Backend>(
    State(backend): State<Arc<B>>,
    Caller(principal): Caller,
    SessionPath(id): SessionPath,
) -> Result<Json<SessionView>, Problem> {
    Ok(Json(backend.heartbeat(id, &principal).await?))
}

/// Retrieve whether there is a sealed credential.
#[utoipa::path(get, path = "/api/auth/session/{id}/credentials/status", params(("id" = String, Path)), security(("apiKey" = [])), responses(
    (status = 200, body = CredentialStatus), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 404, body = Problem)
))]
pub(super) async fn credential_status<B: Backend>(
    State(backend): State<Arc<B>>,
    Caller(_): Caller,
    SessionPath(id): SessionPath,
) -> Result<Json<CredentialStatus>, Problem> {
    let view = backend.session(id).await?;
    Ok(Json(CredentialStatus { state: view.state, credential: view.credential }))
}

/// Download the sealed credential, an age file.
#[utoipa::path(get, path = "/api/auth/session/{id}/credentials", params(("id" = String, Path)), security(("apiKey" = [])), responses(
    (status = 200, content_type = "application/octet-stream", body = Vec<u8>), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem, description = "There is no sealed credential yet")
))]
pub(super) async fn credential<B: Backend>(
    State(backend): State<Arc<B>>,
    Caller(_): Caller,
    SessionPath(id): SessionPath,
) -> Result<Response, Problem> {
    let sealed = backend.credential(id).await?;
    let disposition = format!("attachment; filename=\"{id}.age\"");
    Ok((
        [
            (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            (header::CONTENT_DISPOSITION, disposition),
        ],
        sealed,
    )
        .into_response())
}

/// Download the envelope of the sealed credential: a DSSE envelope, signed by the controller, with the
/// session, the provider, the SHA-256 of the sealed bytes, their recipient and the files that may come
/// out. `anteroom credentials open` requires it.
#[utoipa::path(get, path = "/api/auth/session/{id}/credentials/envelope", params(("id" = String, Path)), security(("apiKey" = [])), responses(
    (status = 200, content_type = "application/json", body = Object), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem, description = "There is no sealed credential yet")
))]
pub(super) async fn envelope<B: Backend>(
    State(backend): State<Arc<B>>,
    _: Caller,
    SessionPath(id): SessionPath,
) -> Result<Response, Problem> {
    let envelope = backend.envelope(id).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], envelope).into_response())
}

/// Retrieve the controller's public key (Ed25519, SPKI in PEM), which verifies envelopes.
#[utoipa::path(get, path = "/api/credentials/key", security(("apiKey" = [])), responses(
    (status = 200, content_type = "application/x-pem-file", body = String), (status = 401, body = Problem)
))]
pub(super) async fn controller_key<B: Backend>(
    State(backend): State<Arc<B>>,
    _: Caller,
) -> Response {
    ([(header::CONTENT_TYPE, "application/x-pem-file")], backend.controller_key()).into_response()
}

/// Take a screenshot of the desktop.
#[utoipa::path(get, path = "/api/auth/session/{id}/screenshot", params(("id" = String, Path)), security(("apiKey" = [])), responses(
    (status = 200, content_type = "image/png", body = Vec<u8>), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem, description = "There is no desktop"),
    (status = 504, body = Problem, description = "The session's runner does not respond")
))]
pub(super) async fn screenshot<B: Backend>(
    State(backend): State<Arc<B>>,
    Caller(_): Caller,
    SessionPath(id): SessionPath,
) -> Result<Response, Problem> {
    let png = backend.screenshot(id).await?;
    Ok(([(header::CONTENT_TYPE, "image/png")], png).into_response())
}

/// Retrieve the logs of console, services and runner, even after the VM is gone.
#[utoipa::path(get, path = "/api/auth/session/{id}/logs", params(("id" = String, Path)), security(("apiKey" = [])), responses(
    (status = 200, content_type = "text/plain", body = String), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 404, body = Problem)
))]
pub(super) async fn logs<B: Backend>(
    State(backend): State<Arc<B>>,
    Caller(_): Caller,
    SessionPath(id): SessionPath,
) -> Result<String, Problem> {
    backend.logs(id).await
}

/// Create a new one-use link for the end user. Earlier links are revoked, and what they opened is closed
/// within a second.
#[utoipa::path(post, path = "/api/auth/session/{id}/viewer-link", params(("id" = String, Path)), security(("apiKey" = [])), responses(
    (status = 201, body = ViewerLink), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 404, body = Problem), (status = 409, body = Problem, description = "The session has ended")
))]
pub(super) async fn viewer_link<B: Backend>(
    State(backend): State<Arc<B>>,
    Caller(principal): Caller,
    SessionPath(id): SessionPath,
) -> Result<(StatusCode, Json<ViewerLink>), Problem> {
    let viewer_url = backend.viewer_link(id, &principal).await?;
    Ok((StatusCode::CREATED, Json(ViewerLink { viewer_url })))
}

/// Revoke all links of the end user; what they opened is closed within a second. A new link
/// (`…/viewer-link`) lets them in again.
#[utoipa::path(post, path = "/api/auth/session/{id}/viewers/revoke", params(("id" = String, Path)), security(("apiKey" = [])), responses(
    (status = 204, description = "All links are revoked"), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 404, body = Problem)
))]
pub(super) async fn revoke_viewers<B: Backend>(
    State(backend): State<Arc<B>>,
    Caller(principal): Caller,
    SessionPath(id): SessionPath,
) -> Result<StatusCode, Problem> {
    backend.revoke_viewers(id, &principal).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Stream the session, now and on each change, as server-sent events named `session`.
#[utoipa::path(get, path = "/api/auth/session/{id}/events", params(("id" = String, Path)), security(("apiKey" = [])), responses(
    (status = 200, content_type = "text/event-stream", body = SessionEvent), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 404, body = Problem)
))]
pub(super) async fn events<B: Backend>(
    State(backend): State<Arc<B>>,
    Caller(principal): Caller,
    SessionPath(id): SessionPath,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let Watched { changes, revoked } = backend.watch(id, &principal).await?;
    Ok(stream(WatchStream::new(changes), revoked))
}

/// How often a stream has an event at most.
const EVENT_EVERY: Duration = Duration::from_millis(200);

/// Each item as an event named `session`, until the right to them is revoked.
pub(super) fn stream<T: serde::Serialize>(
    changes: impl Stream<Item = T> + Send + 'static,
    revoked: Revoked,
) -> Sse<impl Stream<Item = Result<Event, Infallible>> + Send + 'static> {
    let events = changes.map(|view| {
        let json = serde_json::to_string(&view).unwrap_or_default();
        Ok(Event::default().event("session").data(json))
    });
    // Only the newest is kept for a slow reader, and a busy session has no more to say than this.
    let events = Box::pin(tokio_stream::StreamExt::throttle(events, EVENT_EVERY));
    let events = events.take_until(revoked);
    Sse::new(events).keep_alive(KeepAlive::default())
}
