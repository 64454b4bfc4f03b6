//! At every fail point, from the call to the end of the teardown, a step fails once and its process is killed
//! once. What the API says is as here, and nothing is left.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::ends::{runner_and_sandbox, signal};
use crate::support::{SILENT, Server, Setup, eventually};

/// A CLI that signs nobody in, has its credential at once and ends: one that goes on is waited for until
/// it says nothing for some seconds, and then has to be killed.
const SIGNS_IN_AND_ENDS: &str = r#"xdg-open http://127.0.0.1:9/sign-in; mkdir -p ~/.demo-login; echo '{"access_token":"a","refresh_token":"b"}' > ~/.demo-login/credentials.json"#;

/// What the API says in the end: the code of the session's reason, of a refused call's problem, or
/// nothing where no session was begun.
type Said = &'static str;

struct Case {
    point: &'static str,
    fails: Said,
    killed: Said,
}

const NO_SESSION: Said = "";

macro_rules! cases {
    ($($name:ident: $point:literal fails $fails:expr, killed $killed:expr;)*) => {
        const CASES: &[Case] = &[$(Case { point: $point, fails: $fails, killed: $killed }),*];
        $(
            #[test]
            fn $name() {
                check($point);
            }
        )*
    };
}

cases! {
    start_log_dir: "start.log_dir" fails "storage_unavailable", killed NO_SESSION;
    store_create: "store.create" fails "storage_unavailable", killed NO_SESSION;
    store_save: "store.save" fails "state_not_stored", killed "controller_stopped";
    runner_spawn: "runner.spawn" fails "session_setup_failed", killed "controller_stopped";
    runner_spawned: "runner.spawned" fails "session_setup_failed", killed "controller_stopped";
    runner_configured: "runner.configured" fails "runner_died", killed "runner_died";
    host_runtime_dir: "host.runtime_dir" fails "sandbox_not_started", killed "runner_died";
    sandbox_spawn: "sandbox.spawn" fails "sandbox_not_started", killed "runner_died";
    sandbox_spawned: "sandbox.spawned" fails "sandbox_not_started", killed "runner_died";
    runner_service_log: "runner.service_log" fails "session_setup_failed", killed "runner_died";
    runner_confine: "runner.confine" fails "session_setup_failed", killed "runner_died";
    boot_handshake: "boot.handshake" fails "runner_failed", killed "runner_died";
    boot_hello: "boot.hello" fails "runner_failed", killed "runner_died";
    boot_configured: "boot.configured" fails "runner_failed", killed "runner_died";
    boot_sign_in_begun: "boot.sign_in_begun" fails "runner_failed", killed "runner_died";
    boot_files_injected: "boot.files_injected" fails "runner_failed", killed "runner_died";
    boot_services_started: "boot.services_started" fails "runner_failed", killed "runner_died";
    runner_egress_gate: "runner.egress_gate" fails "session_setup_failed", killed "runner_died";
    runner_media: "runner.media" fails "session_setup_failed", killed "runner_died";
    boot_media_started: "boot.media_started" fails "runner_failed", killed "runner_died";
    capture_sign_in_url: "capture.sign_in_url" fails "runner_failed", killed "runner_died";
    capture_found: "capture.found" fails "runner_failed", killed "runner_died";
    capture_sealed: "capture.sealed" fails "runner_failed", killed "runner_died";
    store_credential: "store.credential" fails "credential_not_stored", killed "controller_stopped";
    // From here on the credential is safe, whatever dies.
    store_credential_durable: "store.credential_durable" fails "completed", killed "completed";
    capture_acknowledged: "capture.acknowledged" fails "completed", killed "completed";
    teardown_sandbox_ended: "teardown.sandbox_ended" fails "completed", killed "completed";
    teardown_reap: "teardown.reap" fails "completed", killed "completed";
    teardown_remove: "teardown.remove" fails "completed", killed "completed";
    teardown_look: "teardown.look" fails "completed", killed "completed";
}

/// Points on the way of a VM only.
const OF_MACHINES: [&str; 1] = ["qemu.initramfs"];

fn check(point: &str) {
    let Case { fails, killed, .. } = CASES.iter().find(|case| case.point == point).unwrap();
    for (action, said) in [("error", fails), ("kill", killed)] {
        let fault = format!("{point}=1*return({action})");
        let mut server = Setup::host().fault(&fault).start_with_cli(SIGNS_IN_AND_ENDS, 600);
        assert_eq!(said_in_the_end(&mut server), *said, "{fault}");
    }
}

