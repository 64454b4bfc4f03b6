//! What goes wrong with the machine itself: disk, open files, programs, images, clock, sleep.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anteroom_testkit::SteppedClock;
use serde_json::Value;

use crate::ends::runner_and_sandbox;
use crate::support::{Fill, SIGNS_IN, SILENT, Server, Setup, eventually, own_mounts, processes_of};

const ANTEROOM: &str = env!("CARGO_BIN_EXE_anteroom");

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_disk_that_is_full_when_the_credential_comes_loses_it_honestly() {
    let waits = format!("while [ ! -e ~/.go ]; do sleep 0.1; done; {SIGNS_IN}");
    let server = Setup::host().disk(256).start_with_cli(&waits, 600);
    let id = server.started();
    server.session_when(&id, "the sandbox is furnished", |session| {
        session["timeline"]
            .as_array()
            .unwrap()
            .iter()
            .any(|e| e["message"] == "the X server is ready")
    });
    let full = Fill::up(&server);
    std::fs::write(format!("/tmp/anteroom-{id}/home/.go"), "").unwrap();
    let ended = server.torn_down(&id);
    let code = ended["reason"]["code"].as_str().unwrap();
    assert!(["credential_not_stored", "state_not_stored"].contains(&code), "{ended}");
    assert!(ended["reason"]["message"].as_str().unwrap().contains("full"), "{ended}");
    let credential = server.get(&format!("/api/auth/session/{id}/credentials"));
    assert_ne!(credential.status, 200, "{}", credential.body);
    drop(full);
    eventually("it is healthy again", || (server.get("/health").status == 200).then_some(()));
    assert_eq!(server.get(&format!("/api/auth/session/{id}")).body["reason"]["code"], code);
}

#[test]
fn a_disk_that_is_too_small_for_an_image_is_reported_before_it_is_built() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/../../images/demo.toml");
    let script = r#"mount -t tmpfs -o mode=0755,size=16m none "$1" && "$2" image build "$3" --images-dir "$1" ;
        code=$?; find "$1" -mindepth 1 -not -name '*.log' -not -name '*.lock' -not -type d; exit $code"#;
    let output = own_mounts()
        .args(["sh", "-c", script, "sh"])
        .arg(folder.path())
        .args([ANTEROOM, recipe])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(said(&output).contains("needs 2048 MiB of disk space"), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}

