//! Secrets are where they belong and nowhere else: not in a file, a log, a metric, an answer or the
//! list of processes.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::support::{Server, files_in, processes_of};

/// What the injected file holds and the tool makes its credential of.
const TOKEN: &str = "canary-b3f1c2";

/// A CLI that copies the injected file and waits for a second between, so that processes can be seen.
const COPIES: &str = r#"xdg-open http://127.0.0.1:9/sign-in; sleep 1; mkdir -p ~/.demo-login; cp ~/.injected ~/.demo-login/credentials.json; exec sleep 1000"#;

#[test]
fn secrets_are_found_nowhere_but_where_they_belong() {
    let server = Server::with_patient_cli(COPIES);
    let content = json!({ "access_token": TOKEN, "refresh_token": TOKEN }).to_string();
    let files = json!([{ "path": "~/.injected", "content": content }]);
    let body = json!({ "provider": "demo", "files": files }).to_string();
    let begun = server.post("/api/auth/start", &body).body;
    let id = begun["sessionId"].as_str().unwrap();
    let link = begun["viewerUrl"].as_str().unwrap().split_once('#').unwrap().1.to_owned();
    let exchange = json!({ "sessionId": id, "secret": link }).to_string();
    let exchanged = server.post_with("/api/viewer/exchange", &exchange, &[("origin", &server.url)]);
    let cookie = exchanged.headers["set-cookie"].to_str().unwrap();
    let cookie = cookie.split(';').next().unwrap().split_once('=').unwrap().1.to_owned();
    let identity = std::fs::read_to_string(server.state_dir().join("vault/identity.txt")).unwrap();
    let identity = identity.lines().find(|line| line.starts_with("AGE-SECRET-KEY")).unwrap();

    let secrets = [
        ("the token", TOKEN, ""),
        ("the API key", &server.key, ""),
        ("the viewer's link", &link, ""),
        ("the viewer's cookie", &cookie, ""),
        ("the vault's key", identity, "vault/identity.txt"),
    ];
    let holds = |bytes: &[u8]| {
        let found =
            |secret: &str| bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
        secrets
            .iter()
            .filter(|(_, secret, _)| found(secret))
            .map(|(name, ..)| *name)
            .collect::<BTreeSet<_>>()
    };

    let over = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let watching = scope.spawn(|| processes_until(&over, id, server.pid()));
        server.torn_down(id);
        over.store(true, Ordering::Relaxed);
        watching.join().unwrap()
    });
    assert!(seen.len() > 5, "the session's processes were seen");
    for process in &seen {
        assert_eq!(holds(process), BTreeSet::new(), "{}", String::from_utf8_lossy(process));
    }

    let session = format!("/api/auth/session/{id}");
    for path in [&session, &format!("{session}/logs"), "/metrics", "/health", "/api/sessions"] {
        let answer = server.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(holds(answer.body.to_string().as_bytes()), BTreeSet::new(), "{path}");
    }
    assert_eq!(holds(server.log().as_bytes()), BTreeSet::new());
    for path in files_in(&server.state_dir()) {
        let bytes = std::fs::read(&path).unwrap();
        let name = path.strip_prefix(server.state_dir()).unwrap();
        let belongs = secrets.iter().filter(|(_, _, place)| Path::new(place) == name);
        let belongs: BTreeSet<&str> = belongs.map(|(name, ..)| *name).collect();
        assert_eq!(holds(&bytes), belongs, "{}", path.display());
    }
}

/// The session's id is in every line that the controller and the runner say of it.
#[test]
fn the_logs_of_a_session_carry_its_id_from_the_call_to_the_last_frame() {
    let server = Server::with_patient_cli(COPIES);
    let id = server.started();
    server.session_when(&id, "it is the end user's turn", |s| s["state"] == "awaiting_user");
    server.delete(&format!("/api/auth/session/{id}"));
    server.torn_down(&id);
    let said = server.log();
    let steps = ["session requested", "runner_started", "agent_connected", "ended", "torn_down"];
    for step in steps {
        let line = said.lines().find(|line| line.contains(step));
        assert!(line.is_some_and(|line| line.contains(&id)), "{step}: {line:?}");
    }
    let runner = server.state_dir().join("logs").join(&id).join("runner.log");
    let runner = std::fs::read_to_string(runner).unwrap();
    assert!(
        runner.lines().count() > 3 && runner.lines().all(|line| line.contains(&id)),
        "{runner}"
    );
    assert!(runner.lines().last().unwrap().contains("the last frame was sent"), "{runner}");
}

/// Command line and environment of every process of the session and of the controller, each as often as
/// it changes.
fn processes_until(over: &AtomicBool, id: &str, controller: i32) -> BTreeSet<Vec<u8>> {
    let mut seen = BTreeSet::new();
    while !over.load(Ordering::Relaxed) {
        for pid in processes_of(id).into_iter().chain([controller]) {
            let read =
                |what: &str| std::fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
            seen.insert([read("cmdline"), read("environ")].concat());
        }
    }
    seen
}
