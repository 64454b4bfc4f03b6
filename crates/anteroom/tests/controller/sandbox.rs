//! A real virtual machine from the inside: the ways out of it, what its programs learn of the end
//! user, and the two other views of it, terminal and VNC.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::Message;
use tungstenite::client::IntoClientRequest;

use crate::openers;
use crate::support::{Server, Setup, eventually_within};

const PROBE: &str = include_str!("sandbox_probe.py");

/// Serves each connection in a thread of its own; the port.
fn serve_each(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(connection.unwrap()));
        }
    });
    port
}

/// Answers every connection's first bytes with its own greeting, in clear.
fn echo() -> u16 {
    serve_each(|mut connection| {
        let mut bytes = [0; 4];
        if connection.read_exact(&mut bytes).is_ok() {
            let _ = connection.write_all(b"pong");
        }
    })
}

/// Serves one page to everybody.
fn site(page: &'static str) -> u16 {
    serve_each(move |mut connection| {
        let mut head = [0; 4096];
        let _ = connection.read(&mut head);
        let length = page.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n"
        );
        let _ = connection.write_all((head + page).as_bytes());
    })
}

/// Calls the port of the CLI that opened it, as no page may, and goes there as any page may.
const MEDDLES: &str = "<script>
const cli = `http://127.0.0.1:${location.search.slice(1)}`;
const report = (how) => { location = `${cli}/sign-in?${how}`; };
fetch(`${cli}/cancel`, { mode: 'no-cors' }).then(() => report('called'), () => report('refused'));
</script>";

fn provider(port: u16, site: u16) -> String {
    let map = |host: &str, port: u16, to: u16| {
        format!("[[egress.map]]\nhost = '{host}'\nport = {port}\nto = '127.0.0.1:{to}'\n")
    };
    // Chromium tries each http address by https first.
    let maps = [
        map("echo.example.com", 80, port),
        map("echo.example.com", 443, port),
        map("deep.down.example.org", 80, port),
        map("page.example.org", 80, site),
        map("page.example.org", 443, site),
    ];
    format!(
        r#"
id = "demo"
name = "The sandbox's probe"
kind = "demo"
image = "demo"

[[login]]
method = "browser"
command = ["python3", "-I", "/home/person/probe.py"]
instructions = "Look."

[[pages]]
title = "^de-AT Europe/Vienna without passkeys, refused: Couldn.t sign you in"
says = "This page does not work here. Sign in with another method."

[credential]
[[credential.files]]
path = "~/.probe.json"
required = ["/token"]

[egress]
allow = ["echo.example.com", "*.example.org"]
extra_ca_pem = """
{}"""
{}"#,
        include_str!("authority.pem"),
        maps.concat()
    )
}

type Socket = tungstenite::WebSocket<tungstenite::stream::MaybeTlsStream<std::net::TcpStream>>;

/// The next message with something in it.
fn next(socket: &mut Socket) -> Vec<u8> {
    loop {
        if let Message::Binary(bytes) = socket.read().unwrap() {
            return bytes.into();
        }
    }
}

fn socket(server: &Server, path: &str) -> Socket {
    let url = format!("{}{path}", server.url.replace("http://", "ws://"));
    let mut request = url.into_client_request().unwrap();
    let key = format!("Bearer {}", server.key);
    request.headers_mut().insert("Authorization", key.parse().unwrap());
    tungstenite::connect(request).unwrap().0
}

fn entries<'a>(session: &'a Value, kind: &str) -> Vec<&'a str> {
    let timeline = session["timeline"].as_array().unwrap();
    let of_kind = timeline.iter().filter(|entry| entry["kind"] == kind);
    of_kind.map(|entry| entry["message"].as_str().unwrap()).collect()
}

/// The terminal: what it shows is drawn anew, and what is typed arrives.
fn shows_its_terminal(server: &Server, id: &str) {
    let mut terminal = socket(server, &format!("/api/viewer/session/{id}/terminal"));
    let drawn = String::from_utf8(next(&mut terminal)).unwrap();
    assert!(drawn.contains("mapped: pong") && drawn.contains("red"), "{drawn:?}");
    assert!(!drawn.contains("evil title") && !drawn.contains("ZXZp"), "{drawn:?}");
    terminal.send(Message::Binary("typed here".into())).unwrap();
    let echoed = String::from_utf8(next(&mut terminal)).unwrap();
    assert!(echoed.contains("typed here"), "{echoed:?}");
}

/// VNC: the server greets (RFC 6143, 7.1.1), and takes a client through to its desktop's name.
fn shows_its_desktop_by_vnc(server: &Server, id: &str) {
    let mut vnc = socket(server, &format!("/api/auth/session/{id}/vnc"));
    let mut bytes = Vec::new();
    let mut read = |vnc: &mut Socket, length: usize| {
        while bytes.len() < length {
            bytes.extend(next(vnc));
        }
        bytes.drain(..length).collect::<Vec<u8>>()
    };
    assert_eq!(read(&mut vnc, 12), b"RFB 003.008\n");
    vnc.send(Message::Binary("RFB 003.008\n".into())).unwrap();
    assert_eq!(read(&mut vnc, 2), [1, 1], "one security type: none");
    vnc.send(Message::Binary(vec![1].into())).unwrap();
    assert_eq!(read(&mut vnc, 4), [0; 4]);
    vnc.send(Message::Binary(vec![1].into())).unwrap();
    let init = read(&mut vnc, 24);
    assert_eq!(init[..4], [5, 0, 2, 208], "1280 × 720");
}

