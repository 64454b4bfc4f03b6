//! Every way in which a sandbox can die is explained, and leaves nothing.

use std::process::Command;

use crate::support::{SILENT, Server, eventually, processes_of};
use serde_json::Value;

/// Answers the handshake on descriptor 10, sends `bytes` (Python), then says nothing.
fn fake_guest(bytes: &str) -> String {
    format!(
        "#!/usr/bin/env python3\nimport os, time\nhello = b''\nwhile len(hello) < 26: hello += os.read(10, 26 - len(hello))\n\
         os.write(10, hello)\nos.write(10, {bytes})\ntime.sleep(1000)\n"
    )
}

pub fn kill(pid: i32) {
    signal("-KILL", pid);
}

pub fn signal(name: &str, pid: i32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

/// The session's runner and its sandbox's process, once both run.
pub fn runner_and_sandbox(server: &Server, id: &str) -> (i32, i32) {
    server.session_when(id, "the sandbox runs", |s| {
        s["timeline"].as_array().unwrap().iter().any(|e| e["kind"] == "sandbox_started")
    });
    let command =
        |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    // A process in the middle of `exec` shows no environment for a moment.
    eventually("both processes are seen", || {
        let pids = processes_of(id);
        let runner = *pids.iter().find(|pid| command(pid).ends_with("session\0"))?;
        Some((runner, *pids.iter().find(|pid| **pid != runner)?))
    })
}

fn message(session: &Value) -> &str {
    session["reason"]["message"].as_str().unwrap()
}

#[test]
fn a_sandbox_that_ends_at_once_says_how_and_what_it_printed() {
    let server = Server::with_fake_guest("#!/bin/sh\necho cannot find my shoes\nexit 3\n");
    let id = server.started();
    let ended = server.torn_down(&id);
    assert_eq!(ended["reason"]["code"], "sandbox_exited");
    assert_eq!(
        message(&ended),
        "the agent on this host ended unexpectedly: its process exited with code 3; the console's last line: cannot find my shoes"
    );
    let logs = server.get(&format!("/api/auth/session/{id}/logs")).body;
    assert!(logs.as_str().unwrap().contains("cannot find my shoes"), "{logs}");
}

#[test]
fn a_killed_sandbox_is_distinguished_from_a_killed_runner() {
    let server = Server::with_fake_guest(SILENT);
    let id = server.started();
    let (_, sandbox) = runner_and_sandbox(&server, &id);
    kill(sandbox);
    let ended = server.torn_down(&id);
    assert_eq!(ended["reason"]["code"], "sandbox_exited");
    assert!(message(&ended).contains("was killed by signal 9 (SIGKILL)"), "{ended}");

    let id = server.started();
    let (runner, _) = runner_and_sandbox(&server, &id);
    kill(runner);
    let ended = server.torn_down(&id);
    assert_eq!(ended["reason"]["code"], "runner_died");
    assert!(message(&ended).contains("was killed by signal 9 (SIGKILL)"), "{ended}");
}

#[test]
fn what_a_killed_controller_left_is_ended_by_the_next() {
    let mut server = Server::with_fake_guest(SILENT);
    let id = server.started();
    runner_and_sandbox(&server, &id);
    server.kill_and_restart();
    let ended = server.torn_down(&id);
    assert_eq!(ended["reason"]["code"], "controller_stopped");
}

#[test]
fn what_a_controller_and_a_runner_killed_together_left_is_removed_by_the_next() {
    let mut server = Server::with_fake_guest(SILENT);
    let id = server.started();
    let (runner, _) = runner_and_sandbox(&server, &id);
    // Stopped first: a runner whose controller is gone cleans up after itself.
    signal("-STOP", runner);
    kill(server.pid());
    kill(runner);
    let folder = std::path::PathBuf::from(format!("/tmp/anteroom-{id}"));
    assert!(folder.exists());
    server.kill_and_restart();
    server.torn_down(&id);
    assert!(!folder.exists());
}

#[test]
fn a_stopped_runner_is_reported_by_its_silence() {
    let server = Server::with_fake_guest(SILENT);
    let id = server.started();
    let (runner, _) = runner_and_sandbox(&server, &id);
    signal("-STOP", runner);
    let ended = server.torn_down(&id);
    assert_eq!(ended["reason"]["code"], "runner_silent", "{ended}");
    assert!(message(&ended).contains("did not respond for 30 s"), "{ended}");
}

#[test]
fn a_controller_that_was_stopped_for_a_while_blames_no_runner() {
    let server = Server::with_fake_guest(SILENT);
    let id = server.started();
    runner_and_sandbox(&server, &id);
    signal("-STOP", server.pid());
    // Longer than a runner may be silent; there is nothing to wait for but time itself.
    std::thread::sleep(std::time::Duration::from_secs(33));
    signal("-CONT", server.pid());
    let session = server.get(&format!("/api/auth/session/{id}")).body;
    assert_eq!(session["state"], "booting", "{session}");
    // And it is still listened to.
    let heard = server.get("/health");
    assert!(matches!(heard.status, 200 | 503), "{}", heard.body);
    server.delete(&format!("/api/auth/session/{id}"));
    assert_eq!(server.torn_down(&id)["reason"]["code"], "cancelled");
}

#[test]
fn what_is_accepted_while_the_controller_stops_is_ended_by_it() {
    let mut server = Server::with_fake_guest(SILENT);
    let accepted: Vec<String> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let start = || server.try_post("/api/auth/start", r#"{"provider":"demo"}"#);
                    let answers = (0..20).map_while(|_| start());
                    answers
                        .filter(|answer| answer.status == 201)
                        .map(|answer| answer.body["sessionId"].as_str().unwrap().to_owned())
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        eventually("some are accepted", || {
            server
                .try_get("/api/sessions")
                .filter(|answer| !answer.body.as_array().is_none_or(Vec::is_empty))
        });
        server.terminate();
        calls.into_iter().flat_map(|call| call.join().unwrap()).collect()
    });
    server.wait_until_stopped();
    assert!(!accepted.is_empty());
    assert_eq!(server.stored("SELECT count(*) FROM sessions WHERE NOT finished"), "0");
    for id in accepted {
        assert_eq!(processes_of(&id), Vec::<i32>::new());
    }
}

