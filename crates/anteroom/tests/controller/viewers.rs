//! Who may view a session: the newest link, and nobody who came by an earlier one.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::Command;

use anteroom_testkit::{PATIENCE, Started, link, raw, viewer};
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Error, Message, WebSocket};

use crate::support::{Answer, SILENT, Server, Setup};

const ANTEROOM: &str = env!("CARGO_BIN_EXE_anteroom");

/// A tool that waits for a code that never comes: a terminal and a desktop, and no browser.
const WAITS: &str = r#"
id = "demo"
name = "Test tool"
kind = "demo"
image = "demo"

[[login]]
method = "paste_code"
command = ["sh", "-c", "echo https://login.example.com/a; printf 'Paste code: '; exec sleep 1000"]
instructions = "Open the page."
code_prompt = 'Paste code:'

[egress]
allow = []

[credential]
[[credential.files]]
path = "~/.tool/auth.json"
required = ["/token"]
"#;

pub type Socket = WebSocket<MaybeTlsStream<TcpStream>>;

/// Whoever came by a link: their cookie.
pub struct Visitor<'a> {
    server: &'a Server,
    id: String,
    cookie: String,
}

fn exchange(server: &Server, id: &str, link: &str) -> raw::Answer {
    link::exchange(raw::host(&server.url), id, link::secret(link).unwrap()).unwrap()
}

impl<'a> Visitor<'a> {
    /// Opens a link.
    pub fn by(server: &'a Server, id: &str, link: &str) -> Self {
        let visitor = link::Visitor::by(raw::host(&server.url), id, link).unwrap();
        Self { server, id: visitor.id, cookie: visitor.cookie }
    }

    fn post(&self, path: &str, body: &str) -> Answer {
        let headers = [("cookie", self.cookie.as_str()), ("origin", self.server.url.as_str())];
        self.server.post_with(path, body, &headers)
    }

