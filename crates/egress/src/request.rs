//! The head of an HTTP request (RFC 9110 and 9112): to the proxy, `CONNECT host:port` or an absolute
//! `http:` URL, or within a tunnel, to the host it was opened to. Pure.
//!
//! What servers may read in two ways is refused, and what is passed on is written anew.

use anteroom_session::{authority, normalise_host};
use httparse::Header;
use url::Url;

use crate::body::Body;

/// The longest head taken, in bytes.
pub(crate) const MAX_HEAD: usize = 16 * 1024;

/// Headers at most.
const MAX_HEADERS: usize = 100;

/// Of one hop (RFC 9110, 7.6.1), of no more use, or written anew.
const DROPPED: [&str; 12] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "proxy-connection",
    "proxy-authorization",
    "keep-alive",
    "upgrade",
    "http2-settings",
    "te",
    "trailer",
    "alt-used",
];

/// What a guest's program wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProxyRequest {
    /// Normalised host.
    pub(crate) host: String,
    /// Port.
    pub(crate) port: u16,
    /// How it goes on once connected.
    pub(crate) form: Form,
}

/// The two forms of a proxy request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A tunnel: answered by us, then what is said in it is looked at.
    Tunnel,
    /// A plain HTTP request.
    Plain(Exchange),
}

/// One plain HTTP request, as the server gets it. It says `Connection: close`, so that a program takes
/// another connection for its next, which may be for another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exchange {
    /// Written anew.
    pub(crate) head: Vec<u8>,
    /// What follows it.
    pub(crate) body: Body,
}

/// Why a request in a tunnel is not passed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRequest {
    /// It cannot be read, or in more than one way.
    #[error("{0}")]
    Unreadable(String),
    /// It is for another host than the connection.
    #[error("it names another host: {0}")]
    OtherHost(String),
}

impl From<&str> for BadRequest {
    fn from(sentence: &str) -> Self {
        Self::Unreadable(sentence.to_owned())
    }
}

/// Where the head ends, if it is all there.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|start| start + 4)
}

/// Reads a whole head that was sent to the proxy; the error is a sentence for the program that sent it.
pub(crate) fn to_proxy(head: &[u8]) -> Result<ProxyRequest, BadRequest> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let request = Request::read(head, &mut headers)?;
    if request.method == "CONNECT" {
        let (host, port) = authority(request.target)
            .and_then(|(host, port)| Some((host, port?)))
            .ok_or("CONNECT needs host:port")?;
        if let Some((named, _)) = request.named()?.filter(|(named, _)| *named != host) {
            return Err(BadRequest::OtherHost(named));
        }
        if request.body()? != Body::Length(0) {
            return Err("CONNECT has no body".into());
        }
        return Ok(ProxyRequest { host, port, form: Form::Tunnel });
    }
    let url = Url::parse(request.target).map_err(|_| "a proxy request needs an absolute URL")?;
    let (host, port) = request.check_url(&url)?;
    let form = Form::Plain(request.exchange(path_of(&url), &authority_of(&host, port))?);
    Ok(ProxyRequest { host, port, form })
}

/// Reads a whole head that was sent within a tunnel to this (normalised) host and port.
pub(crate) fn in_tunnel(head: &[u8], host: &str, port: u16) -> Result<Exchange, BadRequest> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let request = Request::read(head, &mut headers)?;
    if request.method == "CONNECT" {
        return Err("a tunnel within a tunnel is not allowed".into());
    }
    let path = if request.target.starts_with('/') {
        request.target.to_owned()
    } else {
        let url = Url::parse(request.target).map_err(|_| "a request needs a path")?;
        let (named, of) = request.check_url(&url)?;
        if (named.as_str(), of) != (host, port) {
            return Err(BadRequest::OtherHost(named));
        }
        path_of(&url).to_owned()
    };
    let (named, _) = request.named()?.ok_or("it names no host")?;
    if named != host {
        return Err(BadRequest::OtherHost(named));
    }
    request.exchange(&path, &authority_of(host, port))
}

/// A head whose lines are what they seem.
struct Request<'a> {
    method: &'a str,
    target: &'a str,
    version: u8,
    headers: &'a [Header<'a>],
}

impl<'a> Request<'a> {
    fn read(head: &'a [u8], headers: &'a mut [Header<'a>]) -> Result<Self, BadRequest> {
        let ends = |n: usize| (head[n] == b'\n') == (n > 0 && head[n - 1] == b'\r');
        if !(0..head.len()).all(ends) {
            return Err("the request mixes line endings".into());
        }
        let mut request = httparse::Request::new(headers);
        match request.parse(head) {
            Ok(httparse::Status::Complete(length)) if length == head.len() => {}
            Ok(_) => return Err("the request's head is not complete".into()),
            Err(error) => {
                return Err(BadRequest::Unreadable(format!(
                    "the request is not valid HTTP: {error}"
                )));
            }
        }
        Ok(Self {
            method: request.method.unwrap_or_default(),
            target: request.path.unwrap_or_default(),
            version: request.version.unwrap_or_default(),
            headers: request.headers,
        })
    }

    /// The value of a header that may be there once.
    fn once(&self, name: &str) -> Result<Option<&'a str>, BadRequest> {
        let mut all = self.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        let Some(first) = all.next() else { return Ok(None) };
        if all.next().is_some() {
            return Err(BadRequest::Unreadable(format!("the request has two headers {name}")));
        }
        let value = std::str::from_utf8(first.value).ok().filter(|value| value.is_ascii());
        value.map(Some).ok_or_else(|| {
            BadRequest::Unreadable(format!("the request's header {name} is not ASCII"))
        })
    }