#[test]
fn a_state_folder_that_cannot_be_written_is_reported_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("state")).unwrap();
    // Root may write where nobody may; not where the disk says no.
    let script = r#"mount -t tmpfs -o mode=0700 none "$1" && mount -o remount,ro "$1" && shift && exec "$@""#;
    let output = own_mounts()
        .args(["sh", "-c", script, "sh"])
        .arg(folder.path().join("state"))
        .args([ANTEROOM, "serve", "--driver", "host", "--listen", "127.0.0.1:0", "--state-dir"])
        .arg(folder.path().join("state"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = said(&output);
    assert!(said.contains("state") && said.contains("Read-only file system"), "{said}");
}

#[test]
fn too_few_open_files_refuse_sessions_and_stop_no_controller() {
    let server = Setup::fake_guest(SILENT).open_files(48).start();
    let (mut begun, mut refused) = (Vec::new(), None);
    for _ in 0..30 {
        let answer = server.try_post("/api/auth/start", r#"{"provider":"demo"}"#);
        match answer {
            Some(answer) if answer.status == 201 => {
                begun.push(answer.body["sessionId"].as_str().unwrap().to_owned());
            }
            Some(answer) => refused = Some(answer),
            None => {}
        }
    }
    let ended = begun.iter().map(|id| {
        server.session_when(id, "it runs or ended", |session| session["state"] != "requested")
    });
    let ended: Vec<Value> = ended.filter(|session| session["state"] == "ended").collect();
    let why = ended.iter().map(|session| session["reason"]["message"].to_string());
    let why = why.chain(refused.map(|answer| answer.body.to_string())).collect::<Vec<_>>();
    assert!(why.iter().any(|why| why.contains("Too many open files")), "{why:?}");
    for id in &begun {
        server.delete(&format!("/api/auth/session/{id}"));
        server.torn_down(id);
    }
    let id = server.started();
    runner_and_sandbox(&server, &id);
}

/// A folder with this program in it as QEMU, alone or before the usual ones.
fn with_qemu(script: &str, alone: bool) -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    if !script.is_empty() {
        let path = folder.path().join("qemu-system-x86_64");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let usual = std::env::var("PATH").unwrap();
    let path = folder.path().display().to_string();
    let path = if alone { path } else { format!("{path}:{usual}") };
    let server = Setup::machines().option("--accelerator").option("tcg").env("PATH", &path).start();
    (folder, server)
}

#[test]
fn a_missing_qemu_is_reported_with_what_to_do() {
    let (_folder, server) = with_qemu("", true);
    let health = server.get("/health");
    assert_eq!(health.status, 503, "{}", health.body);
    let ended = server.torn_down(&server.started());
    assert_eq!(ended["reason"]["code"], "sandbox_not_started", "{ended}");
    let message = ended["reason"]["message"].as_str().unwrap();
    assert!(message.contains("apt-get install qemu-system-x86"), "{ended}");
}

#[test]
fn a_qemu_that_refuses_or_dies_is_quoted_in_the_report() {
    let complaints = [
        // What an older one says.
        "#!/bin/sh\necho 'qemu-system-x86_64: -machine microvm: unsupported machine type' >&2\nexit 1\n",
        "#!/bin/sh\necho 'error while loading shared libraries: libslirp.so.0' >&2\nexit 127\n",
    ];
    for script in complaints {
        let (_folder, server) = with_qemu(script, false);
        let ended = server.torn_down(&server.started());
        assert_eq!(ended["reason"]["code"], "sandbox_exited", "{ended}");
        let complaint = script.split('\'').nth(1).unwrap();
        assert!(ended["reason"]["message"].as_str().unwrap().contains(complaint), "{ended}");
    }
}

#[test]
fn an_image_that_changes_or_goes_while_it_is_used_stops_only_who_comes_later() {
    let real = demo_image(&[]).ancestors().nth(1).unwrap().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-rL").arg(&real).arg(folder.path()).status().unwrap();
    assert!(copied.success(), "the demo's image is there");
    let images = folder.path().display().to_string();
    let image = demo_image(&["--images-dir", &images]);
    let server = Setup::machines().option("--images-dir").option(&images).start();
    let id = server.started();
    server.session_when(&id, "the machine runs", |session| {
        session["timeline"].as_array().unwrap().iter().any(|e| e["kind"] == "sandbox_started")
    });
    // What takes a file's place is not booted, also when the one before it was checked, and is open.
    let kernel = image.join("vmlinux");
    let mut changed = std::fs::read(&kernel).unwrap();
    *changed.last_mut().unwrap() ^= 1;
    std::fs::write(image.join("other"), changed).unwrap();
    std::fs::rename(image.join("other"), &kernel).unwrap();
    let refused = server.started();
    let ended = server.torn_down(&refused);
    assert_eq!(ended["reason"]["code"], "image_refused", "{ended}");
    assert!(
        ended["reason"]["message"].as_str().unwrap().contains("vmlinux was changed"),
        "{ended}"
    );

    std::fs::remove_dir_all(folder.path().join("demo")).unwrap();
    let refused = server.post("/api/auth/start", r#"{"provider":"demo"}"#);
    assert_eq!(refused.body["code"], "no_image", "{}", refused.body);
    server.session_when(&id, "the agent answers", |session| {
        assert_eq!(session["reason"], Value::Null, "{session}");
        session["timeline"].as_array().unwrap().iter().any(|e| e["kind"] == "service_ready")
    });
}

/// The folder of the image that the demo's sessions boot.
fn demo_image(options: &[&str]) -> PathBuf {
    let mut list = Command::new(ANTEROOM);
    let list = list.args(["image", "list", "--json"]).args(options).output().unwrap();
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    let is_it = |image: &&Value| image["name"] == "demo" && image["isDefault"] == true;
    let image = list.as_array().unwrap().iter().find(is_it).expect("the demo's image is there");
    PathBuf::from(image["dir"].as_str().unwrap())
}

#[test]
fn a_clock_that_is_stepped_by_a_day_ends_nothing_and_keeps_nothing_alive() {
    let folder = tempfile::tempdir().unwrap();
    let clock = SteppedClock::right(folder.path()).unwrap();
    for day in [86_400_i64, -86_400] {
        clock.step_to(0).unwrap();
        let setup =
            clock.environment().iter().fold(Setup::fake_guest(SILENT), |setup, (name, value)| {
                setup.env(name, value.to_str().unwrap())
            });
        let server = setup.start();
        let body = r#"{"provider":"demo","ttlSeconds":6}"#;
        let id =
            server.post("/api/auth/start", body).body["sessionId"].as_str().unwrap().to_owned();
        runner_and_sandbox(&server, &id);
        clock.step_to(day).unwrap();
        let session = server.get(&format!("/api/auth/session/{id}")).body;
        assert_eq!(session["state"], "booting", "{session}");
        let ended = server.torn_down(&id);
        assert_eq!(ended["reason"]["code"], "timed_out", "{ended}");
        let lived = |name: &str| ended[name].as_u64().unwrap();
        let at = ended["timeline"].as_array().unwrap().iter().find(|e| e["kind"] == "ended");
        let lived_ms = at.unwrap()["at"].as_u64().unwrap() - lived("createdAt");
        assert!((5000..60_000).contains(&lived_ms), "{ended}");
    }
}

#[test]
fn a_host_that_sleeps_for_a_while_wakes_to_the_same_session() {
    let server = Server::with_patient_cli("xdg-open http://127.0.0.1:9/; exec sleep 1000");
    let id = server.started();
    server.session_when(&id, "it is the end user's turn and all is ready", |session| {
        let timeline = session["timeline"].as_array().unwrap();
        session["state"] == "awaiting_user"
            && timeline.iter().any(|entry| entry["message"] == "the browser is ready")
    });
    // A browser's processes come and go.
    let all = |name: &str| {
        for pid in processes_of(&id).into_iter().chain([server.pid()]) {
            let _ =
                Command::new("kill").args([name, &pid.to_string()]).stderr(Stdio::null()).status();
        }
    };
    // Stopped processes, but clocks that go on: more than a sleeping machine asks for.
    all("-STOP");
    std::thread::sleep(std::time::Duration::from_secs(60));
    all("-CONT");
    // Whoever would give up for the silence had to do so by now.
    for _ in 0..20 {
        let session = server.get(&format!("/api/auth/session/{id}")).body;
        assert_eq!(session["state"], "awaiting_user", "{session}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    server.delete(&format!("/api/auth/session/{id}"));
    assert_eq!(server.torn_down(&id)["reason"]["code"], "cancelled");
}