/// Has one sign-in begun and waits for its end; a controller that dies of it is started again.
fn said_in_the_end(server: &mut Server) -> String {
    let begun = server.try_post("/api/auth/start", r#"{"provider":"demo"}"#);
    if let Some(refused) = begun.as_ref().filter(|answer| answer.status != 201) {
        assert_eq!(server.get("/api/sessions").body, Value::Array(vec![]));
        return refused.body["code"].as_str().unwrap().to_owned();
    }
    let controller_died = eventually("the sandbox is torn down or the controller dead", || {
        if server.has_ended() {
            return Some(true);
        }
        let id = begun.as_ref()?.body["sessionId"].as_str()?;
        let session = server.try_get(&format!("/api/auth/session/{id}"))?.body;
        (session["teardown"] == "torn_down").then_some(false)
    });
    if controller_died {
        server.kill_and_restart();
    }
    let said = match server.get("/api/sessions").body[0]["sessionId"].as_str() {
        None => NO_SESSION.to_owned(),
        Some(id) => end_of(server, id),
    };
    if controller_died {
        assert_eq!(end_of(server, &server.started()), "completed", "the next one works");
    }
    said
}

/// The session's reason; nothing of it is left, and there is a credential exactly where it says so.
fn end_of(server: &Server, id: &str) -> String {
    let session = server.torn_down(id);
    assert!(!Path::new(&format!("/tmp/anteroom-{id}")).exists(), "{session}");
    let code = session["reason"]["code"].as_str().unwrap();
    let log = server.log();
    assert!(!log.contains("did not end within"), "its runner stalled: {log}");
    let credential = server.get(&format!("/api/auth/session/{id}/credentials"));
    assert_eq!(credential.status == 200, code == "completed", "{session}");
    code.to_owned()
}

/// An end that only memory has is said to be, and is not promised; the next controller gives it one.
#[test]
fn an_end_that_cannot_be_stored_is_not_given_as_one_that_is() {
    let mut server = Setup::fake_guest(SILENT).fault("store.save=return(error)").start();
    let id = server.started();
    let path = format!("/api/auth/session/{id}");
    let ended = server.torn_down(&id);
    assert_eq!(ended["reason"]["code"], "state_not_stored", "{ended}");
    assert_eq!(ended["endNotStored"], "fail point store.save", "{ended}");
    let message = ended["reason"]["message"].as_str().unwrap();
    assert_eq!(message, "the session's state could not be stored: fail point store.save");
    let refused = server.delete(&path);
    assert_eq!((refused.status, &refused.body["code"]), (503, &"storage_unavailable".into()));
    assert!(refused.body["detail"].as_str().unwrap().contains("is not stored yet"));
    server.kill_and_restart();
    let stopped = server.torn_down(&id);
    assert_eq!(stopped["reason"]["code"], "controller_stopped", "{stopped}");
    assert_eq!(stopped["endNotStored"], Value::Null, "{stopped}");
    assert_eq!(server.delete(&path).status, 204);
}

/// What was answered 204 outlives the controller.
#[test]
fn a_cancelled_session_stays_cancelled_when_its_controller_is_killed() {
    // Each state is stored a moment late.
    let mut server = Setup::fake_guest(SILENT).fault("store.save=sleep(300)").start();
    let id = server.started();
    assert_eq!(server.delete(&format!("/api/auth/session/{id}")).status, 204);
    server.kill_and_restart();
    let ended = server.torn_down(&id);
    assert_eq!(ended["reason"]["code"], "cancelled", "{ended}");
}

/// The agent is stopped while its credential is stored, so that it cannot do what it is asked for.
#[test]
fn a_guest_that_does_not_power_off_is_not_said_to() {
    let slow = "capture.acknowledged=sleep(1500)";
    let server = Setup::host().fault(slow).start_with_cli(SIGNS_IN_AND_ENDS, 600);
    let id = server.started();
    let (_, sandbox) = runner_and_sandbox(&server, &id);
    let kinds = |session: &Value| session["timeline"].to_string();
    server
        .session_when(&id, "its credential is stored", |s| kinds(s).contains("credential_stored"));
    signal("-STOP", sandbox);
    let ended = server.torn_down(&id);
    assert_eq!(ended["reason"]["code"], "completed", "{ended}");
    let kinds = kinds(&ended);
    assert!(kinds.contains("guest_not_powered_off"), "{kinds}");
    assert!(!kinds.contains("guest_powered_off"), "{kinds}");

    let server = Setup::host().start_with_cli(SIGNS_IN_AND_ENDS, 600);
    let ended = server.torn_down(&server.started());
    assert!(ended["timeline"].to_string().contains("guest_powered_off"), "{ended}");
}

#[test]
fn a_virtual_machine_that_cannot_be_made_is_reported() {
    for action in ["error", "kill"] {
        let mut server =
            Setup::machines().fault(&format!("qemu.initramfs=1*return({action})")).start();
        let said = if action == "kill" { "runner_died" } else { "sandbox_not_started" };
        assert_eq!(said_in_the_end(&mut server), said);
    }
}

/// No step of a session: with it a KVM that is emulated is taken, in `cargo xtask nested`.
const OF_KVM: &str = "kvm.least_speed";

/// A point that no test knows would be a promise that nobody keeps.
#[test]
fn every_fail_point_has_its_case() {
    let mut found = BTreeSet::new();
    points_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut found);
    let cases =
        CASES.iter().map(|case| case.point).chain(OF_MACHINES).chain([OF_KVM]).map(str::to_owned);
    assert_eq!(found, cases.collect());
    assert!(found.len() >= 20);
}

fn points_in(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && !["tests", "target", "fail-point"].contains(&name.as_str()) {
            points_in(&path, found);
        } else if name.ends_with(".rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for call in ["fail_point(\"", "step(\""] {
                let after = text.split(call).skip(1);
                found.extend(after.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }
}