    /// What its `Host` names.
    fn named(&self) -> Result<Option<(String, Option<u16>)>, BadRequest> {
        match self.once("host")? {
            None => Ok(None),
            Some(text) => {
                Ok(Some(authority(text).ok_or("the request's Host is not a valid host")?))
            }
        }
    }

    /// Host and port of its absolute URL; `Host` must name the same.
    fn check_url(&self, url: &Url) -> Result<(String, u16), BadRequest> {
        if url.scheme() != "http" {
            let sentence = format!("{} URLs are not allowed in plain requests", url.scheme());
            return Err(BadRequest::Unreadable(sentence));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("the URL has a user name in it".into());
        }
        let host = url.host_str().and_then(normalise_host).ok_or("the URL has no host")?;
        let port = url.port_or_known_default().unwrap_or(80);
        match self.named()? {
            Some((named, of)) if (named.as_str(), of.unwrap_or(80)) != (host.as_str(), port) => {
                Err(BadRequest::OtherHost(named))
            }
            _ => Ok((host, port)),
        }
    }

    /// How its body is framed, if there is one way to read it.
    fn body(&self) -> Result<Body, BadRequest> {
        match (self.once("content-length")?, self.once("transfer-encoding")?) {
            (None, None) => Ok(Body::Length(0)),
            (Some(length), None) => {
                let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
                let length = digits.then(|| length.parse().ok()).flatten();
                Ok(Body::Length(length.ok_or("the request's Content-Length is not a number")?))
            }
            (None, Some(coding)) if coding.eq_ignore_ascii_case("chunked") && self.version == 1 => {
                Ok(Body::chunked())
            }
            (None, Some(_)) => Err("the request's Transfer-Encoding is not chunked".into()),
            (Some(_), Some(_)) => Err("the request's body has two lengths".into()),
        }
    }

    /// As the server gets it.
    fn exchange(&self, path: &str, authority: &str) -> Result<Exchange, BadRequest> {
        let body = self.body()?;
        let Self { method, version, .. } = self;
        let framing = match &body {
            Body::Length(_) if self.once("content-length")?.is_none() => String::new(),
            Body::Length(length) => format!("Content-Length: {length}\r\n"),
            Body::Chunked(_) => "Transfer-Encoding: chunked\r\n".to_owned(),
        };
        let mut head = format!(
            "{method} {path} HTTP/1.{version}\r\nHost: {authority}\r\nConnection: close\r\n{framing}"
        )
        .into_bytes();
        for header in self.headers {
            if !DROPPED.iter().any(|name| header.name.eq_ignore_ascii_case(name)) {
                head.extend_from_slice(header.name.as_bytes());
                head.extend_from_slice(b": ");
                head.extend_from_slice(header.value);
                head.extend_from_slice(b"\r\n");
            }
        }
        head.extend_from_slice(b"\r\n");
        Ok(Exchange { head, body })
    }
}

fn path_of(url: &Url) -> &str {
    &url[url::Position::BeforePath..url::Position::AfterQuery]
}

