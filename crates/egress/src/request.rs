//! The head of a proxy request (RFC 9110 and 9112): `CONNECT host:port`, or an absolute `http:` URL.
//! Pure.

use url::Url;

use crate::policy::normalise_host;

/// The longest head taken, in bytes.
pub(crate) const MAX_HEAD: usize = 16 * 1024;

/// Headers at most.
const MAX_HEADERS: usize = 100;

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
    /// A tunnel: answered by us, then bytes pass.
    Tunnel,
    /// One plain HTTP request: this head goes to the server first. It says `Connection: close`, so
    /// that the connection is never used for a second request that nobody checked.
    Plain {
        /// The rewritten head.
        head: Vec<u8>,
    },
}

/// Where the head ends, if it is all there.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|start| start + 4)
}

/// Reads a whole head; the error is a sentence for the program that sent it.
pub(crate) fn parse(head: &[u8]) -> Result<ProxyRequest, String> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => {
            return Err("the request's head is not complete".to_owned());
        }
        Err(error) => return Err(format!("the request is no HTTP: {error}")),
    }
    let method = request.method.unwrap_or_default();
    let target = request.path.unwrap_or_default();
    if method == "CONNECT" {
        let (host, port) = target.rsplit_once(':').ok_or("CONNECT needs host:port")?;
        let port = port.parse().map_err(|_| "CONNECT needs host:port")?;
        let host = normalise_host(host).ok_or("CONNECT needs a host name")?;
        return Ok(ProxyRequest { host, port, form: Form::Tunnel });
    }
    let url = Url::parse(target).map_err(|_| "a proxy request needs an absolute URL")?;
    if url.scheme() != "http" {
        return Err(format!("{} URLs are not taken in plain requests", url.scheme()));
    }
    let host = url.host_str().and_then(normalise_host).ok_or("the URL has no host")?;
    let port = url.port_or_known_default().unwrap_or(80);
    let head = rewritten(method, &url, request.headers);
    Ok(ProxyRequest { host, port, form: Form::Plain { head } })
}

/// The head in the form that a server expects; its `Host` is the URL's, whatever the guest said.
fn rewritten(method: &str, url: &Url, headers: &[httparse::Header<'_>]) -> Vec<u8> {
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let mut head =
        format!("{method} {target} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n")
            .into_bytes();
    for header in headers {
        // Those of one hop (RFC 9110, 7.6.1), and what was just written.
        let dropped = [
            "host",
            "connection",
            "proxy-connection",
            "proxy-authorization",
            "keep-alive",
            "upgrade",
            "te",
        ];
        if !dropped.iter().any(|name| header.name.eq_ignore_ascii_case(name)) {
            head.extend_from_slice(header.name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(header.value);
            head.extend_from_slice(b"\r\n");
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_tunnel_names_host_and_port() {
        let request =
            parse(b"CONNECT Example.com:443 HTTP/1.1\r\nHost: other.test\r\n\r\n").unwrap();
        assert_eq!(
            (request.host.as_str(), request.port, request.form),
            ("example.com", 443, Form::Tunnel)
        );
        assert!(parse(b"CONNECT example.com HTTP/1.1\r\n\r\n").is_err());
    }

    #[test]
    fn a_plain_request_is_rewritten_to_one_server_and_one_request() {
        let request = parse(
            b"GET http://a.test/x?y=1#z HTTP/1.1\r\nHost: evil.test\r\nAccept: */*\r\nProxy-Connection: keep-alive\r\n\r\n",
        )
        .unwrap();
        let Form::Plain { head } = request.form else { panic!() };
        assert_eq!(
            String::from_utf8(head).unwrap(),
            "GET /x?y=1 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nAccept: */*\r\n\r\n"
        );
    }

    #[test]
    fn other_forms_are_refused() {
        for bad in [
            &b"GET /x HTTP/1.1\r\n\r\n"[..],
            b"GET https://a.test/ HTTP/1.1\r\n\r\n",
            b"GET file:///etc/passwd HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\r\n\r\n",
        ] {
            assert!(parse(bad).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse(&bytes);
        }
    }
}
