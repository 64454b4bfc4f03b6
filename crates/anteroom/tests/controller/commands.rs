//! The command line: what it writes over nothing, prints nowhere, and says of a controller that it
//! cannot call.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::{SILENT, Server, anteroom, eventually};

/// A command with this machine's controller.
fn command(server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anteroom"));
    command.args(arguments).arg("--state-dir").arg(server.state_dir()).stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a command that must fail says.
fn refusal(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    said(&output)
}

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

fn sessions(server: &Server) -> Vec<Value> {
    server.get("/api/sessions").body.as_array().unwrap().clone()
}

#[test]
fn no_output_replaces_a_file_and_nothing_is_done_for_one_that_would() {
    let server = Server::with_fake_guest(SILENT);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "mine").unwrap();
    let id = server.started();
    for arguments in [
        &["keys", "add", "ci", "-o", path][..],
        &["keys", "rotate", "first", "-o", path],
        &["screenshot", &id, "-o", path],
        &["credentials", "get", &id, "-o", path],
        &["auth", "start", "demo", "--wait", "-o", path],
    ] {
        let refused = refusal(command(&server, arguments));
        assert!(refused.contains("mine already exists; --force replaces it"), "{refused}");
    }
    // The envelope that would come with a credential is a file too.
    std::fs::rename(&file, folder.path().join("other.envelope.json")).unwrap();
    let other = folder.path().join("other");
    let start = ["auth", "start", "demo", "--wait", "-o", other.to_str().unwrap()];
    let refused = refusal(command(&server, &start));
    assert!(refused.contains("other.envelope.json already exists"), "{refused}");
    let missing = ["screenshot", &id, "-o", "/nonexistent/x.png"];
    let refused = refusal(command(&server, &missing));
    assert!(refused.contains("the folder /nonexistent does not exist"), "{refused}");
    assert_eq!(sessions(&server).len(), 1);
    let keys = command(&server, &["keys", "list"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&keys.stdout).contains("ci"), "{keys:?}");

    std::fs::write(&file, "mine").unwrap();
    let forced = command(&server, &["keys", "add", "ci", "--force", "-o", path]).output().unwrap();
    assert!(forced.status.success(), "{forced:?}");
    assert!(std::fs::read_to_string(&file).unwrap().starts_with("ak_"));
}

#[test]
fn a_session_whose_link_reached_nobody_is_cancelled_and_named() {
    let server = Server::with_fake_guest(SILENT);
    for (n, more) in [&["--wait", "--json"][..], &[]].into_iter().enumerate() {
        let arguments = [&["auth", "start", "demo"], more].concat();
        let mut start = command(&server, &arguments);
        start.stdout(full());
        let refused = refusal(start);
        let all = sessions(&server);
        assert_eq!(all.len(), n + 1);
        let id = all[0]["sessionId"].as_str().unwrap();
        assert!(refused.contains(&format!("session {id} was cancelled")), "{refused}");
        server.torn_down(id);
    }
    let mut add = command(&server, &["keys", "add", "ci"]);
    add.stdout(full());
    let refused = refusal(add);
    assert!(refused.contains("anteroom keys rotate ci --state-dir"), "{refused}");
}

#[test]
fn a_pipe_that_is_closed_is_no_error() {
    let server = Server::with_fake_guest(SILENT);
    let id = server.started();
    for arguments in [&["sessions"][..], &["why", &id], &["logs", &id, "--json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(&server, arguments).stdout(writer).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?} {output:?}");
    }
}

#[test]
fn who_interrupts_a_sign_in_learns_that_it_was_they() {
    let server = Server::with_fake_guest(SILENT);
    let mut start = command(&server, &["auth", "start", "demo", "--wait"]);
    let child = start.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let id = eventually("it started", || {
        let all = sessions(&server);
        all.first().map(|one| one["sessionId"].as_str().unwrap().to_owned())
    });
    // It handles signals from when it shows what happens.
    server.session_when(&id, "it boots", |session| session["state"] != "requested");
    eventually("it handles Ctrl-C", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).unwrap();
        (u64::from_str_radix(caught, 16).unwrap() & 0b10 != 0).then_some(())
    });
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    let expected = format!("error: interrupted; this command has cancelled session {id}\n");
    assert_eq!(said(&output), expected);
}