fn authority_of(host: &str, port: u16) -> String {
    if port == 80 { host.to_owned() } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(head: &[u8]) -> Result<String, BadRequest> {
        match to_proxy(head)?.form {
            Form::Plain(exchange) => Ok(String::from_utf8(exchange.head).unwrap()),
            Form::Tunnel => panic!("a tunnel"),
        }
    }

    fn other(host: &str) -> BadRequest {
        BadRequest::OtherHost(host.to_owned())
    }

    #[test]
    fn a_tunnel_names_host_and_port() {
        let request =
            to_proxy(b"CONNECT Example.com:443 HTTP/1.1\r\nHost: example.com.\r\n\r\n").unwrap();
        assert_eq!(
            (request.host.as_str(), request.port, request.form),
            ("example.com", 443, Form::Tunnel)
        );
        let refused = to_proxy(b"CONNECT a.test:443 HTTP/1.1\r\nHost: b.test\r\n\r\n");
        assert_eq!(refused, Err(other("b.test")));
        for bad in [
            "example.com",
            "example.com:",
            "example.com:+443",
            "example.com:443:443",
            "example.com:65536",
            "user@example.com:443",
            "[::1:443",
            "[::1]x:443",
            ":443",
        ] {
            let head = format!("CONNECT {bad} HTTP/1.1\r\n\r\n");
            assert!(to_proxy(head.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_plain_request_is_written_anew_for_one_server_and_one_request() {
        let sent = plain(
            b"POST http://A.test/x?y=1#z HTTP/1.1\r\nHost: a.test:80\r\nAccept: */*\r\n\
              Upgrade: h2c\r\nTrailer: Host\r\nContent-Length: 03\r\n\
              Proxy-Connection: keep-alive\r\n\r\n",
        );
        let wanted = "POST /x?y=1 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\
                      Content-Length: 3\r\nAccept: */*\r\n\r\n";
        assert_eq!(sent.as_deref(), Ok(wanted));
        let tunnelled = in_tunnel(b"GET /x HTTP/1.0\r\nhost: A.TEST\r\n\r\n", "a.test", 8080);
        let wanted = "GET /x HTTP/1.0\r\nHost: a.test:8080\r\nConnection: close\r\n\r\n";
        assert_eq!(String::from_utf8(tunnelled.unwrap().head).unwrap(), wanted);
    }

    #[test]
    fn a_request_names_one_host_and_that_is_the_connection_s() {
        for (head, refused) in [
            ("GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n", other("b.test")),
            ("GET http://a.test/ HTTP/1.1\r\nHost: a.test:81\r\n", other("a.test")),
            (
                "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nhost: b.test\r\n",
                "the request has two headers host".into(),
            ),
            (
                "GET http://a.test@b.test/ HTTP/1.1\r\nHost: b.test\r\n",
                "the URL has a user name in it".into(),
            ),
        ] {
            let head = format!("{head}\r\n");
            assert_eq!(to_proxy(head.as_bytes()), Err(refused), "{head}");
        }
        for (head, refused) in [
            ("GET / HTTP/1.1\r\nHost: b.test\r\n", other("b.test")),
            ("GET / HTTP/1.1\r\n", "it names no host".into()),
            ("GET http://b.test/ HTTP/1.1\r\nHost: b.test\r\n", other("b.test")),
            ("GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n", other("a.test")),
            (
                "GET //b.test/ HTTP/1.1\r\nHost: a.test, b.test\r\n",
                "the request's Host is not a valid host".into(),
            ),
            (
                "CONNECT b.test:80 HTTP/1.1\r\nHost: a.test\r\n",
                "a tunnel within a tunnel is not allowed".into(),
            ),
            ("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n", "a request needs a path".into()),
        ] {
            let head = format!("{head}\r\n");
            assert_eq!(in_tunnel(head.as_bytes(), "a.test", 80), Err(refused), "{head}");
        }
    }

    #[test]
    fn what_two_servers_may_read_in_two_ways_is_refused() {
        for bad in [
            "GET / HTTP/1.1\nHost: b.test\n\nGET / HTTP/1.1\r\nHost: a.test\r\n",
            "GET / HTTP/1.1\r\nHost: a.test\nHost: b.test\r\n",
            "GET / HTTP/1.1\r\nHost: a.test\r\n Host: b.test\r\n",
            "GET / HTTP/1.1\r\nHost : b.test\r\nHost: a.test\r\n",
            "GET / HTTP/1.1\r\nHost: a.test\rHost: b.test\r\n",
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1, 1\r\n",
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: +1\r\n",
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0x1\r\n",
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked, identity\r\n",
            "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: xchunked\r\n",
            "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding:\x0bchunked\r\n",
            "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n",
        ] {
            let head = format!("{bad}\r\n");
            assert!(in_tunnel(head.as_bytes(), "a.test", 80).is_err(), "{head}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for bad in [
            &b"GET /x HTTP/1.1\r\n\r\n"[..],
            b"GET https://a.test/ HTTP/1.1\r\n\r\n",
            b"GET file:///etc/passwd HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\r\n\r\n",
        ] {
            assert!(to_proxy(bad).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = to_proxy(&bytes);
            let _ = in_tunnel(&bytes, "a.test", 80);
        }

        /// Whatever the parts, what is passed on has one host, which is the connection's, and one head.
        #[test]
        fn what_is_passed_on_has_one_host_and_one_head(
            parts in prop::collection::vec(prop::sample::select(vec![
                "GET ", "/", "http://a.test", "http://b.test", "//b.test", " HTTP/1.1", "\r\n", "\n", "\r",
                "Host: ", "Host:", " ", "\t", "a.test", "b.test", "Content-Length: 5", "X: y", "\r\n\r\n",
            ]), 0..16),
        ) {
            let bytes = parts.concat() + "\r\n\r\n";
            let end = head_end(bytes.as_bytes()).unwrap();
            if let Ok(exchange) = in_tunnel(&bytes.as_bytes()[..end], "a.test", 80) {
                let head = String::from_utf8(exchange.head).unwrap();
                prop_assert_eq!(head_end(head.as_bytes()), Some(head.len()));
                prop_assert!(!head.replace("\r\n", "").contains(['\r', '\n']), "{head:?}");
                let hosts: Vec<_> = head
                    .lines()
                    .filter(|line| line.to_ascii_lowercase().starts_with("host"))
                    .collect();
                prop_assert_eq!(hosts, ["Host: a.test"]);
            }
        }
    }
}
