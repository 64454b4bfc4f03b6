//! The routes.

mod calls;
mod channel;
mod document;
mod keys;
mod viewer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{delete, get, post};
use futures::{StreamExt, stream};
use tower_http::set_header::SetResponseHeaderLayer;

use crate::backend::Backend;
use crate::extract::Caller;
use crate::guard::{AllowedHosts, refuse_foreign_pages};
use crate::problem::{Problem, ProblemCode};
use crate::wire::Health;
pub use document::openapi;

/// What a page of ours may load; nothing may frame it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; connect-src 'self'; img-src 'self' data: blob:; \
     media-src 'self' blob:; style-src 'self'; script-src 'self'; frame-ancestors 'none'; base-uri 'none'; \
     form-action 'none'";

/// How long a request may take, event streams apart.
const REQUEST: Duration = Duration::from_secs(60);

/// All routes.
pub fn router<B: Backend>(backend: Arc<B>, hosts: AllowedHosts) -> Router {
    let hosts = Arc::new(hosts);
    let session = "/api/auth/session/{id}";
    let at = |suffix: &str| format!("{session}{suffix}");
    let timed = Router::new()
        .route("/api/auth/start", post(calls::start::<B>))
        .route("/api/sessions", get(calls::sessions::<B>))
        .route("/api/memory", get(calls::memory::<B>))
        .route(session, get(calls::session::<B>).delete(calls::delete::<B>))
        .route(&at("/oauth-url"), get(calls::oauth_url::<B>))
        .route(&at("/open-sign-in-page"), post(calls::open_sign_in_page::<B>))
        .route(&at("/start-tool"), post(calls::start_tool::<B>))
        .route(&at("/code"), post(calls::code::<B>))
        .route(&at("/egress/allow"), post(calls::allow_host::<B>))
        .route(&at("/heartbeat"), post(calls::heartbeat::<B>))
        .route(&at("/credentials/status"), get(calls::credential_status::<B>))
        .route(&at("/credentials"), get(calls::credential::<B>))
        .route(&at("/credentials/envelope"), get(calls::envelope::<B>))
        .route("/api/credentials/key", get(calls::controller_key::<B>))
        .route(&at("/cancel"), post(calls::cancel::<B>))
        .route(&at("/screenshot"), get(calls::screenshot::<B>))
        .route(&at("/logs"), get(calls::logs::<B>))
        .route(&at("/viewer-link"), post(calls::viewer_link::<B>))
        .route(&at("/viewers/revoke"), post(calls::revoke_viewers::<B>))
        .route("/api/webrtc/session/{id}/offer", post(viewer::offer::<B>))
        .route("/api/viewer/exchange", post(viewer::exchange::<B>))
        .route("/api/viewer/session/{id}", get(viewer::session::<B>))
        .route("/api/viewer/session/{id}/cancel", post(viewer::cancel::<B>))
        .route("/api/viewer/session/{id}/code", post(viewer::code::<B>))
        .route("/api/viewer/session/{id}/open-sign-in-page", post(viewer::open_sign_in_page::<B>))
        .route("/api/keys", get(keys::list::<B>).post(keys::add::<B>))
        .route("/api/keys/{name}", delete(keys::revoke::<B>))
        .route("/api/keys/{name}/rotate", post(keys::rotate::<B>))
        .route("/health", get(health::<B>))
        .route("/metrics", get(metrics::<B>))
        .route("/openapi.json", get(openapi_json))
        .route("/v/{id}", get(viewer::page::<B>))
        .route("/assets/{*path}", get(viewer::asset::<B>))
        .layer(middleware::from_fn(in_time));
    let fixed =
        |name, value| SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value));
    timed
        .route(&at("/events"), get(calls::events::<B>))
        .route("/api/viewer/session/{id}/events", get(viewer::events::<B>))
        .route("/api/viewer/session/{id}/terminal", get(channel::terminal::<B>))
        .route(&at("/vnc"), get(channel::vnc::<B>))
        .fallback(no_such_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(fixed(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .layer(fixed(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(fixed(header::REFERRER_POLICY, "no-referrer"))
        .layer(fixed(header::CACHE_CONTROL, "no-store"))
        .layer(middleware::from_fn(move |request, next| {
            refuse_foreign_pages(hosts.clone(), request, next)
        }))
        .with_state(backend)
}

/// Retrieve whether the controller responds and can start sessions, as the last check some seconds ago
/// found.
#[utoipa::path(get, path = "/health", responses(
    (status = 200, body = Health, description = "The controller can start sessions"),
    (status = 503, body = Health, description = "The controller responds, but cannot start sessions")
))]
async fn health<B: Backend>(State(backend): State<Arc<B>>) -> Response {
    let health = backend.health();
    let status = if health.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health)).into_response()
}

