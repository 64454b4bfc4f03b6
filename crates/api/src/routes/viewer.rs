//! Routes of the end user's viewer, by cookie.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Json, Response};
use futures::{Stream, StreamExt};
use tokio_stream::wrappers::WatchStream;

use super::calls::stream;
use crate::backend::{Backend, Watched};
use crate::extract::{Recognized, SessionPath, Viewer, session_id};
use crate::guard::viewer_cookie;
use crate::json::{USUAL_LIMIT, read};
use crate::problem::{Problem, ProblemCode};
use crate::wire::{
    Code, CodeTaken, EndUserSessionView, Exchange, SdpType, SessionDescription, SessionEvent,
};

/// The longest offer taken, in bytes of SDP.
const MAX_OFFER: usize = 64 * 1024;

/// Exchange a one-use link for the viewer's cookie.
#[utoipa::path(post, path = "/api/viewer/exchange", request_body = Exchange, responses(
    (status = 204, description = "The cookie was set"), (status = 400, body = Problem),
    (status = 410, body = Problem, description = "The link was used or revoked, has expired or is unknown")
))]
pub(super) async fn exchange<B: Backend>(
    State(backend): State<Arc<B>>,
    extensions: Extensions,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let request: Exchange = read(body, USUAL_LIMIT).await?;
    let id = session_id(&request.session_id)?;
    let access = backend.exchange(id, &request.secret).await?;
    Recognized::in_extensions(&extensions);
    // Behind a TLS proxy the page's origin is https, and the cookie must not leave it.
    let origin =
        headers.get(header::ORIGIN).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let secure = if origin.starts_with("https://") { "; Secure" } else { "" };
    let cookie = format!(
        "{}={}; HttpOnly; SameSite=Strict; Path=/; Max-Age={}{secure}",
        viewer_cookie(id),
        access.secret,
        access.max_age_seconds
    );
    let cookie = HeaderValue::from_str(&cookie)
        .map_err(|_| Problem::internal("creating the cookie failed"))?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// Retrieve the session as its end user may see it.
#[utoipa::path(get, path = "/api/viewer/session/{id}", operation_id = "viewer_session", params(("id" = String, Path)), security(("viewerCookie" = []), ("apiKey" = [])), responses(
    (status = 200, body = EndUserSessionView), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 404, body = Problem)
))]
pub(super) async fn session<B: Backend>(
    State(backend): State<Arc<B>>,
    Viewer(id, principal): Viewer,
) -> Result<Json<EndUserSessionView>, Problem> {
    let view = backend.session(id).await?;
    Ok(Json(backend.end_user_view(&view, &principal.viewer())))
}

/// Stream the same, now and on each change, as server-sent events named `session`.
#[utoipa::path(get, path = "/api/viewer/session/{id}/events", operation_id = "viewer_events", params(("id" = String, Path)), security(("viewerCookie" = []), ("apiKey" = [])), responses(
    (status = 200, content_type = "text/event-stream", body = SessionEvent), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 404, body = Problem)
))]
pub(super) async fn events<B: Backend>(
    State(backend): State<Arc<B>>,
    Viewer(id, principal): Viewer,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let Watched { changes, revoked } = backend.watch(id, &principal).await?;
    let views = WatchStream::new(changes)
        .map(move |view| backend.end_user_view(&view, &principal.viewer()));
    Ok(stream(views, revoked))
}

