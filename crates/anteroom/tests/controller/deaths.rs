//! Services that die: each is explained, none touches another, and what is needed ends the session.

use std::process::Command;

use serde_json::Value;

use crate::ends::signal;
use crate::support::{Server, Setup, eventually, processes_of};

/// A controller whose sandboxes run these services; the CLI waits.
fn with_services(setup: Setup, services: &str) -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("services.toml");
    std::fs::write(&path, services).unwrap();
    let setup = setup.option("--services").option(path.to_str().unwrap());
    (folder, setup.start_with_cli("exec sleep 1000", 600))
}

fn entries(session: &Value) -> &Vec<Value> {
    session["timeline"].as_array().unwrap()
}

/// The explained entries about a service.
fn deaths<'a>(session: &'a Value, service: &str) -> Vec<&'a Value> {
    let begins = format!("the service {service} ");
    let of_it = |entry: &&Value| {
        !entry["explanation"].is_null() && entry["message"].as_str().unwrap().starts_with(&begins)
    };
    entries(session).iter().filter(of_it).collect()
}

fn said(entry: &Value) -> &str {
    entry["message"].as_str().unwrap()
}

#[test]
fn each_death_is_explained_and_nothing_else_falls_with_it() {
    let services = r#"
        [[services]]
        name = "loops"
        command = ["sh", "-c", "sleep 0.2; echo no offer; exit 1"]
        needed = false
        restarts = 2
        [[services]]
        name = "syntax"
        command = ["python3", "-c", "session?.proxyConfig"]
        needed = false
        [[services]]
        name = "ghost"
        command = ["/usr/bin/node-12", "server.js"]
        needed = false
        [[services]]
        name = "steady"
        command = ["sh", "-c", "trap '' TERM; sleep 1000 & wait"]
        needed = false
    "#;
    let (_folder, server) = with_services(Setup::host(), services);
    let id = server.started();
    let session = server.session_when(&id, "all have died, and X is ready", |session| {
        let x_ready =
            entries(session).iter().any(|entry| entry["message"] == "the X server is ready");
        let given_up = !deaths(session, "ghost").is_empty();
        x_ready
            && given_up
            && deaths(session, "loops").len() == 3
            && !deaths(session, "syntax").is_empty()
    });
    let loops = deaths(&session, "loops");
    assert!(said(loops[0]).contains("it reported: no offer; it will be restarted in"));
    assert!(
        said(loops[2]).ends_with("it has died 3 times and will not be restarted"),
        "{}",
        said(loops[2])
    );
    assert_eq!(loops[2]["explanation"]["cause"], "ended_by_self");
    let syntax = deaths(&session, "syntax");
    assert_eq!(syntax.len(), 1, "it is not tried again: {session}");
    assert!(said(syntax[0]).contains("SyntaxError"), "{}", said(syntax[0]));
    assert_eq!(
        said(deaths(&session, "ghost")[0]),
        "the service ghost could not start: the program /usr/bin/node-12 does not exist"
    );
    assert!(deaths(&session, "steady").is_empty(), "{session}");
    assert_eq!(session["state"], "preparing", "{session}");
    let page = server.get("/metrics").body;
    assert!(page.as_str().unwrap().contains(r#"anteroom_deaths_total{cause="syntax_error"} 1"#));
    // It ignores SIGTERM and has a child: both end with the sandbox.
    server.delete(&format!("/api/auth/session/{id}"));
    assert_eq!(server.torn_down(&id)["leftovers"], serde_json::json!([]));
}

#[test]
fn a_session_whose_needed_service_cannot_live_is_never_ready_and_says_why() {
    let services = r#"
        [[services]]
        name = "agent-of-old"
        command = ["python3", "-c", "session?.proxyConfig"]
    "#;
    let (_folder, server) = with_services(Setup::host(), services);
    let ended = server.torn_down(&server.started());
    assert_eq!(ended["reason"]["code"], "service_failed", "{ended}");
    let message = ended["reason"]["message"].as_str().unwrap();
    assert!(
        message.contains("the service agent-of-old exited with code 1")
            && message.contains("SyntaxError"),
        "{message}"
    );
    assert!(entries(&ended).iter().all(|entry| entry["kind"] != "sign_in_url"), "{ended}");
    let last = entries(&ended).iter().find(|entry| entry["kind"] == "ended").unwrap();
    assert_eq!(last["explanation"]["cause"], "syntax_error", "{ended}");
}

#[test]
fn a_service_that_is_not_ready_or_stalls_is_reported_with_what_it_was_doing() {
    let services = r#"
        [[services]]
        name = "mute"
        command = ["sleep", "1000"]
        ready = { port = 1 }
        ready_seconds = 1
        needed = false
        [[services]]
        name = "stuck"
        command = ["sh", "-c", "touch ~/.alive; sleep 1; rm ~/.alive; exec sleep 1000"]
        ready = { file = "~/.alive" }
        watchdog = { probe = { file = "~/.alive" }, seconds = 1 }
        needed = false
        restarts = 0
    "#;
    let (_folder, server) = with_services(Setup::host(), services);
    let id = server.started();
    let session = server.session_when(&id, "both are reported", |session| {
        !deaths(session, "mute").is_empty() && !deaths(session, "stuck").is_empty()
    });
    let mute = said(deaths(&session, "mute")[0]);
    assert!(
        mute.starts_with("the service mute did not become ready within 1 s (port 1)"),
        "{mute}"
    );
    let stuck = said(deaths(&session, "stuck")[0]);
    assert!(
        stuck.starts_with("the service stuck stopped responding for 1 s (watchdog: file ~/.alive)"),
        "{stuck}"
    );
}

#[test]
fn a_service_stopped_by_a_signal_is_reported_as_stopped() {
    let (_folder, server) = with_services(Setup::host(), "services = []");
    let id = server.started();
    server.session_when(&id, "the window manager runs", |session| {
        entries(session).iter().any(|entry| entry["message"] == "the window manager is ready")
    });
    let is_x = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"Xvnc"))
    };
    let x = processes_of(&id).into_iter().find(is_x).unwrap();
    signal("-STOP", x);
    let ended = server.torn_down(&id);
    let message = ended["reason"]["message"].as_str().unwrap();
    assert!(message.starts_with("the X server stopped responding for 10 s"), "{message}");
    assert!(message.contains("it was stopped by a signal"), "{message}");
}

