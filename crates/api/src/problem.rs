//! Errors on the wire: `application/problem+json` (RFC 9457) with a stable code.

use anteroom_session::SessionId;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// What went wrong, as a program branches on it. Codes are stable; each has one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(strum::EnumIter))]
pub enum ProblemCode {
    /// 400: the request is not valid for this route.
    BadRequest,
    /// 401: no or a wrong API key, no or another session's viewer cookie.
    Unauthorized,
    /// 401: the link that the viewer's cookie was given for was revoked, most often because a newer one was created.
    ViewerRevoked,
    /// 403: the page that asks is of another origin.
    ForeignOrigin,
    /// 403: the key may not manage keys.
    NotAdmin,
    /// 404: there is no such session.
    NoSuchSession,
    /// 404: there is no such provider.
    UnknownProvider,
    /// 404: there is no such route.
    NoSuchRoute,
    /// 404: there is no API key with that name.
    NoSuchKey,
    /// 405: the route does not support this method.
    WrongMethod,
    /// 408: the request's body did not arrive in time.
    RequestTooSlow,
    /// 409: the session's state does not allow this.
    WrongState,
    /// 409: an API key with that name exists.
    KeyExists,
    /// 409: a request with the same `Idempotency-Key` is being answered.
    IdempotencyKeyInUse,
    /// 410: the viewer link was used or revoked, has expired or is unknown.
    LinkUsed,
    /// 413: the body is too long.
    BodyTooLarge,
    /// 421: this Anteroom is not known by the requested `Host`.
    UnknownHost,
    /// 422: a value is not valid.
    InvalidValue,
    /// 422: the provider's terms allow only the end user to hold the credential, and the call names no
    /// recipient of theirs.
    CustodyNotAllowed,
    /// 422: the same `Idempotency-Key` came with another body before.
    IdempotencyKeyReused,
    /// 422: the WebRTC offer cannot be answered.
    OfferRefused,
    /// 422: the tool does not accept this code, or any code.
    CodeRefused,
    /// 429: this address has reached its limit of connections.
    TooManyConnections,
    /// 426: the route is for WebSockets.
    NotWebSocket,
    /// 500: a bug or failure in Anteroom.
    Internal,
    /// 503: the provider's golden image is missing or damaged.
    NoImage,
    /// 503: the provider's golden image is not verified for the CPU that it would run on.
    ImageNotVerified,
    /// 503: the provider's sign-ins are real and this machine's isolation is too weak.
    IsolationTooWeak,
    /// 503: there is too little for the session; `Retry-After` says when to retry, and is absent where there
    /// can never be enough.
    NoCapacity,
    /// 503: the session could not be recorded, or has no space for its logs; most likely the disk is full.
    StorageUnavailable,
    /// 503: the controller is stopping.
    Stopping,
    /// 504: the response took too long.
    TooSlow,
}

