//! More is asked for than there is, and for longer.

use serde_json::Value;

use crate::support::{Answer, SILENT, Server, eventually};

fn start(server: &Server) -> Answer {
    server.post("/api/auth/start", r#"{"provider":"demo"}"#)
}

fn id(answer: &Answer) -> String {
    answer.body["sessionId"].as_str().unwrap().to_owned()
}

fn delete(server: &Server, id: &str) {
    assert_eq!(server.delete(&format!("/api/auth/session/{id}")).status, 204);
    server.torn_down(id);
}

#[test]
fn of_twenty_at_once_with_capacity_for_four_sixteen_get_the_time_to_retry() {
    let server = Server::with_options(SILENT, &["--max-sessions", "4"]);
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..20).map(|_| scope.spawn(|| start(&server))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let (begun, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|a| a.status == 201);
    assert_eq!((begun.len(), refused.len()), (4, 16));
    for answer in &refused {
        assert_eq!((answer.status, answer.body["code"].as_str()), (503, Some("no_capacity")));
        let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((5..=60).contains(&seconds), "{seconds}");
        assert!(answer.body["detail"].as_str().unwrap().contains("all 4 session slots"));
    }
    let metrics = server.get("/metrics");
    let page = metrics.body.as_str().unwrap();
    for line in
        ["anteroom_sandboxes 4", r#"anteroom_starts_refused_total{reason="no_capacity"} 16"#]
    {
        assert!(page.lines().any(|found| found == line), "{line} is missing in {page}");
    }
    // None is lost: what runs is what was begun, and each end frees a slot.
    assert_eq!(server.get("/api/sessions").body.as_array().unwrap().len(), 4);
    delete(&server, &id(begun[0]));
    // The place is given back a moment after the end is shown.
    let next = eventually("a slot is free again", || {
        Some(start(&server)).filter(|answer| answer.status == 201)
    });
    assert_eq!(start(&server).status, 503);
    for answer in begun[1..].iter().copied().chain([&next]) {
        delete(&server, &id(answer));
    }
}

#[test]
fn of_fifty_at_once_as_many_run_as_the_memory_budget_holds_and_what_they_take_is_shown() {
    // A session whose guest is a program is expected to take 64 MiB.
    let server = Server::with_options(SILENT, &["--memory-budget", "256"]);
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..50).map(|_| scope.spawn(|| start(&server))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let (begun, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|a| a.status == 201);
    assert_eq!((begun.len(), refused.len()), (4, 46));
    for answer in &refused {
        assert_eq!((answer.status, answer.body["code"].as_str()), (503, Some("no_capacity")));
        assert!(answer.headers.contains_key("retry-after"));
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains("are reserved by 4 sessions"), "{detail}");
    }
    let memory = eventually("all are measured", || {
        let memory = server.get("/api/memory").body;
        let sessions = memory["sessions"].as_array().unwrap();
        let takes =
            |session: &Value| session["privateBytes"].as_u64().is_some_and(|bytes| bytes > 0);
        (sessions.len() == 4 && sessions.iter().all(takes)).then_some(memory)
    });
    assert_eq!(memory["budgetBytes"], 256_u64 << 20);
    assert!(memory["reservedBytes"].as_u64().unwrap() >= 256 << 20, "{memory}");
    let mut shown = std::process::Command::new(env!("CARGO_BIN_EXE_anteroom"));
    shown.args(["sessions", "--memory", "--state-dir"]).arg(server.state_dir());
    let shown = String::from_utf8(shown.output().unwrap().stdout).unwrap();
    for answer in &begun {
        let line = shown.lines().find(|line| line.starts_with(&id(answer))).unwrap();
        assert!(line.ends_with(" MiB") && !line.contains("unknown"), "{shown}");
    }
    for answer in &begun {
        delete(&server, &id(answer));
    }
    eventually("the budget is whole again", || {
        let memory = server.get("/api/memory").body;
        (memory["reservedBytes"] == 0 && memory["sessions"] == Value::Array(vec![])).then_some(())
    });
}

#[test]
fn who_waits_in_the_queue_learns_it_and_begins_when_there_is_capacity() {
    let server = Server::with_options(SILENT, &["--max-sessions", "1", "--max-queued", "1"]);
    let (first, second) = (start(&server), start(&server));
    assert_eq!((first.status, second.status, start(&server).status), (201, 201, 503));
    let waiting = server.session_when(&id(&second), "it waits", |session| {
        session["timeline"].as_array().unwrap().iter().any(|e| e["kind"] == "waiting_for_capacity")
    });
    assert_eq!(waiting["state"], "requested");
    delete(&server, &id(&first));
    server.session_when(&id(&second), "it begins", |session| session["state"] == "booting");
    // One that is cancelled while it waits takes nobody's place.
    let third = start(&server);
    assert_eq!(third.status, 201, "{}", third.body);
    delete(&server, &id(&third));
    delete(&server, &id(&second));
}

#[test]
fn a_longest_session_that_is_shorter_than_the_shortest_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let serve = ["20", env!("CARGO_BIN_EXE_anteroom"), "serve", "--driver", "host"];
    let output = std::process::Command::new("timeout")
        .args(serve)
        .args(["--listen", "127.0.0.1:0", "--max-session-seconds", "59", "--state-dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("--max-session-seconds is 59"), "{said}");
}

#[test]
fn heartbeats_keep_a_session_until_it_has_lived_as_long_as_one_may() {
    let server = Server::with_options(SILENT, &["--max-session-seconds", "4"]);
    let answer = server.post("/api/auth/start", r#"{"provider":"demo","ttlSeconds":2}"#);
    let id = id(&answer);
    let path = format!("/api/auth/session/{id}/heartbeat");
    let deadline = |session: &Value| session["deadline"].as_u64().unwrap();
    let before = deadline(&server.get(&format!("/api/auth/session/{id}")).body);
    let prolonged = server.post(&path, "");
    assert_eq!(prolonged.status, 200);
    assert!(deadline(&prolonged.body) > before);
    eventually("it has ended all the same", || {
        (server.post(&path, "").body["state"] == "ended").then_some(())
    });
    assert_eq!(server.torn_down(&id)["reason"]["code"], "too_long");
    let longer = server.post("/api/auth/start", r#"{"provider":"demo","ttlSeconds":5}"#);
    assert_eq!(longer.status, 422, "{}", longer.body);
}