    fn socket(&self, path: &str) -> Result<Socket, (u16, String)> {
        let url = format!("{}{path}", self.server.url.replace("http://", "ws://"));
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("cookie", self.cookie.parse().unwrap());
        request.headers_mut().insert("origin", self.server.url.parse().unwrap());
        match tungstenite::connect(request) {
            Ok((socket, _)) => Ok(socket),
            Err(Error::Http(answer)) => {
                let body = answer.body().clone().unwrap_or_default();
                let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
                Err((
                    answer.status().as_u16(),
                    problem["code"].as_str().unwrap_or_default().to_owned(),
                ))
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// Opens the tool's terminal.
    pub fn terminal(&self) -> Result<Socket, (u16, String)> {
        self.socket(&format!("/api/viewer/session/{}/terminal", self.id))
    }

    fn vnc(&self) -> Result<Socket, (u16, String)> {
        self.socket(&format!("/api/auth/session/{}/vnc", self.id))
    }

    /// The session's events, from the first on.
    fn events(&self) -> BufReader<TcpStream> {
        let path = format!("/api/viewer/session/{}/events", self.id);
        let headers = format!("Cookie: {}\r\n", self.cookie);
        let (_, stream) = raw::open(raw::host(&self.server.url), &path, &headers).unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while !line.starts_with("data:") {
            line.clear();
            assert_ne!(reader.read_line(&mut line).unwrap(), 0, "the events ended at once");
        }
        reader
    }
}

/// Reads until the other side closes; the close code, if it gave one.
fn closed(mut socket: Socket) -> Option<u16> {
    loop {
        match socket.read() {
            Ok(Message::Close(frame)) => return frame.map(|frame| frame.code.into()),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

/// A new session and its link.
pub fn started(server: &Server) -> (String, String) {
    let session = server.start_session();
    let text = |name: &str| session[name].as_str().unwrap().to_owned();
    (text("sessionId"), text("viewerUrl"))
}

/// A new link.
pub fn new_link(server: &Server, id: &str) -> String {
    let answer = server.post(&format!("/api/auth/session/{id}/viewer-link"), "");
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.body["viewerUrl"].as_str().unwrap().to_owned()
}

fn kinds(session: &Value) -> Vec<&str> {
    let timeline = session["timeline"].as_array().unwrap();
    timeline.iter().map(|entry| entry["kind"].as_str().unwrap()).collect()
}

#[test]
fn a_new_link_closes_all_that_a_stolen_one_opened_and_the_end_user_sees_it() {
    let server = Setup::host().start_with_provider(WAITS);
    let (id, first) = started(&server);
    let thief = Visitor::by(&server, &id, &first);
    server.session_when(&id, "it is the end user's turn", |session| {
        assert_eq!(session["reason"], Value::Null, "{session}");
        session["state"] == "awaiting_user"
    });
    // A browser sends an Origin with each WebSocket; whoever has only a cookie came by another way.
    let terminal = format!("/api/viewer/session/{id}/terminal");
    let upgrade = [
        ("cookie", thief.cookie.as_str()),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let refused = server.get_with(&terminal, &upgrade);
    assert_eq!((refused.status, &refused.body["code"]), (403, &json!("foreign_origin")));
    let terminals: Vec<Socket> = (0..8).map(|_| thief.terminal().unwrap()).collect();
    let vnc = thief.vnc().unwrap();
    let mut events = thief.events();

    let second = new_link(&server, &id);
    for socket in terminals.into_iter().chain([vnc]) {
        assert_eq!(closed(socket), Some(1008), "closed by policy");
    }
    let mut rest = String::new();
    while events.read_line(&mut rest).unwrap() > 0 {}
    // Nothing is left of the right to the session, whatever is asked by it.
    let refused = (401, "viewer_revoked".to_owned());
    assert_eq!(thief.terminal().err(), Some(refused.clone()));
    assert_eq!(thief.vnc().err(), Some(refused));
    let session = format!("/api/viewer/session/{id}");
    let offer = json!({ "type": "offer", "sdp": "v=0" }).to_string();
    for (path, body) in [
        (format!("{session}/code"), json!({ "code": "abcdefgh" }).to_string()),
        (format!("{session}/open-sign-in-page"), String::new()),
        (format!("{session}/cancel"), String::new()),
        (format!("/api/webrtc/session/{id}/offer"), offer),
    ] {
        let answer = thief.post(&path, &body);
        assert_eq!(answer.status, 401, "{path}: {}", answer.body);
        assert_eq!(answer.body["code"], "viewer_revoked");
        assert!(answer.body["at"].is_u64(), "{}", answer.body);
    }
    let again = exchange(&server, &id, &first);
    let (status, again) = (again.status, again.body());
    assert_eq!((status, &again["code"]), (410, &json!("link_used")));
    assert!(again["detail"].as_str().unwrap().contains("revoked"), "{again}");

    // The end user is never refused because others take all there is, nor because they themselves do.
    let end_user = Visitor::by(&server, &id, &second);
    let mut theirs: Vec<Socket> = (0..10).map(|_| end_user.terminal().unwrap()).collect();
    theirs.drain(..2).for_each(|oldest| assert_eq!(closed(oldest), Some(1008)));
    let mut newest = theirs.pop().unwrap();
    newest.send(Message::Binary("x".into())).unwrap();
    assert!(matches!(newest.read().unwrap(), Message::Binary(_) | Message::Ping(_)));

    let reported = server.session_when(&id, "all of it is reported", |session| {
        kinds(session).iter().filter(|kind| **kind == "terminal_opened").count() == 18
    });
    let kinds = kinds(&reported);
    for (kind, count) in [("link_opened", 2), ("link_created", 1), ("vnc_opened", 1)] {
        assert_eq!(kinds.iter().filter(|found| **found == kind).count(), count, "{kinds:?}");
    }
    let headers = [("cookie", end_user.cookie.as_str()), ("origin", server.url.as_str())];
    let seen = server.get_with(&session, &headers).body;
    let others = seen["visitsOfOthers"].as_array().unwrap();
    assert_eq!(others.len(), 10, "one link, eight terminals, VNC: {others:?}");
    assert_eq!(others[0]["opened"], "link");
    assert_eq!(others[0]["viewer"], json!({ "by": "link", "generation": 1 }));

    // Taken back altogether: the sign-in goes on, and another link lets the end user in again.
    let path = format!("/api/auth/session/{id}/viewers/revoke");
    assert_eq!(server.post(&path, "").status, 204);
    for socket in theirs.into_iter().chain([newest]) {
        assert_eq!(closed(socket), Some(1008));
    }
    assert_eq!(exchange(&server, &id, &second).status, 410);
    assert_eq!(server.get(&format!("/api/auth/session/{id}")).body["state"], "awaiting_user");
    let third = Visitor::by(&server, &id, &new_link(&server, &id));
    assert!(third.terminal().is_ok());
}

/// All the way of the picture: X and the browser, the agent, the encoder, WebRTC, the one port, a decoder.
#[test]
fn a_viewer_sees_the_desktop() {
    let server = Setup::host().start_with_cli("exec sleep 1000", 600);
    let (id, viewer_url) = started(&server);
    let path = format!("/api/auth/session/{id}");
    let session = Started { id, viewer_url };
    let is_live = || {
        let status = server.get(&path).body;
        let timeline = status["timeline"].as_array().unwrap().iter();
        Ok(timeline.filter(|entry| entry["kind"] == "live_frame_shown").count() == 1)
    };
    let seen = viewer::first_picture_until(&session, PATIENCE, is_live).unwrap();
    assert!(is_live().unwrap(), "nobody was shown the guest");
    assert_eq!((seen.picture.width, seen.picture.height), (1280, 720), "{seen:?}");
    assert!(seen.answered <= seen.connected && seen.connected <= seen.first, "{seen:?}");
}

#[test]
fn links_are_renewed_and_revoked_from_the_command_line_also_after_the_end() {
    let server = Server::with_fake_guest(SILENT);
    let (id, first) = started(&server);
    let run = |command: &str| {
        let mut anteroom = Command::new(ANTEROOM);
        anteroom.args(["viewer", command, &id, "--json", "--state-dir"]).arg(server.state_dir());
        let output = anteroom.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let second = run("link")["viewerUrl"].as_str().unwrap().to_owned();
    assert_eq!(exchange(&server, &id, &first).status, 410);
    let end_user = Visitor::by(&server, &id, &second);
    let view = format!("/api/viewer/session/{id}");
    let headers = [("cookie", end_user.cookie.as_str())];
    assert_eq!(server.get_with(&view, &headers).status, 200);
    assert_eq!(server.delete(&format!("/api/auth/session/{id}")).status, 204);
    server.torn_down(&id);
    assert_eq!(server.get_with(&view, &headers).status, 200);
    assert_eq!(run("revoke"), json!({ "revoked": id }));
    // It gets no new link, so none is offered.
    let mut revoke = Command::new(ANTEROOM);
    revoke.args(["viewer", "revoke", &id, "--state-dir"]).arg(server.state_dir());
    assert_eq!(revoke.output().unwrap().stdout, b"All links are revoked.\n");
    let refused = server.get_with(&view, &headers);
    assert_eq!((refused.status, &refused.body["code"]), (401, &json!("viewer_revoked")));
    assert_eq!(server.post("/api/auth/session/none/viewers/revoke", "").status, 400);
}

/// A link that is opened first after the end shows how it ended; that stands in the timeline too.
#[test]
fn a_link_opened_after_the_end_is_reported() {
    let server = Server::with_fake_guest(SILENT);
    let (id, link) = started(&server);
    server.delete(&format!("/api/auth/session/{id}"));
    server.torn_down(&id);
    Visitor::by(&server, &id, &link);
    let reported = server.session_when(&id, "it is reported", |session| {
        kinds(session).last() == Some(&"link_opened")
    });
    assert_eq!(reported["teardown"], "torn_down");
}
