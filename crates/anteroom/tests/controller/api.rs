//! Bad input to the API of a real controller: a clear problem, and no sandbox.

use crate::support::{Answer, SILENT, Server};
use serde_json::Value;

fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(
        (answer.status, answer.body["code"].as_str()),
        (status, Some(code)),
        "{}",
        answer.body
    );
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert!(answer.body["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
}

#[test]
fn malformed_starts_are_refused_and_make_nothing() {
    let server = Server::with_fake_guest(SILENT);
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let large = format!(r#"{{"provider":"demo","userId":"{}"}}"#, "x".repeat(13_000_000));
    let cases: [(&str, u16, &str); 15] = [
        ("", 400, "bad_request"),
        ("{", 400, "bad_request"),
        ("[]", 400, "bad_request"),
        (r#"["demo",null,null,null,[]]"#, 400, "bad_request"),
        (&deep, 400, "bad_request"),
        (&large, 413, "body_too_large"),
        (r#"{"provider":"demo","provider":"demo"}"#, 400, "bad_request"),
        (r#"{"provider":"demo","surprise":1}"#, 400, "bad_request"),
        (r#"{"provider":"nobody"}"#, 404, "unknown_provider"),
        (r#"{"provider":"../../etc/passwd"}"#, 404, "unknown_provider"),
        (r#"{"provider":"demo","ttlSeconds":0}"#, 422, "invalid_value"),
        (r#"{"provider":"demo","recipient":"age1nonsense"}"#, 422, "invalid_value"),
        (r#"{"provider":"demo","userId":"a b"}"#, 422, "invalid_value"),
        (r#"{"provider":"demo","files":[{"path":"../x","content":""}]}"#, 422, "invalid_value"),
        (
            r#"{"provider":"demo","files":[{"path":"/x","content":"","mode":4095}]}"#,
            422,
            "invalid_value",
        ),
    ];
    for (body, status, code) in cases {
        assert_problem(&server.post("/api/auth/start", body), status, code);
    }
    assert_eq!(server.get("/api/sessions").body, Value::Array(vec![]));
    assert!(!server.state_dir().join("logs").exists());
}

#[test]
fn nothing_is_reported_without_the_key() {
    let server = Server::with_fake_guest(SILENT);
    let id = "01890000-0000-7000-8000-000000000000";
    for headers in
        [&[][..], &[("authorization", "Bearer ak_wrong")], &[("authorization", "Basic eDp5")]]
    {
        assert_problem(
            &server.post_with("/api/auth/start", r#"{"provider":"demo"}"#, headers),
            401,
            "unauthorized",
        );
        assert_problem(
            &server.post_with(&format!("/api/auth/session/{id}/cancel"), "", headers),
            401,
            "unauthorized",
        );
    }
    // Each route names what it takes: a viewer cookie is nothing to a caller's.
    let asked = |route: &str| {
        let answer = server.get_with(&format!("/api/{route}/session/{id}"), &[]);
        assert_problem(&answer, 401, "unauthorized");
        answer.body["detail"].as_str().unwrap().to_owned()
    };
    let (caller, viewer) = (asked("auth"), asked("viewer"));
    assert!(caller.contains("API key") && !caller.contains("cookie"), "{caller}");
    assert!(viewer.contains("viewer cookie") && viewer.contains("API key"), "{viewer}");
    assert_problem(&server.get(&format!("/api/auth/session/{id}")), 404, "no_such_session");
    assert_problem(&server.get("/api/nothing"), 404, "no_such_route");
    assert_problem(&server.post("/api/sessions", ""), 405, "wrong_method");
}

#[test]
fn session_ids_have_one_spelling() {
    let server = Server::with_fake_guest(SILENT);
    for id in
        ["..%2f..%2fetc", "a%00b", "%ff", &"a".repeat(65), "01890000-0000-7000-8000-00000000000G"]
    {
        assert_problem(&server.get(&format!("/api/auth/session/{id}")), 400, "bad_request");
    }
}

#[test]
fn foreign_pages_are_refused() {
    let server = Server::with_fake_guest(SILENT);
    let key = format!("Bearer {}", server.key);
    let start = |headers: &[(&str, &str)]| {
        server.post_with("/api/auth/start", r#"{"provider":"demo"}"#, headers)
    };
    let foreign = start(&[("authorization", &key), ("origin", "https://evil.test")]);
    assert_problem(&foreign, 403, "foreign_origin");
    let rebound = start(&[("authorization", &key), ("host", "evil.test")]);
    assert_problem(&rebound, 421, "unknown_host");
    assert_eq!(server.get("/api/sessions").body, Value::Array(vec![]));
}

#[test]
fn a_viewer_link_works_once_and_for_its_session_only() {
    let server = Server::with_fake_guest(SILENT);
    let session = server.start_session();
    let id = session["sessionId"].as_str().unwrap();
    let secret = session["viewerUrl"].as_str().unwrap().split_once('#').unwrap().1;
    let origin = server.url.clone();
    let exchange = |secret: &str, origin: &str| {
        let body = serde_json::json!({ "sessionId": id, "secret": secret }).to_string();
        server.post_with("/api/viewer/exchange", &body, &[("origin", origin)])
    };
    assert_problem(&exchange(secret, "https://evil.test"), 403, "foreign_origin");
    assert_problem(&exchange("wrong", &origin), 410, "link_used");
    let first = exchange(secret, &origin);
    assert_eq!(first.status, 204);
    let cookie = first.headers["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly; SameSite=Strict"), "{cookie}");
    assert_problem(&exchange(secret, &origin), 410, "link_used");

    let cookie = cookie.split(';').next().unwrap();
    let cancel = |id: &str, origin: Option<&str>| {
        let mut headers = vec![("cookie", cookie)];
        headers.extend(origin.map(|origin| ("origin", origin)));
        server.post_with(&format!("/api/viewer/session/{id}/cancel"), "", &headers)
    };
    let other = server.start_session();
    assert_problem(
        &cancel(other["sessionId"].as_str().unwrap(), Some(&origin)),
        401,
        "unauthorized",
    );
    assert_problem(&cancel(id, None), 403, "foreign_origin");
    assert_eq!(cancel(id, Some(&origin)).status, 204);
    assert_eq!(server.torn_down(id)["reason"]["code"], "cancelled");
}

#[test]
fn one_browser_may_view_two_sessions() {
    let server = Server::with_fake_guest(SILENT);
    let enter = || {
        let session = server.start_session();
        let id = session["sessionId"].as_str().unwrap().to_owned();
        let secret = session["viewerUrl"].as_str().unwrap().split_once('#').unwrap().1;
        let body = serde_json::json!({ "sessionId": id, "secret": secret }).to_string();
        let answer =
            server.post_with("/api/viewer/exchange", &body, &[("origin", server.url.as_str())]);
        let cookie = answer.headers["set-cookie"].to_str().unwrap();
        (id, cookie.split(';').next().unwrap().to_owned())
    };
    let (first, second) = (enter(), enter());
    // A browser keeps the last cookie of each name.
    let name = |cookie: &str| cookie.split('=').next().unwrap().to_owned();
    assert_ne!(name(&first.1), name(&second.1));
    let cookies = format!("{}; {}", first.1, second.1);
    for (id, _) in [first, second] {
        let headers = [("cookie", cookies.as_str()), ("origin", server.url.as_str())];
        let path = format!("/api/viewer/session/{id}/cancel");
        assert_eq!(server.post_with(&path, "", &headers).status, 204);
        server.torn_down(&id);
    }
}

#[test]
fn deleting_twice_and_while_it_starts_succeeds_and_leaves_nothing() {
    let server = Server::with_fake_guest(SILENT);
    let session = server.start_session();
    let path = format!("/api/auth/session/{}", session["sessionId"].as_str().unwrap());
    assert_eq!(server.delete(&path).status, 204);
    assert_eq!(server.delete(&path).status, 204);
    let ended = server.torn_down(session["sessionId"].as_str().unwrap());
    let reason = &ended["reason"];
    assert_eq!(reason["message"], "cancelled through the API, with the key ready-file");
    let by = serde_json::json!({ "kind": "caller", "key": "ready-file" });
    assert_eq!((&reason["detail"]["by"], &ended["startedBy"]), (&by, &by));
    assert_eq!(
        ended["timeline"]
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["kind"] == "ended")
            .unwrap()["by"],
        by
    );
    assert_eq!(server.delete(&path).status, 204);
    assert_problem(&server.get(&format!("{path}/credentials")), 409, "wrong_state");
    assert_problem(&server.get(&format!("{path}/screenshot")), 409, "wrong_state");
    assert_problem(&server.post(&format!("{path}/viewer-link"), ""), 409, "wrong_state");
}

#[test]
fn a_second_controller_on_the_same_state_is_refused() {
    let server = Server::with_fake_guest(SILENT);
    // Whatever somebody cleans up there: the folder is the lock.
    for file in ["lock", "cli.json"] {
        let _ = std::fs::remove_file(server.state_dir().join(file));
    }
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_anteroom"))
        .args(["serve", "--listen", "127.0.0.1:0", "--state-dir"])
        .arg(server.state_dir())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("another controller is using"), "{message}");
}

#[test]
fn the_same_call_made_again_begins_nothing_again() {
    let server = Server::with_fake_guest(SILENT);
    let bearer = format!("Bearer {}", server.key);
    let start = |server: &Server, bearer: &str, key: &str, body: &str| {
        let headers = [("authorization", bearer), ("idempotency-key", key)];
        server.post_with("/api/auth/start", body, &headers)
    };
    let body = r#"{"provider":"demo"}"#;
    assert_problem(&start(&server, &bearer, "a b", body), 400, "bad_request");
    // A call that failed began nothing: its key is free.
    assert_problem(&start(&server, &bearer, "k", r#"{"provider":"x"}"#), 404, "unknown_provider");
    // Of several at once one begins; the others are asked to wait, or get the same.
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let calls: Vec<_> =
            (0..8).map(|_| scope.spawn(|| start(&server, &bearer, "k", body))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let begun: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 201).collect();
    let first = begun.iter().filter(|a| !a.headers.contains_key("idempotent-replayed"));
    assert_eq!(first.count(), 1);
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        assert_problem(answer, 409, "idempotency_key_in_use");
    }
    let id = begun[0].body["sessionId"].as_str().unwrap();
    assert!(begun.iter().all(|answer| answer.body["sessionId"] == id));
    let again = start(&server, &bearer, "k", body);
    assert_eq!((again.status, &again.body["sessionId"]), (201, &Value::from(id)));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_ne!(again.body["viewerUrl"], begun[0].body["viewerUrl"]);
    let other = start(&server, &bearer, "k", r#"{"provider":"demo","ttlSeconds":99}"#);
    assert_problem(&other, 422, "idempotency_key_reused");
    assert_eq!(server.get("/api/sessions").body.as_array().unwrap().len(), 1);
}
