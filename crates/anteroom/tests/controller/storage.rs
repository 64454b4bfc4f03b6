//! A store that is full, damaged or slow must not make the API lie.

use std::path::PathBuf;

use crate::ends::{kill, runner_and_sandbox};
use crate::support::{Fill, SILENT, Server, Setup, eventually};

#[test]
fn a_full_disk_is_reported_and_the_reason_of_an_end_outlives_it() {
    let server = Setup::fake_guest(SILENT).disk(256).start();
    let id = server.started();
    let (_, sandbox) = runner_and_sandbox(&server, &id);
    let full = Fill::up(&server);
    let refused = server.post("/api/auth/start", r#"{"provider":"demo"}"#);
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert_eq!(refused.body["code"], "storage_unavailable");
    let why = r#"SQLite reported "database or disk is full" (code 13); free space on the disk of the state folder"#;
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(detail.starts_with("the disk of the state folder is too full: "), "{detail}");
    assert!(refused.headers.contains_key("retry-after"));
    kill(sandbox);
    let ended = server.torn_down(&id);
    assert_eq!(ended["reason"]["code"], "sandbox_exited", "{ended}");
    assert_eq!(ended["endNotStored"], why, "{ended}");
    let health = eventually("its health says so", || {
        Some(server.get("/health")).filter(|health| health.status == 503)
    });
    assert_eq!(health.body["reasons"][0], format!("writing to the database failed: {why}"));
    let disk = health.body["reasons"][1].as_str().unwrap();
    assert!(disk.ends_with(" is full, or nearly; free space on it"), "{disk}");
    drop(full);
    let stored = format!(
        "SELECT json_extract(record, '$.session.state.reason.code') FROM sessions WHERE id = '{id}' AND finished"
    );
    let code = eventually("the end is stored", || {
        Some(server.stored(&stored)).filter(|code| !code.is_empty())
    });
    assert_eq!(code, "sandbox_exited");
    server.session_when(&id, "its end is stored", |session| session["endNotStored"].is_null());
    eventually("it is healthy again", || (server.get("/health").status == 200).then_some(()));
}

#[test]
fn one_unreadable_row_hides_no_other_session_and_stops_no_controller() {
    let mut server = Server::with_fake_guest(SILENT);
    let (broken, whole) = (server.started(), server.started());
    for id in [&broken, &whole] {
        assert_eq!(server.delete(&format!("/api/auth/session/{id}")).status, 204);
        server.torn_down(id);
    }
    server.sql(&format!("UPDATE sessions SET record = '{{', finished = 0 WHERE id = '{broken}'"));
    let folder = PathBuf::from(format!("/tmp/anteroom-{broken}"));
    std::fs::create_dir(&folder).unwrap();
    server.kill_and_restart();
    assert!(!folder.exists());
    let sessions = server.get("/api/sessions");
    assert_eq!(sessions.status, 200, "{}", sessions.body);
    let ids: Vec<&str> = sessions
        .body
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["sessionId"].as_str().unwrap())
        .collect();
    assert_eq!(ids, [whole]);
    assert_eq!(server.get(&format!("/api/auth/session/{broken}")).status, 500);
}

#[test]
fn an_unfinished_session_that_nobody_tends_is_ended_by_its_deletion() {
    let server = Server::with_fake_guest(SILENT);
    let id = server.started();
    assert_eq!(server.delete(&format!("/api/auth/session/{id}")).status, 204);
    let record = server.torn_down(&id);
    assert_eq!(record["reason"]["code"], "cancelled");
    // As a controller leaves it that was killed before it began.
    server.sql(&format!(
        "UPDATE sessions SET finished = 0, record = json_set(record, '$.session.state', json('{{\"name\":\"requested\"}}')) WHERE id = '{id}'"
    ));
    assert_eq!(server.delete(&format!("/api/auth/session/{id}")).status, 204);
    let ended = server.torn_down(&id);
    // Whoever deletes it ends it; of the controller before, nothing was observed.
    assert_eq!(ended["reason"]["code"], "cancelled", "{ended}");
}

#[test]
fn a_key_that_cannot_be_checked_is_no_wrong_key() {
    let server = Server::with_fake_guest(SILENT);
    server.sql("DROP TABLE api_keys");
    let answer = server.get("/api/sessions");
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(answer.body["code"], "storage_unavailable");
}

#[test]
fn what_is_kept_is_nobody_else_s_also_in_an_open_folder() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::in_an_open_folder(SILENT);
    let mode = |path: &str| {
        std::fs::metadata(server.state_dir().join(path)).unwrap().permissions().mode() & 0o077
    };
    for path in ["anteroom.db", "anteroom.db-wal", "vault", "vault/identity.txt", "cli.json"] {
        assert_eq!(mode(path), 0, "{path}");
    }
}

#[test]
fn old_sessions_and_their_logs_are_forgotten_but_not_a_credential() {
    let mut server = Server::with_fake_guest(SILENT);
    let (old, sealed, new) = (server.started(), server.started(), server.started());
    for id in [&old, &sealed, &new] {
        assert_eq!(server.delete(&format!("/api/auth/session/{id}")).status, 204);
        server.torn_down(id);
    }
    server.sql(&format!("UPDATE sessions SET created_at = 1 WHERE id IN ('{old}', '{sealed}')"));
    server.sql(&format!("INSERT INTO credentials VALUES ('{sealed}', x'00', 'age1', 1)"));
    let logs = server.state_dir().join("logs").join(&old);
    let touched = std::process::Command::new("find")
        .arg(&logs)
        .args(["-exec", "touch", "-d", "1 year ago", "{}", "+"])
        .status();
    assert!(touched.unwrap().success());
    server.kill_and_restart();
    eventually("the old session is forgotten", || {
        (server.get(&format!("/api/auth/session/{old}")).status == 404).then_some(())
    });
    eventually("its logs are gone", || (!logs.exists()).then_some(()));
    for id in [&sealed, &new] {
        assert_eq!(server.get(&format!("/api/auth/session/{id}")).status, 200);
    }
    assert!(server.state_dir().join("logs").join(&new).exists());
}

#[test]
fn a_database_that_is_removed_while_it_is_open_is_reported_and_nothing_more_is_promised() {
    let server = Server::with_fake_guest(SILENT);
    std::fs::rename(server.state_dir().join("anteroom.db"), server.state_dir().join("elsewhere"))
        .unwrap();
    let refused = server.post("/api/auth/start", r#"{"provider":"demo"}"#);
    assert_eq!(refused.body["code"], "storage_unavailable", "{}", refused.body);
    eventually("its health says so", || (server.get("/health").status == 503).then_some(()));
    let health = server.get("/health").body;
    assert!(health["reasons"][0].as_str().unwrap().contains("removed or replaced"), "{health}");
}