#[test]
fn every_way_out_is_carried_or_reported_and_the_sandbox_has_three_views() {
    let server = Setup::machines().start_with_provider(&provider(echo(), site(MEDDLES)));
    let body = json!({
        "provider": "demo", "locale": "de-AT", "timeZone": "Europe/Vienna",
        "files": [{ "path": "~/probe.py", "content": PROBE }],
    });
    let started = server.post("/api/auth/start", &body.to_string());
    assert_eq!(started.status, 201, "{}", started.body);
    let id = started.body["sessionId"].as_str().unwrap().to_owned();
    let patience = Duration::from_secs(240);
    let session = eventually_within(patience, "the probe is done", || {
        let session = server.get(&format!("/api/auth/session/{id}")).body;
        assert_eq!(session["reason"], Value::Null, "{session}");
        (session["state"] == "awaiting_user").then_some(session)
    });

    // What programs without a proxy found.
    let logs = server.get(&format!("/api/auth/session/{id}/logs")).body;
    let logs = logs.as_str().unwrap();
    let said = |what: &str| {
        let line = logs.lines().find_map(|line| line.split_once(&format!(" probe {what}: ")));
        line.unwrap_or_else(|| panic!("{what} in {logs}")).1.trim().to_owned()
    };
    assert_eq!(said("mapped"), "pong");
    assert_eq!(said("wildcard"), "pong");
    // As browsers put it: `ERR_SSL_UNRECOGNIZED_NAME_ALERT`.
    assert!(said("fronted").contains("UNRECOGNIZED_NAME"), "{}", said("fronted"));
    assert!(said("no TLS").starts_with("HTTP/1.1 403"), "{}", said("no TLS"));
    for refused in ["other host", "other port", "address", "quic"] {
        let how = said(refused);
        assert!(
            ["ConnectionRefusedError", "ConnectionResetError"].contains(&&*how),
            "{refused}: {how}"
        );
    }
    assert_eq!(said("name"), "gaierror");
    assert!(said("person").starts_with("de_AT.UTF-8 Europe/Vienna"), "{}", said("person"));

    // A sandbox is what a fresh desktop is.
    let machine = said("machine");
    assert!(machine.len() == 32 && u128::from_str_radix(&machine, 16).is_ok(), "{machine}");
    assert_eq!(said("letters"), "UTF-8 UTF-8 without a word");
    assert_eq!(said("authority"), "['OK'] True");

    // All that was tried is reported.
    let egress = session["egress"].as_array().unwrap();
    let verdict = |host: &str, port: u16| {
        let found = egress.iter().find(|e| e["host"] == host && e["port"] == port);
        found.map(|entry| entry["verdict"].as_str().unwrap())
    };
    assert_eq!(verdict("echo.example.com", 80), Some("allowed"), "{egress:?}");
    assert_eq!(verdict("deep.down.example.org", 80), Some("allowed"), "{egress:?}");
    assert_eq!(verdict("echo.example.com", 443), Some("refused_request"), "{egress:?}");
    for (host, port) in [
        ("evil.example.net", 443),
        ("echo.example.com", 22),
        ("192.0.2.7", 443),
        ("echo.example.com/udp", 443),
    ] {
        assert_eq!(verdict(host, port), Some("refused_by_policy"), "{host}:{port} in {egress:?}");
    }

    shows_its_terminal(&server, &id);
    shows_its_desktop_by_vnc(&server, &id);

    // A page that will not do, by its title.
    let reported = eventually_within(patience, "the page is reported", || {
        let session = server.get(&format!("/api/auth/session/{id}")).body;
        assert_eq!(session["reason"], Value::Null, "{session}");
        (entries(&session, "end_user_notified").len() >= 2).then_some(session)
    });
    let reported = entries(&reported, "end_user_notified");
    assert!(
        reported.iter().any(|reported| reported.starts_with("This page does not work here")),
        "{reported:?}"
    );
    let called = "A script of http://page.example.org called the tool at 127.0.0.1:";
    assert!(reported.iter().any(|reported| reported.starts_with(called)), "{reported:?}");
    let logs = server.get(&format!("/api/auth/session/{id}/logs")).body;
    assert!(!logs.as_str().unwrap().contains("probe was called by a page"), "{logs}");
}

#[test]
fn a_browser_is_not_started_past_the_sandbox_s_opener_by_its_path_either() {
    let (said, came) = openers::tried(Setup::machines(), "");
    openers::all_came(&said, &came);
    for way in ["chromium-by-path-unset", "alternative-by-path-unset", "empty-environment-unset"] {
        assert!(came.contains(way), "{way} of {said:#?}");
    }
    assert!(said["none-unset"].contains("Chromium 1"), "{said:#?}");
}