#[test]
fn a_controller_that_cannot_be_called_is_reported_with_what_is_wrong() {
    let server = Server::with_fake_guest(SILENT);
    let file = server.state_dir().join("cli.json");
    let good = std::fs::read(&file).unwrap();
    let own: Value = serde_json::from_slice(&good).unwrap();
    let with = |field: &str, value: Value| {
        let mut changed = own.clone();
        changed[field] = value;
        std::fs::write(&file, changed.to_string()).unwrap();
        refusal(command(&server, &["sessions"]))
    };
    let refused = with("apiKey", json!("ak_none"));
    assert!(refused.contains("the API key in") && refused.contains("restart"), "{refused}");
    let refused = with("url", json!(5));
    assert!(refused.contains("cli.json has no valid url; restart"), "{refused}");
    let refused = with("url", json!("nowhere"));
    assert!(refused.contains("\"nowhere\" in") && refused.contains("cli.json"), "{refused}");
    std::fs::write(&file, "{").unwrap();
    let refused = refusal(command(&server, &["sessions"]));
    assert!(refused.contains("cli.json is not JSON; restart"), "{refused}");
    std::fs::remove_file(&file).unwrap();
    let refused = refusal(command(&server, &["sessions"]));
    assert!(refused.contains("has no cli.json") && refused.contains("restart"), "{refused}");
    std::fs::write(&file, &good).unwrap();

    let elsewhere = |arguments: &[&str]| {
        let mut command = command(&server, &["sessions"]);
        command.args(arguments);
        refusal(command)
    };
    let refused = elsewhere(&["--url", "nonsense"]);
    assert!(refused.contains("the address \"nonsense\" given with --url"), "{refused}");
    assert!(elsewhere(&["--url", "http://"]).contains("with a host"));
    let refused = elsewhere(&["--api-key", "ak_a\nb"]);
    assert!(refused.contains("the API key has a line break"), "{refused}");
    let refused = elsewhere(&["--api-key", "ak_none"]);
    assert!(refused.contains("this API key; pass another"), "{refused}");
}

#[test]
fn what_is_not_there_is_reported_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str]| {
        let mut command = anteroom(folder.path());
        command.args(arguments).env("XDG_CACHE_HOME", folder.path()).stdin(Stdio::null());
        refusal(command)
    };
    for (arguments, says) in [
        (&["image", "build", "nosuch.toml"][..], "nosuch.toml does not exist; pass the path"),
        (&["image", "list", "--images-dir", "/nonexistent"], "/nonexistent does not exist; pass"),
        (&["credentials", "open", "nosuch.age"], "nosuch.age does not exist; pass the file"),
        (&["serve", "--state-dir", "/proc/foo"], "choose another with --state-dir"),
        (&["provider", "test", "codex", "--driver", "foo"], "possible values: qemu, firecracker"),
        (&["egress", "learn", "nosuch.toml"], "pass its path, or a shipped provider's id"),
    ] {
        let refused = refused(arguments);
        assert!(refused.contains(says), "{arguments:?}: {refused}");
        assert!(!refused.contains("temporary controller"), "{refused}");
    }
    let state = folder.path().join("serve");
    let unknown = ["--agent", "/bin/true", "--allow-vault-custody", "foo"];
    let serve = ["serve", "--driver", "host", "--state-dir", state.to_str().unwrap()];
    let refused = refused(&[&serve[..], &unknown].concat());
    assert!(refused.contains("forbid the vault are claude_code, "), "{refused}");
    // The usual folder that nobody needed yet has no images.
    let list = anteroom(folder.path()).args(["image", "list"]).output().unwrap();
    assert!(list.status.success(), "{list:?}");
}

#[test]
fn a_ready_file_of_somebody_else_is_not_replaced() {
    let mut server = Server::with_fake_guest(SILENT);
    let folder = tempfile::tempdir().unwrap();
    let ready = server.state_dir().with_file_name("ready.json");
    let before = std::fs::read(&ready).unwrap();
    let serve = |state: &Path, ready: &Path| {
        let mut command = anteroom(folder.path());
        command.args(["serve", "--driver", "host", "--agent", "/bin/true", "--listen"]);
        command.args(["127.0.0.1:0", "--state-dir"]).arg(state).arg("--ready-file").arg(ready);
        command.env("XDG_CACHE_HOME", folder.path()).stdin(Stdio::null());
        command
    };
    let other = folder.path().join("other");
    let refused = refusal(serve(&other, &ready));
    assert!(refused.contains("this controller did not write it; remove it"), "{refused}");
    let mut notes = File::create(folder.path().join("notes")).unwrap();
    notes.write_all(b"mine").unwrap();
    let refused = refusal(serve(&other, &folder.path().join("notes")));
    assert!(refused.contains("notes already exists"), "{refused}");
    assert_eq!(std::fs::read(&ready).unwrap(), before);

    // After it was killed, the same controller starts again with the same options.
    server.kill();
    let mut child = serve(&server.state_dir(), &ready).stderr(Stdio::null()).spawn().unwrap();
    eventually("its own file is replaced", || {
        (std::fs::read(&ready).unwrap() != before).then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_image_without_a_name_and_a_driver_without_a_vm_are_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["snapshot", "verify", "rm"] {
        let refused = anteroom(folder.path()).args(["image", command, ""]).output().unwrap();
        let message = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{command}: {message}");
        let said = "an image's name is never empty; `anteroom image list` lists the names";
        assert!(message.contains(said), "{command}: {message}");
    }
    let snapshot = |arguments: &[&str]| {
        let mut command = anteroom(folder.path());
        command.args(["image", "snapshot"]).args(arguments).output().unwrap()
    };
    let help = String::from_utf8(snapshot(&["--help"]).stdout).unwrap();
    assert!(help.contains("- firecracker: ") && !help.contains("- host: "), "{help}");
    let refused = snapshot(&["demo", "--driver", "host"]);
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(message.contains("[possible values: qemu, firecracker]"), "{message}");
}
