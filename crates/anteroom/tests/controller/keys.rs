//! API keys of a controller that runs: made, made anew, revoked, and where they are shown.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::{Answer, SILENT, Server};

const ANTEROOM: &str = env!("CARGO_BIN_EXE_anteroom");

fn keys(server: &Server, arguments: &[&str]) -> Output {
    let mut command = Command::new(ANTEROOM);
    command.arg("keys").args(arguments).arg("--json").arg("--state-dir").arg(server.state_dir());
    command.output().unwrap()
}

fn said(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn ask(server: &Server, key: &str, path: &str) -> Answer {
    server.get_with(path, &[("authorization", &format!("Bearer {key}"))])
}

#[test]
fn a_key_is_made_listed_made_anew_and_revoked_at_once() {
    let server = Server::with_fake_guest(SILENT);
    let made = said(&keys(&server, &["add", "deploy"]));
    let first = made["key"].as_str().unwrap();
    assert_eq!(ask(&server, first, "/api/sessions").status, 200);
    let refused = ask(&server, first, "/api/keys");
    assert_eq!((refused.status, &refused.body["code"]), (403, &json!("not_admin")));
    let again = keys(&server, &["add", "deploy"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("key_exists"), "{again:?}");

    let list = keys(&server, &["list"]);
    let listed = said(&list);
    let names: Vec<&str> =
        listed.as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["cli", "deploy", "first", "ready-file"]);
    assert!(listed[1]["lastUsedAt"].is_u64() && listed[1]["createdAt"].is_u64(), "{listed}");
    assert!(!String::from_utf8_lossy(&list.stdout).contains(first));

    // What is open by a key ends with it.
    let id = server.started();
    let address = server.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET /api/auth/session/{id}/events HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {first}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut events = BufReader::new(stream);
    let mut line = String::new();
    while !line.starts_with("data:") {
        line.clear();
        assert_ne!(events.read_line(&mut line).unwrap(), 0);
    }
    let second = said(&keys(&server, &["rotate", "deploy"]))["key"].as_str().unwrap().to_owned();
    while events.read_line(&mut line).unwrap() > 0 {}
    assert_eq!(ask(&server, first, "/api/sessions").status, 401);
    assert_eq!(ask(&server, &second, "/api/sessions").status, 200);
    said(&keys(&server, &["revoke", "deploy"]));
    assert_eq!(ask(&server, &second, "/api/sessions").status, 401);
    let unknown = keys(&server, &["revoke", "deploy"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no_such_key"), "{unknown:?}");

    // An admin's key does it from elsewhere, and the command line's own goes on when it is made anew.
    let admin =
        said(&keys(&server, &["add", "ops", "--admin"]))["key"].as_str().unwrap().to_owned();
    assert_eq!(ask(&server, &admin, "/api/keys").status, 200);
    said(&keys(&server, &["rotate", "cli"]));
    said(&keys(&server, &["list"]));
}

#[test]
fn the_log_says_who_changed_a_key() {
    let server = Server::with_fake_guest(SILENT);
    for arguments in [["add", "deploy"], ["rotate", "deploy"], ["revoke", "deploy"]] {
        said(&keys(&server, &arguments));
    }
    let log = server.log();
    for (change, by) in [
        ("an API key was created name=\"deploy\"", "the API key cli"),
        ("an API key was rotated; the earlier one is revoked name=\"deploy\"", "the API key cli"),
        ("an API key was revoked name=\"deploy\"", "the API key cli"),
        ("an API key was created name=\"first\"", "the operator"),
    ] {
        let line = log.lines().find(|line| line.contains(change));
        assert!(line.is_some_and(|line| line.contains(&format!("by={by}"))), "{change}: {log}");
    }
}

#[test]
fn the_first_key_goes_to_a_file_of_its_own_and_a_revoked_one_stays_revoked() {
    let mut server = Server::with_fake_guest(SILENT);
    let path = server.state_dir().join("first-key.txt");
    let first = std::fs::read_to_string(&path).unwrap().trim().to_owned();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(ask(&server, &first, "/api/sessions").status, 200);
    let log = server.log();
    assert!(log.contains("first-key.txt") && !log.contains(&first), "{log}");
    for file in crate::support::files_in(&server.state_dir()) {
        let bytes = std::fs::read(&file).unwrap();
        let holds = bytes.windows(first.len()).any(|part| part == first.as_bytes());
        assert_eq!(holds, file == path, "{}", file.display());
    }
    said(&keys(&server, &["revoke", "first"]));
    server.kill_and_restart();
    assert_eq!(ask(&server, &first, "/api/sessions").status, 401);
    let listed = said(&keys(&server, &["list"])).to_string();
    assert!(!listed.contains(r#""first""#), "{listed}");
}

#[test]
fn secrets_come_by_file_by_standard_input_or_by_a_variable() {
    let server = Server::with_fake_guest(SILENT);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    let run = |arguments: &[&str], input: &str, variable: Option<&str>| {
        let mut command = Command::new(ANTEROOM);
        command.args(["sessions", "--json", "--url", &server.url]).args(arguments);
        if let Some(key) = variable {
            command.env("ANTEROOM_API_KEY", key);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    };
    std::fs::write(&file, format!("{}\n", server.key)).unwrap();
    let path = file.display().to_string();
    assert_eq!(said(&run(&["--api-key-file", &path], "", None)), json!([]));
    assert_eq!(said(&run(&["--api-key-file", "-"], &server.key, None)), json!([]));
    assert_eq!(said(&run(&[], "", Some(&server.key))), json!([]));
    // Named on the command line, a file wins over what a shell has set.
    assert_eq!(said(&run(&["--api-key-file", &path], "", Some("ak_other"))), json!([]));
    // As `--api-key-file <(…)` names it.
    assert_eq!(said(&run(&["--api-key-file", "/dev/stdin"], &server.key, None)), json!([]));
    for endless in [run(&["--api-key-file", "/dev/zero"], "", None), {
        run(&["--api-key-file", "/dev/stdin"], &"a".repeat(70_000), None)
    }] {
        let said = String::from_utf8_lossy(&endless.stderr);
        assert!(said.contains("is longer than 64 KiB"), "{said}");
    }
    let empty = run(&["--api-key-file", "-"], "\n", None);
    assert!(
        String::from_utf8_lossy(&empty.stderr)
            .contains("the first line of standard input is empty"),
        "{empty:?}"
    );

    // A code too: the session's state refuses it, so it arrived.
    let id = server.started();
    let mut command = Command::new(ANTEROOM);
    command
        .args(["auth", "code", &id, "--code-file", &path, "--state-dir"])
        .arg(server.state_dir());
    let refused = command.output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("wrong_state"), "{refused:?}");
}