#[test]
fn a_guest_that_breaks_the_protocol_ends_its_session_with_the_reason() {
    let cases = [
        // A yamux frame of 4 GiB (version 0, data, SYN, stream 2).
        (r"b'\0\0\0\1\0\0\0\2\xff\xff\xff\xff'", "the multiplexer of the guest link failed"),
        // No yamux at all.
        (r"b'GET / HTTP/1.1\r\n\r\n'", "the multiplexer of the guest link failed"),
    ];
    for (bytes, cause) in cases {
        let server = Server::with_fake_guest(&fake_guest(bytes));
        let ended = server.torn_down(&server.started());
        assert_eq!(ended["reason"]["code"], "guest_broke_protocol", "{ended}");
        assert!(message(&ended).contains(cause), "{ended}");
    }
}

#[test]
fn a_guest_that_falls_silent_after_the_handshake_is_given_up() {
    let server = Server::with_fake_guest(&fake_guest("b''"));
    let ended = server.torn_down(&server.started());
    assert_eq!(ended["reason"]["code"], "agent_silent", "{ended}");
    assert!(message(&ended).contains("did not respond within 14 s"), "{ended}");
}

#[test]
fn the_time_to_live_ends_a_session_and_says_in_which_state() {
    let server = Server::with_fake_guest(SILENT);
    let answer = server.post("/api/auth/start", r#"{"provider":"demo","ttlSeconds":2}"#);
    let ended = server.torn_down(answer.body["sessionId"].as_str().unwrap());
    assert_eq!(ended["reason"]["code"], "timed_out");
    assert!(
        message(&ended).starts_with("the session timed out after 2 s while booting"),
        "{ended}"
    );
}

#[test]
fn a_runner_that_is_killed_before_it_read_anything_died_and_broke_nothing() {
    let server = Server::with_fake_guest(SILENT);
    for _ in 0..10 {
        let id = server.started();
        // As soon as it is there: what was sent to it lies in its socket.
        let runner = eventually("the runner is there", || processes_of(&id).into_iter().next());
        let _ = Command::new("kill").args(["-KILL", &runner.to_string()]).status();
        let ended = server.torn_down(&id);
        let code = ended["reason"]["code"].as_str().unwrap();
        assert!(["runner_died", "sandbox_exited"].contains(&code), "{ended}");
    }
}

#[test]
fn a_closed_terminal_is_an_orderly_end() {
    let mut server = Server::with_fake_guest(SILENT);
    let id = server.started();
    runner_and_sandbox(&server, &id);
    signal("-HUP", server.pid());
    server.wait_until_stopped();
    let reason = format!(
        "SELECT json_extract(record, '$.session.state.reason.code') FROM sessions WHERE id = '{id}' AND finished"
    );
    assert_eq!(server.stored(&reason), "cancelled");
}