/// Retrieve metrics: sessions by state and reason, phases, media.
#[utoipa::path(get, path = "/metrics", security(("apiKey" = [])), responses(
    (status = 200, content_type = "application/openmetrics-text", body = String), (status = 401, body = Problem)
))]
async fn metrics<B: Backend>(
    State(backend): State<Arc<B>>,
    Caller(_): Caller,
) -> Result<Response, Problem> {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], backend.metrics()).into_response())
}

async fn openapi_json() -> Json<utoipa::openapi::OpenApi> {
    Json(document::openapi())
}

/// Answers in [`REQUEST`], if only that it could not.
async fn in_time(request: Request, next: Next) -> Response {
    let seconds = REQUEST.as_secs();
    let reading = Arc::new(AtomicBool::new(false));
    let request = request.map(|body| watched(body, &reading));
    tokio::time::timeout(REQUEST, next.run(request)).await.unwrap_or_else(|_| {
        // Ours is late only if theirs was not.
        let (code, detail) = match reading.load(Ordering::Relaxed) {
            true => (
                ProblemCode::RequestTooSlow,
                format!("the request's body did not arrive completely within {seconds} s; send it faster"),
            ),
            false => (ProblemCode::TooSlow, format!("there was no response within {seconds} s")),
        };
        Problem::new(code, detail).into_response()
    })
}

/// A body; `reading` is whether somebody began to read it and has not come to its end.
fn watched(body: Body, reading: &Arc<AtomicBool>) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let mark = |is_reading: bool| {
        let reading = Arc::clone(reading);
        stream::poll_fn(move |_| {
            reading.store(is_reading, Ordering::Relaxed);
            Poll::Ready(None::<Result<Bytes, axum::Error>>)
        })
    };
    Body::from_stream(mark(true).chain(body.into_data_stream()).chain(mark(false)))
}

async fn no_such_route() -> Problem {
    Problem::new(ProblemCode::NoSuchRoute, "there is no such route; see /openapi.json")
}

async fn wrong_method() -> Problem {
    let detail = "this route does not support that method; see /openapi.json";
    Problem::new(ProblemCode::WrongMethod, detail)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use futures::future::pending;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_late_is_said() {
        let read = |body: Body| async { crate::json::collect(body, 10).await.map(drop) };
        let router = Router::new()
            .route("/read", post(read))
            .route("/stuck", post(|| async { pending::<()>().await }))
            .layer(middleware::from_fn(in_time));
        let ask = |path: &str, body: Body| {
            let request = Request::post(path).body(body).unwrap();
            let router = router.clone();
            async move { router.oneshot(request).await.unwrap().status() }
        };
        let half = || {
            let first = stream::iter([Ok::<_, axum::Error>("x")]);
            Body::from_stream(first.chain(stream::pending()))
        };
        assert_eq!(ask("/read", half()).await, StatusCode::REQUEST_TIMEOUT);
        assert_eq!(ask("/stuck", half()).await, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(ask("/stuck", Body::from("x")).await, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(ask("/read", Body::from("x")).await, StatusCode::OK);
    }
}
