//! Who asks: API keys, viewer cookies, and pages that have no business here.

use std::collections::BTreeSet;
use std::sync::Arc;

use anteroom_session::SessionId;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::backend::{Asker, Backend};
use crate::problem::{Problem, ProblemCode};

/// The name of a session's viewer cookie: one each, so that a browser can view several sessions.
#[must_use]
pub fn viewer_cookie(session: impl std::fmt::Display) -> String {
    format!("anteroom_viewer_{session}")
}

/// Authorities (`host:port`) that requests may name, and origins that browsers may come from.
#[derive(Clone, Debug, Default)]
pub struct AllowedHosts {
    authorities: BTreeSet<String>,
    origins: BTreeSet<String>,
}

impl AllowedHosts {
    /// Allows an origin such as `http://127.0.0.1:7070`.
    #[must_use]
    pub fn with_origin(mut self, origin: &str) -> Self {
        let origin = origin.trim_end_matches('/').to_ascii_lowercase();
        if let Some((_, authority)) = origin.split_once("://") {
            self.authorities.insert(authority.to_owned());
        }
        self.origins.insert(origin);
        self
    }

    fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
        let text =
            |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
        let host = text(header::HOST).unwrap_or_default().to_ascii_lowercase();
        // A page under another name that resolves to us (DNS rebinding) is a foreign page.
        if !self.authorities.contains(&host) {
            let detail = "this Anteroom is not known under that name; start it with --public-url";
            return Err(Problem::new(ProblemCode::UnknownHost, detail));
        }
        let changes = !matches!(*method, Method::GET | Method::HEAD);
        match text(header::ORIGIN) {
            Some(origin) if !self.origins.contains(&origin.to_ascii_lowercase()) => {
                Err(Problem::new(
                    ProblemCode::ForeignOrigin,
                    "pages of other origins may not call this",
                ))
            }
            // A browser always sends it when it changes something; whoever has only a cookie is one.
            None if changes
                && headers.contains_key(header::COOKIE)
                && !headers.contains_key(header::AUTHORIZATION) =>
            {
                Err(Problem::new(
                    ProblemCode::ForeignOrigin,
                    "a request by cookie needs an Origin header",
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Refuses foreign hosts and origins before anything else is looked at.
pub(crate) async fn refuse_foreign_pages(
    hosts: Arc<AllowedHosts>,
    request: Request,
    next: Next,
) -> Response {
    match hosts.check(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Passes callers with an API key.
pub(crate) async fn caller<B: Backend>(backend: &B, headers: &HeaderMap) -> Result<(), Problem> {
    match bearer(headers) {
        Some(key) if backend.is_api_key(key).await? => Ok(()),
        _ => Err(Problem::unauthorized()),
    }
}

/// Passes the session's viewer, and callers; says which it is.
pub(crate) async fn viewer_or_caller<B: Backend>(
    backend: &B,
    headers: &HeaderMap,
    session: SessionId,
) -> Result<Asker, Problem> {
    let by_cookie = match cookie(headers, &viewer_cookie(session)) {
        Some(secret) => backend.holder(session, secret).await,
        None => Ok(None),
    };
    match by_cookie {
        Ok(Some(generation)) => Ok(Asker::Person(generation)),
        // Whoever has a key too needs no cookie.
        Err(revoked) if bearer(headers).is_none() => Err(revoked),
        Ok(None) | Err(_) => caller(backend, headers).await.map(|()| Asker::Caller),
    }
}

/// The API key of a request, as it was given.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    // The scheme's name has no case (RFC 9110, 11.1).
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim_start())
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect::<HeaderMap>()
    }

    #[test]
    fn foreign_pages_are_told_apart() {
        let hosts = AllowedHosts::default().with_origin("http://127.0.0.1:7070");
        let check = |method: Method, pairs: &[(&'static str, &'static str)]| {
            hosts.check(&method, &headers(pairs)).map_err(|problem| problem.code)
        };
        let host = ("host", "127.0.0.1:7070");
        assert_eq!(check(Method::GET, &[host]), Ok(()));
        assert_eq!(check(Method::POST, &[host, ("origin", "http://127.0.0.1:7070")]), Ok(()));
        assert_eq!(check(Method::POST, &[host, ("authorization", "Bearer x")]), Ok(()));
        assert_eq!(
            check(Method::POST, &[host, ("origin", "https://evil.test")]),
            Err(ProblemCode::ForeignOrigin)
        );
        assert_eq!(
            check(Method::POST, &[host, ("origin", "null")]),
            Err(ProblemCode::ForeignOrigin)
        );
        assert_eq!(
            check(Method::POST, &[host, ("cookie", "a=b")]),
            Err(ProblemCode::ForeignOrigin)
        );
        assert_eq!(check(Method::GET, &[("host", "evil.test")]), Err(ProblemCode::UnknownHost));
        assert_eq!(check(Method::GET, &[]), Err(ProblemCode::UnknownHost));
    }

    #[test]
    fn the_scheme_has_no_case() {
        for value in ["Bearer abc", "bearer abc", "BEARER  abc"] {
            assert_eq!(bearer(&headers(&[("authorization", value)])), Some("abc"));
        }
        assert_eq!(bearer(&headers(&[("authorization", "Basic abc")])), None);
    }

    #[test]
    fn the_cookie_is_found_by_its_whole_name() {
        let name = viewer_cookie("1");
        let found =
            |value: &'static str| cookie(&headers(&[("cookie", value)]), &name).map(str::to_owned);
        assert_eq!(found("anteroom_viewer_2=a; anteroom_viewer_1=xyz").as_deref(), Some("xyz"));
        assert_eq!(found("not_anteroom_viewer_1=xyz"), None);
        assert_eq!(found("anteroom_viewer_12=xyz"), None);
    }
}
