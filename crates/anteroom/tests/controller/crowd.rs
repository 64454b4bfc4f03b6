//! Many who have no right here, and those who have one: the former cost the latter nothing.

use std::io::Read;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use anteroom_testkit::raw::{self, asks_health};
use serde_json::json;

use crate::support::{SILENT, Server, eventually};

/// Holds the database's write lock until it is dropped.
struct Writer(Child);

impl Writer {
    fn begin(server: &Server) -> Self {
        let script = "import sqlite3, sys\n\
                      db = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)\n\
                      db.execute('BEGIN IMMEDIATE')\n\
                      print('held', flush=True)\n\
                      sys.stdin.read()";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(server.state_dir().join("anteroom.db"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut held = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut held).unwrap();
        Self(child)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn who_has_no_right_writes_nothing_and_waits_for_no_write() {
    let server = Server::with_fake_guest(SILENT);
    let session = server.start_session();
    let id = session["sessionId"].as_str().unwrap();
    let (_, used) = session["viewerUrl"].as_str().unwrap().split_once('#').unwrap();
    let exchange = |id: &str, secret: &str| {
        let body = json!({ "sessionId": id, "secret": secret }).to_string();
        server.post_with("/api/viewer/exchange", &body, &[("origin", &server.url)])
    };
    assert_eq!(exchange(id, used).status, 204);
    let nobody = "01890000-0000-7000-8000-000000000000";
    let wrong_cookie = format!("anteroom_viewer_{id}=wrong");
    let unknown_cookie = format!("anteroom_viewer_{nobody}=wrong");

    let _writer = Writer::begin(&server);
    let view = |id: &str, cookie: &str| {
        server.get_with(&format!("/api/viewer/session/{id}"), &[("cookie", cookie)]).status
    };
    for _ in 0..3 {
        assert_eq!(server.get_with("/health", &[]).status, 200);
        assert_eq!(exchange(id, used).status, 410);
        assert_eq!(exchange(id, "unknown").status, 410);
        assert_eq!(exchange(nobody, "unknown").status, 410);
        assert_eq!(view(id, &wrong_cookie), 401);
        assert_eq!(view(nobody, &unknown_cookie), 401);
        let wrong_key = [("authorization", "Bearer ak_wrong")];
        assert_eq!(server.get_with("/api/sessions", &wrong_key).status, 401);
        assert_eq!(server.post_with("/api/auth/start", "{}", &wrong_key).status, 401);
    }
    // One with a right is answered from memory and readers too, and its use is stored later.
    assert_eq!(server.get("/metrics").status, 200);
    assert_eq!(server.get("/api/sessions").status, 200);
}

#[test]
fn a_writer_that_is_stuck_is_reported() {
    let server = Server::with_fake_guest(SILENT);
    let writer = Writer::begin(&server);
    eventually("its health says so", || (server.get("/health").status == 503).then_some(()));
    let reasons = server.get("/health").body["reasons"].to_string();
    assert!(reasons.contains("has accepted no write") || reasons.contains("locked"), "{reasons}");
    drop(writer);
    eventually("it is healthy again", || (server.get("/health").status == 200).then_some(()));
}

/// A connection from another address of this machine.
fn connect_from(from: [u8; 4], to: &str) -> TcpStream {
    raw::connect_from(from, to).unwrap()
}

#[test]
fn an_address_has_its_share_of_the_connections_and_a_named_proxy_has_none() {
    let server = Server::with_options(
        SILENT,
        &["--connections-per-address", "5", "--trusted-proxy", "127.0.0.3"],
    );
    let own = server.url.trim_start_matches("http://").to_owned();
    let greedy = [127, 0, 0, 2];
    let taken: Vec<TcpStream> = (0..5).map(|_| connect_from(greedy, &own)).collect();
    let refused = eventually("its share is used up", || {
        let answer = asks_health(&connect_from(greedy, &own), &own);
        answer.starts_with("HTTP/1.1 429 ").then_some(answer)
    });
    assert!(
        refused.contains("too_many_connections") && refused.contains("retry-after"),
        "{refused}"
    );
    // Others are served, and many who come by a proxy.
    assert_eq!(server.get("/api/sessions").status, 200);
    let proxied: Vec<TcpStream> = (0..20).map(|_| connect_from([127, 0, 0, 3], &own)).collect();
    for stream in &proxied {
        assert!(asks_health(stream, &own).starts_with("HTTP/1.1 200 "));
    }
    drop(taken);
    eventually("its connections are its own again", || {
        asks_health(&connect_from(greedy, &own), &own).starts_with("HTTP/1.1 200 ").then_some(())
    });
}