/// Cancel the sign-in as the end user.
#[utoipa::path(post, path = "/api/viewer/session/{id}/cancel", operation_id = "viewer_cancel", params(("id" = String, Path)), security(("viewerCookie" = []), ("apiKey" = [])), responses(
    (status = 204, description = "The session has ended, and that is stored"), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
    (status = 503, body = Problem, description = "The end of the session is not stored yet")
))]
pub(super) async fn cancel<B: Backend>(
    State(backend): State<Arc<B>>,
    Viewer(id, principal): Viewer,
) -> Result<StatusCode, Problem> {
    backend.end(id, &principal).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Send the code that the last page shows, as the end user. It is typed into the tool's terminal when the
/// tool asks for it; until then it waits, and a newer code replaces it.
#[utoipa::path(post, path = "/api/viewer/session/{id}/code", operation_id = "viewer_code", request_body = Code, params(("id" = String, Path)),
    security(("viewerCookie" = []), ("apiKey" = [])), responses(
    (status = 202, body = CodeTaken, description = "The code was typed, or will be typed when the tool asks for it"), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
    (status = 409, body = Problem, description = "The session's state does not allow this"), (status = 413, body = Problem),
    (status = 422, body = Problem, description = "The tool does not accept this code, or any code"),
    (status = 504, body = Problem, description = "The session's runner does not respond")
))]
pub(super) async fn code<B: Backend>(
    State(backend): State<Arc<B>>,
    Viewer(id, principal): Viewer,
    body: Body,
) -> Result<(StatusCode, Json<CodeTaken>), Problem> {
    let Code { code } = read(body, USUAL_LIMIT).await?;
    Ok((StatusCode::ACCEPTED, Json(backend.enter_code(id, code, &principal).await?)))
}

/// Show the sign-in page in the desktop's browser, which is started if it is not running.
#[utoipa::path(post, path = "/api/viewer/session/{id}/open-sign-in-page", operation_id = "viewer_open_sign_in_page", params(("id" = String, Path)),
    security(("viewerCookie" = []), ("apiKey" = [])), responses(
    (status = 202, description = "The sandbox was notified"), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 404, body = Problem),
    (status = 409, body = Problem, description = "The session's state does not allow this")
))]
pub(super) async fn open_sign_in_page<B: Backend>(
    State(backend): State<Arc<B>>,
    Viewer(id, principal): Viewer,
) -> Result<StatusCode, Problem> {
    backend.open_sign_in_page(id, &principal).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Send a WebRTC offer (one video to receive, and the data channels `input` and `cursor`); the response is
/// the answer, with every candidate in it.
#[utoipa::path(post, path = "/api/webrtc/session/{id}/offer", params(("id" = String, Path)), request_body = SessionDescription,
    security(("viewerCookie" = []), ("apiKey" = [])), responses(
    (status = 200, body = SessionDescription), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 404, body = Problem),
    (status = 409, body = Problem, description = "There is no desktop to show"), (status = 413, body = Problem),
    (status = 422, body = Problem, description = "The offer cannot be answered"),
    (status = 504, body = Problem, description = "The session's runner does not respond")
))]
pub(super) async fn offer<B: Backend>(
    State(backend): State<Arc<B>>,
    Viewer(id, principal): Viewer,
    body: Body,
) -> Result<Json<SessionDescription>, Problem> {
    let offer: SessionDescription = read(body, USUAL_LIMIT).await?;
    if offer.kind != SdpType::Offer {
        return Err(Problem::bad_request("the type must be `offer`"));
    }
    if offer.sdp.len() > MAX_OFFER {
        let detail = format!("the offer is larger than {MAX_OFFER} bytes");
        return Err(Problem::new(ProblemCode::BodyTooLarge, detail));
    }
    let sdp = backend.offer(id, offer.sdp, &principal).await?;
    Ok(Json(SessionDescription { kind: SdpType::Answer, sdp }))
}

/// The viewer's page. It holds nothing of the session, so it needs no right.
pub(super) async fn page<B: Backend>(
    State(backend): State<Arc<B>>,
    SessionPath(_): SessionPath,
) -> Result<Response, Problem> {
    file(&*backend, "index.html", "no-store")
}

/// A file of the viewer's page; its name holds its hash.
pub(super) async fn asset<B: Backend>(
    State(backend): State<Arc<B>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(path) = path.map_err(|error| Problem::bad_request(error.to_string()))?;
    file(&*backend, &format!("assets/{path}"), "public, max-age=31536000, immutable")
}

fn file<B: Backend>(backend: &B, path: &str, cache: &'static str) -> Result<Response, Problem> {
    let (content, kind) = backend
        .viewer_file(path)
        .ok_or_else(|| Problem::new(ProblemCode::NoSuchRoute, "the viewer has no such file"))?;
    Ok(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, cache)], content).into_response())
}
