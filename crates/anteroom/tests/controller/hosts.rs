//! Requests that could be understood in two ways, over raw sockets: refused with 400.

use anteroom_testkit::raw;

use crate::support::{SILENT, Server};

/// Sends these bytes and reads what comes until the connection is closed.
fn exchange(address: &str, bytes: &str) -> String {
    raw::exchange(address, bytes.as_bytes()).unwrap().text
}

fn statuses(answer: &str) -> Vec<&str> {
    let lines = answer.lines().filter_map(|line| line.strip_prefix("HTTP/1."));
    lines.map(|line| &line[2..5]).collect()
}

#[test]
fn a_request_names_one_host_in_one_way() {
    let server = Server::with_fake_guest(SILENT);
    let own = server.url.trim_start_matches("http://").to_owned();
    let (name, port) = own.split_once(':').unwrap();
    let get = |target: &str, hosts: &[&str]| {
        let hosts: String = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
        format!("GET {target} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n")
    };
    for good in [
        get("/openapi.json", &[&own]),
        get(&format!("http://{own}/openapi.json"), &[&own]),
        get("/openapi.json", &[&format!("LOCALHOST:{port}")]),
    ] {
        assert_eq!(statuses(&exchange(&own, &good)), ["200"], "{good}");
    }
    let unknown = exchange(&own, &get("/openapi.json", &["evil.test"]));
    assert_eq!(statuses(&unknown), ["421"]);

    let mut bad = vec![
        get("/openapi.json", &[&own, &own]),
        get("/openapi.json", &[&own, "evil.test"]),
        get("/openapi.json", &["evil.test", &own]),
        get("/openapi.json", &[]),
        get("/openapi.json", &[""]),
        get("http://evil.test/openapi.json", &[&own]),
        get("http://evil.test/openapi.json", &["evil.test"]),
        get(&format!("http://{own}/openapi.json"), &["evil.test"]),
        get(&format!("http://user@{own}/openapi.json"), &[&own]),
        get(&format!("ftp://{own}/openapi.json"), &[&own]),
        get(&format!("http://{name}/openapi.json"), &[&own]),
        format!("GET /openapi.json HTTP/1.0\r\n\r\n"),
        format!("CONNECT evil.test:443 HTTP/1.1\r\nHost: {own}\r\n\r\n"),
        format!("GET /openapi.json HTTP/1.1\r\nHost: {own}\r\n Host: evil.test\r\n\r\n"),
        format!("GET /openapi.json HTTP/1.1\r\nHost : {own}\r\n\r\n"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ];
    for odd in [
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
        format!("%6cocalhost:{port}"),
        format!("{own}#"),
        format!("{own}\u{e9}"),
        "[::1".to_owned(),
    ] {
        bad.push(get("/openapi.json", &[&odd]));
    }
    for request in bad {
        let answer = exchange(&own, &request);
        assert_eq!(statuses(&answer), ["400"], "{request:?} is answered {answer:?}");
    }
}

#[test]
fn a_body_has_one_length_and_nothing_follows_what_is_odd() {
    let server = Server::with_fake_guest(SILENT);
    let own = server.url.trim_start_matches("http://").to_owned();
    let second = format!("GET /openapi.json HTTP/1.1\r\nHost: {own}\r\n\r\n");
    let post = |headers: &str, body: &str| {
        format!("POST /api/viewer/exchange HTTP/1.1\r\nHost: {own}\r\n{headers}\r\n{body}")
    };
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (headers, body) in [
        (format!("{chunked}Content-Length: 5\r\n"), "0\r\n\r\n"),
        (format!("Content-Length: 5\r\n{chunked}"), "0\r\n\r\n"),
        ("Content-Length: 2\r\nContent-Length: 3\r\n".to_owned(), "{}"),
        ("Content-Length: 2\r\nContent-Length: 2\r\n".to_owned(), "{}"),
        ("Content-Length: +2\r\n".to_owned(), "{}"),
        ("Content-Length: 2, 2\r\n".to_owned(), "{}"),
        ("Transfer-Encoding: identity\r\n".to_owned(), "{}"),
        ("Transfer-Encoding: chunked, identity\r\n".to_owned(), "0\r\n\r\n"),
    ] {
        let answer = exchange(&own, &format!("{}{second}", post(&headers, body)));
        assert_eq!(statuses(&answer), ["400"], "{headers:?} is answered {answer:?}");
    }
    // Also behind another request on the same connection.
    let headers = format!("{chunked}Content-Length: 5\r\n");
    let odd = post(&headers, "0\r\n\r\n");
    let answer = exchange(&own, &format!("{second}{odd}{second}"));
    assert!(!answer.is_empty() && statuses(&answer).last() == Some(&"400"), "{answer:?}");
    // A body in chunks is taken, and its connection closed.
    let answer = exchange(&own, &format!("{}{second}", post(chunked, "2\r\n{}\r\n0\r\n\r\n")));
    assert_eq!(statuses(&answer), ["400"], "no such exchange, and nothing after it: {answer:?}");
    assert!(answer.contains("missing field"), "{answer:?}");
}
