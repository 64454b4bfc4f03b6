//! Who asks: API keys, viewer cookies, and pages that have no business here.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::sync::Arc;

use anteroom_session::SessionId;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::backend::Backend;
use crate::bearer::bearer;
use crate::principal::Principal;
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

    fn is_origin(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| self.origins.contains(&origin.to_ascii_lowercase()))
    }

    fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let host = host(uri, headers)?;
        // A proxy before this may go by the other one.
        for name in [header::ORIGIN, header::AUTHORIZATION] {
            if headers.get_all(&name).iter().nth(1).is_some() {
                let detail = format!("a request may have only one {name} header");
                return Err(Problem::bad_request(detail));
            }
        }
        // A page under another name that resolves to us (DNS rebinding) is a foreign page.
        if !self.authorities.contains(&host) {
            if uri.authority().is_some() {
                return Err(Problem::bad_request(
                    "the request line names a host that is not this server",
                ));
            }
            let detail = "this server does not answer to that host name; start it with --public-url if browsers use it";
            return Err(Problem::new(ProblemCode::UnknownHost, detail));
        }
        // A WebSocket types and clicks, though it begins with a GET.
        let changes =
            !matches!(*method, Method::GET | Method::HEAD) || headers.contains_key(header::UPGRADE);
        match headers.get(header::ORIGIN) {
            Some(origin) if !self.is_origin(origin) => Err(Problem::new(
                ProblemCode::ForeignOrigin,
                "pages from other origins may not call this API",
            )),
            // A browser always sends it when it changes something; whoever has only a cookie is one.
            None if changes
                && headers.contains_key(header::COOKIE)
                && !headers.contains_key(header::AUTHORIZATION) =>
            {
                Err(Problem::new(
                    ProblemCode::ForeignOrigin,
                    "a request with a cookie requires an Origin header",
                ))
            }
            _ => Ok(()),
        }
    }
}

/// The one host that a request names, in lower case. Who could be understood in two ways, by us and by
/// a proxy before us, is not answered (RFC 9112, 3.2).
fn host(uri: &Uri, headers: &HeaderMap) -> Result<String, Problem> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Problem::bad_request("a request must have one Host header"));
    };
    let host = host.to_str().unwrap_or_default().to_ascii_lowercase();
    if !is_authority(&host) {
        let detail = "the Host header must be a host name or address with an optional port";
        return Err(Problem::bad_request(detail));
    }
    let Some(authority) = uri.authority() else { return Ok(host) };
    let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
    if is_web && authority.as_str().eq_ignore_ascii_case(&host) {
        return Ok(host);
    }
    Err(Problem::bad_request("the request line and the Host header name different hosts"))
}

/// Whether a text is a host and perhaps a port as a browser writes them: no user, no empty label or
/// port, no number written otherwise than it is.
fn is_authority(text: &str) -> bool {
    let (is_host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address.parse::<Ipv6Addr>().is_ok(), port),
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (is_name(name), port)
        }
    };
    let is_port = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| {
            digits.parse::<u16>().is_ok_and(|port| port > 0 && port.to_string() == digits)
        });
    is_host && is_port
}

fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Refuses foreign hosts and origins before anything else is looked at.
pub(crate) async fn refuse_foreign_pages(
    hosts: Arc<AllowedHosts>,
    request: Request,
    next: Next,
) -> Response {
    match hosts.check(request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Passes callers with an API key.
pub(crate) async fn caller<B: Backend>(
    backend: &B,
    headers: &HeaderMap,
) -> Result<Principal, Problem> {
    let known = match bearer(headers) {
        Some(key) => backend.authenticate(key).await?,
        None => None,
    };
    known.ok_or_else(Problem::no_key)
}

/// Passes the session's viewer, and callers; says which it is.
pub(crate) async fn viewer_or_caller<B: Backend>(
    backend: &B,
    headers: &HeaderMap,
    session: SessionId,
) -> Result<Principal, Problem> {
    let by_cookie = match cookie(headers, &viewer_cookie(session)) {
        Some(secret) => backend.holder(session, secret).await,
        None => Ok(None),
    };
    match by_cookie {
        Ok(Some(generation)) => Ok(Principal::end_user(session, generation)),
        // Whoever has a key too needs no cookie.
        Err(revoked) if bearer(headers).is_none() => Err(revoked),
        Ok(None) | Err(_) => caller(backend, headers).await.map_err(|problem| match problem.code {
            ProblemCode::Unauthorized => Problem::neither_key_nor_cookie(),
            _ => problem,
        }),
    }
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
    fn foreign_pages_are_refused_and_own_ones_are_not() {
        let hosts = AllowedHosts::default().with_origin("http://127.0.0.1:7070");
        let check = |method: Method, pairs: &[(&'static str, &'static str)]| {
            let uri = Uri::from_static("/");
            hosts.check(&method, &uri, &headers(pairs)).map_err(|problem| problem.code)
        };
        let host = ("host", "127.0.0.1:7070");
        assert_eq!(check(Method::GET, &[host]), Ok(()));
        assert_eq!(check(Method::POST, &[host, ("origin", "http://127.0.0.1:7070")]), Ok(()));
        assert_eq!(check(Method::POST, &[host, ("authorization", "Bearer x")]), Ok(()));
        for origin in ["https://evil.test", "null", "", "http://127.0.0.1:7070\u{e9}"] {
            let foreign = check(Method::POST, &[host, ("origin", origin)]);
            assert_eq!(foreign, Err(ProblemCode::ForeignOrigin), "{origin:?}");
        }
        assert_eq!(
            check(Method::POST, &[host, ("cookie", "a=b")]),
            Err(ProblemCode::ForeignOrigin)
        );
        let (cookie, upgrade) = (("cookie", "a=b"), ("upgrade", "websocket"));
        let (own, key) = (("origin", "http://127.0.0.1:7070"), ("authorization", "Bearer x"));
        assert_eq!(check(Method::GET, &[host, cookie]), Ok(()), "a page that is opened has none");
        assert_eq!(check(Method::GET, &[host, upgrade, cookie]), Err(ProblemCode::ForeignOrigin));
        assert_eq!(check(Method::GET, &[host, upgrade, cookie, own]), Ok(()));
        assert_eq!(check(Method::GET, &[host, upgrade, cookie, key]), Ok(()));
        assert_eq!(check(Method::GET, &[host, upgrade]), Ok(()));
        assert_eq!(check(Method::GET, &[("host", "evil.test")]), Err(ProblemCode::UnknownHost));
        assert_eq!(check(Method::GET, &[]), Err(ProblemCode::BadRequest));
        assert_eq!(check(Method::GET, &[host, host]), Err(ProblemCode::BadRequest));
        for twice in [[host, own, ("origin", "https://evil.test")], [host, key, key]] {
            assert_eq!(check(Method::POST, &twice), Err(ProblemCode::BadRequest), "{twice:?}");
        }
    }

    #[test]
    fn a_host_is_written_in_one_way() {
        for host in ["localhost", "signin.example.com", "a_b.test:443", "127.0.0.1:1", "[::1]:7070"]
        {
            assert!(is_authority(host), "{host}");
        }
        for host in [
            "",
            ":",
            ":80",
            "a:",
            "a:0",
            "a:080",
            "a:65536",
            "a:+80",
            "a:80:80",
            "a.",
            ".a",
            "a..b",
            "u@a",
            "u:p@a",
            "a b",
            "a,b",
            "a/b",
            "a%2e",
            "[::1",
            "::1",
            "[::1]x",
            "[fe80::1%1]",
            "a?",
            "a#",
        ] {
            assert!(!is_authority(host), "{host}");
        }
    }

    #[test]
    fn a_request_line_names_the_same_host_or_none() {
        let host = headers(&[("host", "a.test:7070")]);
        for uri in ["/x", "//b.test/x", "http://a.test:7070/", "https://A.test:7070/x"] {
            assert!(super::host(&uri.parse().unwrap(), &host).is_ok(), "{uri}");
        }
        for uri in [
            "http://b.test/",
            "http://a.test/",
            "http://u@a.test:7070/",
            "ftp://a.test:7070/",
            "a.test:7070",
        ] {
            assert!(super::host(&uri.parse().unwrap(), &host).is_err(), "{uri}");
        }
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