impl ProblemCode {
    /// As on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::ViewerRevoked => "viewer_revoked",
            Self::ForeignOrigin => "foreign_origin",
            Self::NotAdmin => "not_admin",
            Self::NoSuchKey => "no_such_key",
            Self::KeyExists => "key_exists",
            Self::TooManyConnections => "too_many_connections",
            Self::NoSuchSession => "no_such_session",
            Self::UnknownProvider => "unknown_provider",
            Self::NoSuchRoute => "no_such_route",
            Self::WrongMethod => "wrong_method",
            Self::WrongState => "wrong_state",
            Self::IdempotencyKeyInUse => "idempotency_key_in_use",
            Self::LinkUsed => "link_used",
            Self::BodyTooLarge => "body_too_large",
            Self::UnknownHost => "unknown_host",
            Self::InvalidValue => "invalid_value",
            Self::CustodyNotAllowed => "custody_not_allowed",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::OfferRefused => "offer_refused",
            Self::CodeRefused => "code_refused",
            Self::NotWebSocket => "not_web_socket",
            Self::Internal => "internal",
            Self::NoImage => "no_image",
            Self::ImageNotVerified => "image_not_verified",
            Self::IsolationTooWeak => "isolation_too_weak",
            Self::NoCapacity => "no_capacity",
            Self::StorageUnavailable => "storage_unavailable",
            Self::Stopping => "stopping",
            Self::RequestTooSlow => "request_too_slow",
            Self::TooSlow => "too_slow",
        }
    }

    /// Its HTTP status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized | Self::ViewerRevoked => StatusCode::UNAUTHORIZED,
            Self::ForeignOrigin | Self::NotAdmin => StatusCode::FORBIDDEN,
            Self::TooManyConnections => StatusCode::TOO_MANY_REQUESTS,
            Self::NoSuchSession | Self::UnknownProvider | Self::NoSuchRoute | Self::NoSuchKey => {
                StatusCode::NOT_FOUND
            }
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::WrongState | Self::IdempotencyKeyInUse | Self::KeyExists => StatusCode::CONFLICT,
            Self::LinkUsed => StatusCode::GONE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnknownHost => StatusCode::MISDIRECTED_REQUEST,
            Self::InvalidValue
            | Self::CustodyNotAllowed
            | Self::IdempotencyKeyReused
            | Self::OfferRefused
            | Self::CodeRefused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NotWebSocket => StatusCode::UPGRADE_REQUIRED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NoImage
            | Self::ImageNotVerified
            | Self::IsolationTooWeak
            | Self::NoCapacity
            | Self::StorageUnavailable
            | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::RequestTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::TooSlow => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

/// An error as a caller sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the code says more.
    #[serde(rename = "type")]
    #[schema(rename = "type")]
    pub kind: &'static str,
    /// The name of the status.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong and what to do, one sentence.
    pub detail: String,
    /// Stable machine name; `docs/reference/problems.md` lists them.
    pub code: ProblemCode,
    /// When the link was used or revoked, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    /// When to retry, in seconds: the header `Retry-After`.
    #[serde(skip)]
    #[schema(ignore)]
    pub retry_after: Option<u64>,
}

impl Problem {
    /// With the status of `code` and its name as the title.
    #[must_use]
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        let status = code.status();
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            code,
            at: None,
            retry_after: None,
        }
    }

    /// The same, to be tried again after so many seconds.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// The same, with the time that it is about.
    #[must_use]
    pub fn at(self, millis: u64) -> Self {
        Self { at: Some(millis), ..self }
    }

    /// The request is not what the route takes.
    #[must_use]
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::BadRequest, detail)
    }

    /// A missing or unknown key, where only a caller may ask.
    #[must_use]
    pub fn no_key() -> Self {
        let detail = "send a valid API key in the header `Authorization: Bearer …`";
        Self::new(ProblemCode::Unauthorized, detail)
    }

    /// The same where the session's end user may ask too.
    #[must_use]
    pub fn neither_key_nor_cookie() -> Self {
        let detail = "send the viewer cookie of this session, or a valid API key in the header `Authorization: Bearer …`";
        Self::new(ProblemCode::Unauthorized, detail)
    }

    /// A session that does not exist, or is not the asker's.
    #[must_use]
    pub fn no_such_session(id: SessionId) -> Self {
        let detail = format!("there is no session {id}; GET /api/sessions lists those there are");
        Self::new(ProblemCode::NoSuchSession, detail)
    }

    /// The session is not in a state for this.
    #[must_use]
    pub fn wrong_state(detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::WrongState, detail)
    }

    /// A bug or failure in Anteroom; the detail names the operation.
    #[must_use]
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(ProblemCode::Internal, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[test]
    fn every_code_is_in_the_reference_with_its_status() {
        let reference = include_str!("../../../docs/reference/problems.md");
        for code in ProblemCode::iter() {
            let name = serde_json::to_value(code).unwrap();
            assert_eq!(name, code.as_str());
            let row = format!("| `{}` | {} |", code.as_str(), code.status().as_u16());
            assert!(reference.contains(&row), "docs/reference/problems.md has no row {row}");
        }
    }
}
