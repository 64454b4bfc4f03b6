//! A real virtual machine, and each of its three processes killed under it.

use crate::ends::{kill, runner_and_sandbox};
use crate::support::Server;

/// Waits until the session's virtual machine has a running agent in it.
fn awake(server: &Server, id: &str) {
    server.session_when(id, "the agent answers", |session| {
        assert_eq!(session["reason"], serde_json::Value::Null, "{session}");
        session["timeline"].as_array().unwrap().iter().any(|e| e["kind"] == "agent_connected")
    });
}

#[test]
fn whatever_is_killed_of_a_running_machine_the_reason_says_and_nothing_is_left() {
    let mut server = Server::with_machines();

    let id = server.started();
    awake(&server, &id);
    let (_, qemu) = runner_and_sandbox(&server, &id);
    kill(qemu);
    let ended = server.torn_down(&id);
    assert_eq!(ended["reason"]["code"], "sandbox_exited", "{ended}");
    assert!(ended["reason"]["message"].as_str().unwrap().contains("SIGKILL"), "{ended}");
    let logs = server.get(&format!("/api/auth/session/{id}/logs")).body;
    let console = logs.as_str().unwrap().split("==> ").find(|log| log.starts_with("console.log"));
    assert!(console.unwrap().lines().count() > 2, "the console outlives the machine: {logs}");

    let id = server.started();
    let (runner, _) = runner_and_sandbox(&server, &id);
    kill(runner);
    let ended = server.torn_down(&id);
    assert_eq!(ended["reason"]["code"], "runner_died", "{ended}");

    let id = server.started();
    runner_and_sandbox(&server, &id);
    server.kill_and_restart();
    let ended = server.torn_down(&id);
    assert_eq!(ended["reason"]["code"], "controller_stopped", "{ended}");
}
