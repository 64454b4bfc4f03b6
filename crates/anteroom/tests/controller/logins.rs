//! Sign-ins by the real agent on this host: X, window manager, Chromium and a CLI of the test.

use serde_json::{Value, json};

use crate::ends::{kill, runner_and_sandbox};
use crate::support::{Server, eventually, files_in, processes_of};

fn reason(server: &Server, body: &Value) -> (String, String) {
    let answer = server.post("/api/auth/start", &body.to_string());
    assert_eq!(answer.status, 201, "{}", answer.body);
    let ended = server.torn_down(answer.body["sessionId"].as_str().unwrap());
    let text = |name: &str| ended["reason"][name].as_str().unwrap().to_owned();
    (text("code"), text("message"))
}

#[test]
fn a_cli_that_exits_is_reported_with_its_last_line() {
    let server = Server::with_cli("echo I have no idea; exit 4");
    let (code, message) = reason(&server, &json!({ "provider": "demo" }));
    assert_eq!(code, "cli_exited");
    assert!(
        message.contains("no credential was written: the tool exited with code 4 after ")
            && message.ends_with("; it reported: I have no idea"),
        "{message}"
    );
}

#[test]
fn a_cli_that_never_gives_an_address_is_reported() {
    let server = Server::with_cli("exec sleep 1000");
    let (code, message) = reason(&server, &json!({ "provider": "demo" }));
    assert_eq!(code, "no_sign_in_url");
    assert!(message.contains("did not show a sign-in page within 3 s"), "{message}");
}

#[test]
fn what_no_rule_knows_is_the_end_user_s_to_answer() {
    let server = Server::with_cli(r"printf 'Theme?\n1. dark\n2. light\n'; exec sleep 1000");
    let id = server.started();
    let waits = server.session_when(&id, "it waits", |session| session["awaiting"].is_object());
    assert_eq!(waits["state"], "awaiting_user");
    let awaiting = &waits["awaiting"];
    assert_eq!(awaiting["screen"], json!(["Theme?", "1. dark", "2. light"]), "{awaiting}");
    assert!(awaiting["url"].is_null() && awaiting["deadline"].as_u64().unwrap() > 0, "{awaiting}");
    assert!(awaiting["instructions"].as_str().unwrap().contains("terminal"), "{awaiting}");
}

#[test]
fn a_desktop_goes_with_its_runner_and_with_its_agent() {
    let server = Server::with_patient_cli("exec sleep 1000");
    for (whom, code) in [("runner", "runner_died"), ("agent", "sandbox_exited")] {
        let id = server.started();
        server.session_when(&id, "the browser runs", |session| {
            let timeline = session["timeline"].as_array().unwrap();
            timeline.iter().any(|entry| entry["message"] == "the browser is ready")
        });
        let (runner, agent) = runner_and_sandbox(&server, &id);
        kill(if whom == "runner" { runner } else { agent });
        let ended = server.torn_down(&id);
        assert_eq!(ended["reason"]["code"], code, "{ended}");
    }
}

/// The number of a session's X server; its file is there a moment before what it holds.
fn display_of(id: &str) -> String {
    eventually("X has a number", || {
        let number = std::fs::read_to_string(format!("/tmp/anteroom-{id}/display")).ok()?;
        (!number.is_empty()).then_some(number)
    })
}

#[test]
fn a_killed_agent_s_x_server_leaves_no_socket() {
    let server = Server::with_patient_cli("exec sleep 1000");
    for _ in 0..4 {
        let id = server.started();
        let (_, agent) = runner_and_sandbox(&server, &id);
        let socket = std::path::PathBuf::from(format!("/tmp/.X11-unix/X{}", display_of(&id)));
        eventually("X listens", || socket.exists().then_some(()));
        kill(agent);
        let ended = server.torn_down(&id);
        assert_eq!(ended["reason"]["code"], "sandbox_exited", "{ended}");
        assert!(!socket.exists());
    }
}

#[test]
fn a_killed_x_server_is_reported_and_leaves_no_socket() {
    let server = Server::with_patient_cli("exec sleep 1000");
    let is_x = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"Xvnc"))
    };
    // As soon as it is there, and when all is ready.
    for moment in ["x", "the browser is ready"] {
        let id = server.started();
        if moment != "x" {
            server.session_when(&id, "the browser runs", |session| {
                let timeline = session["timeline"].as_array().unwrap();
                timeline.iter().any(|entry| entry["message"] == moment)
            });
        }
        let x = eventually("X runs", || processes_of(&id).into_iter().find(is_x));
        let display = display_of(&id);
        kill(x);
        let ended = server.torn_down(&id);
        assert_eq!(ended["reason"]["code"], "service_failed", "{ended}");
        // Its clients fall with it; it is the one to be named.
        let message = ended["reason"]["message"].as_str().unwrap();
        assert!(message.starts_with("the X server was killed by signal 9"), "{message}");
        assert!(!std::path::Path::new(&format!("/tmp/.X11-unix/X{display}")).exists());
        assert!(!std::path::Path::new(&format!("/tmp/.X{display}-lock")).exists());
    }
}

#[test]
fn a_file_that_cannot_be_placed_ends_the_session_and_is_named() {
    let server = Server::with_cli("exec sleep 1000");
    let files = json!([{ "path": "/proc/anteroom/x", "content": "abc" }]);
    let (code, message) = reason(&server, &json!({ "provider": "demo", "files": files }));
    assert_eq!(code, "file_not_injected");
    assert!(message.contains("/proc/anteroom/x"), "{message}");
}

#[test]
fn injected_files_are_there_before_the_cli_and_a_written_credential_is_sealed() {
    // The CLI signs nobody in: it turns the injected file into its credential.
    let server = Server::with_cli(
        r#"xdg-open http://127.0.0.1:9/sign-in; mkdir -p ~/.demo-login; cp ~/.injected ~/.demo-login/credentials.json; exec sleep 1000"#,
    );
    let content = json!({ "access_token": "canary", "refresh_token": "canary" }).to_string();
    let files = json!([{ "path": "~/.injected", "content": content }]);
    let answer =
        server.post("/api/auth/start", &json!({ "provider": "demo", "files": files }).to_string());
    let id = answer.body["sessionId"].as_str().unwrap();
    let ended = server.torn_down(id);
    assert_eq!(ended["reason"]["code"], "completed", "{ended}");
    let kinds: Vec<&str> =
        ended["timeline"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert!(kinds.contains(&"files_injected") && kinds.contains(&"credential_stored"), "{kinds:?}");
    let sealed = server.get(&format!("/api/auth/session/{id}/credentials")).body;
    assert!(sealed.as_str().is_none_or(|text| !text.contains("canary")));
    // Sealed in the guest: the token is nowhere in what the controller keeps.
    for entry in files_in(&server.state_dir()) {
        let bytes = std::fs::read(&entry).unwrap();
        assert!(
            !bytes.windows(6).any(|window| window == b"canary"),
            "{} holds the token",
            entry.display()
        );
    }
}
