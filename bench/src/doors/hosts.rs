//! Requests that a proxy and Anteroom could understand in two ways, and names that are not ours.

use std::path::Path;

use anyhow::{Result, bail};

use super::Tries;
use super::meaning::refused_with;
use anteroom_testkit::raw::{self, exchange};

use crate::server::Server;

/// Makes the attacks.
pub fn attack(anteroom: &Path, tries: &mut Tries) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("xtask-doors-").tempdir()?;
    let mut server = Server::with_guest(anteroom, folder.path(), Path::new("/bin/true"), &[])?;
    let own = raw::host(server.url()).to_owned();
    let whole = get("/health", &format!("Host: {own}\r\n"));
    let answer = exchange(&own, whole.as_bytes())?;
    if answer.status != 200 {
        bail!("a request as it should be was answered {}", answer.text);
    }
    for (what, request) in two_hosts(&own).into_iter().chain(odd_hosts(&own)) {
        let answer = exchange(&own, request.as_bytes())?;
        tries.record(&what, refused_with(&answer, &[400]));
    }
    for host in ["evil.test", "127.1:80", "0x7f000001", "localhost.evil.test", "[::ffff:7f00:1]"] {
        let answer = exchange(&own, get("/health", &format!("Host: {host}\r\n")).as_bytes())?;
        tries.record(&format!("under the name {host}"), refused_with(&answer, &[421]));
    }
    for (what, request) in two_lengths(&own) {
        let answer = exchange(&own, request.as_bytes())?;
        // The request behind it must not be answered.
        tries.record(&what, refused_with(&answer, &[400]));
    }
    server.stop()
}

fn get(target: &str, hosts: &str) -> String {
    format!("GET {target} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n")
}

fn two_hosts(own: &str) -> Vec<(String, String)> {
    let host = |host: &str| format!("Host: {host}\r\n");
    let (ours, evil) = (host(own), host("evil.test"));
    [
        ("two Host headers", get("/health", &format!("{ours}{ours}"))),
        ("another Host after ours", get("/health", &format!("{ours}{evil}"))),
        ("another Host before ours", get("/health", &format!("{evil}{ours}"))),
        ("no Host", get("/health", "")),
        ("no Host, in HTTP/1.0", "GET /health HTTP/1.0\r\n\r\n".to_owned()),
        ("a foreign authority in the request line", get("http://evil.test/health", &ours)),
        ("a foreign authority in both", get("http://evil.test/health", &evil)),
        ("our authority and a foreign Host", get(&format!("http://{own}/health"), &evil)),
        ("a user in the request line", get(&format!("http://u@{own}/health"), &ours)),
        ("another scheme in the request line", get(&format!("ftp://{own}/health"), &ours)),
        ("CONNECT", format!("CONNECT evil.test:443 HTTP/1.1\r\n{ours}\r\n")),
        ("a foreign Origin after ours", {
            get("/health", &format!("{ours}Origin: http://{own}\r\nOrigin: http://evil.test\r\n"))
        }),
        ("two Authorization headers", {
            get(
                "/api/sessions",
                &format!("{ours}Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"),
            )
        }),
        (
            "a Host behind a bare line feed",
            get("/health", &format!("X: y\nHost: evil.test\r\n{ours}")),
        ),
        (
            "a Host behind a bare carriage return",
            get("/health", &format!("X: y\rHost: evil.test\r\n{ours}")),
        ),
        ("two Hosts, in HTTP/1.0", format!("GET /health HTTP/1.0\r\n{ours}{evil}\r\n")),
        ("another port in the request line", get("http://127.0.0.1:1/health", &ours)),
        ("a folded Host", get("/health", &format!("Host: {own}\r\n evil.test\r\n"))),
        ("a space before the colon", get("/health", &format!("Host : {own}\r\n"))),
        ("HTTP/2's preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
    ]
    .map(|(what, request)| (what.to_owned(), request))
    .into()
}

fn odd_hosts(own: &str) -> Vec<(String, String)> {
    let (name, port) = own.split_once(':').unwrap_or((own, ""));
    [
        String::new(),
        format!("user@{own}"),
        format!("user:pass@{own}"),
        format!("{name}.:{port}"),
        format!("localhost.:{port}"),
        format!("{name}:"),
        format!("{name}:0{port}"),
        format!("{name}:+{port}"),
        format!("{own}:{port}"),
        format!("{own}/"),
        format!("{own}, {own}"),
        format!("{own} evil.test"),
        format!("evil.test\t{own}"),
        format!("%6cocalhost:{port}"),
        format!("{own}#"),
        format!("{own}\u{e9}"),
        format!("{name}..:{port}"),
    ]
    .map(|host| (format!("the Host {host:?}"), get("/health", &format!("Host: {host}\r\n"))))
    .into()
}

/// Bodies that end at two places, each with a whole request behind it.
fn two_lengths(own: &str) -> Vec<(String, String)> {
    let behind = get("/health", &format!("Host: {own}\r\n"));
    [
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("Content-Length: 5\r\nTransfer-Encoding: CHUNKED\r\n", "0\r\n\r\n"),
        ("Content-Length: 2\r\nContent-Length: 3\r\n", "{}"),
        ("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"),
        ("Content-Length: 2, 2\r\n", "{}"),
        ("Content-Length: +2\r\n", "{}"),
        ("Content-Length: 0x2\r\n", "{}"),
        ("Transfer-Encoding: identity\r\n", "{}"),
        ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "0x2\r\n{}\r\n0\r\n\r\n"),
    ]
    .map(|(headers, body)| {
        let head = format!("POST /api/viewer/exchange HTTP/1.1\r\nHost: {own}\r\n{headers}\r\n");
        (format!("a body with {:?}", headers.trim()), format!("{head}{body}{behind}"))
    })
    .into()
}