/// The incident: a program that uses an instruction which the processor does not have, and nobody
/// knew why it died.
#[test]
fn in_a_machine_without_avx_a_program_that_uses_it_is_named_with_its_instruction() {
    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("a.S"), folder.path().join("a"));
    std::fs::write(&source, ".globl _start\n_start: vpmovzxbd (%rsp), %ymm0\nud2\n").unwrap();
    let built = Command::new("gcc")
        .args(["-nostdlib", "-static", "-Wl,--build-id", "-o"])
        .args([&program, &source])
        .status()
        .unwrap();
    assert!(built.success());
    let text = base64(&program);
    let services = format!(
        "[[services]]\nname = \"injected\"\nneeded = false\ncommand = [\"sh\", \"-c\", \
         \"echo {text} | base64 -d > /tmp/injected; chmod +x /tmp/injected; exec /tmp/injected\"]\n\
         [[services]]\nname = \"hog\"\nneeded = false\nmemory_mib = 32\nrestarts = 0\n\
         command = [\"python3\", \"-c\", \"x = [bytearray(1 << 20) for _ in range(4000)]\"]\n"
    );
    let setup = Setup::machines().option("--cpu").option("x86-64-v2");
    let setup = setup.option("--allow-unverified-images");
    let (_folder, server) = with_services(setup, &services);
    let id = server.started();
    let session = eventually("both are reported", || {
        let session = server.get(&format!("/api/auth/session/{id}")).body;
        assert_ne!(session["state"], "ended", "{session}");
        let reported = ["injected", "hog"].iter().all(|name| !deaths(&session, name).is_empty());
        reported.then_some(session)
    });
    assert_eq!(
        said(deaths(&session, "injected")[0]),
        "the service injected crashed with an illegal instruction: `vpmovzxbd ymm0, [rsp]` at \
         injected+0x1000 needs AVX2; this VM's CPU profile x86-64-v2 lacks AVX2; it will not be \
         restarted, because that would not help"
    );
    let hog = said(deaths(&session, "hog")[0]);
    assert!(
        hog.starts_with(
            "the service hog was killed by the kernel: out of memory; its memory limit is 32 MiB"
        ),
        "{hog}"
    );
    server.delete(&format!("/api/auth/session/{id}"));
    server.torn_down(&id);
}

fn base64(path: &std::path::Path) -> String {
    let output = Command::new("base64").args(["-w", "0"]).arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}
