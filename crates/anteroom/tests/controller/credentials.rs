//! Who may hold a credential, and how it comes to who receives it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{SILENT, Server, Setup, anteroom, eventually};

/// A tool that signs nobody in: it asks for a code and has its credential then.
const TOOL: &str = r#"
id = "demo"
name = "Test tool"
kind = "demo"
image = "demo"

[[login]]
method = "paste_code"
command = ["sh", "-c", '''printf 'https://login.example.com/a\nPaste code: '; read code
mkdir -p ~/.tool/cache; echo '{"token":"canary"}' > ~/.tool/auth.json; printf '\0\377' > ~/.tool/db''']
instructions = "Open the page."
code_prompt = "Paste code:"

[terms]
page = "https://example.com/terms"
read = "2026-11-27"
custody = "recipient_only"

[egress]
allow = []

[credential]
[[credential.files]]
path = "~/.tool/auth.json"
required = ["/token"]

[[credential.files]]
path = "~/.tool/db"
format = "binary"
"#;

fn receive(server: &Server, folder: &Path, more: &[&str]) -> Command {
    let mut command = anteroom(folder);
    command.args(["credentials", "receive", "--json", "--url", &server.url]);
    command.env("ANTEROOM_API_KEY", &server.key).args(more);
    command.arg("--home").arg(folder.join("home")).stdout(Stdio::piped());
    command
}

/// The next line of JSON that a command prints.
fn line(output: &mut impl BufRead) -> Value {
    let mut text = String::new();
    output.read_line(&mut text).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text:?} is no JSON"))
}

fn submit_code(server: &Server, id: &str) {
    server.session_when(id, "the end user's turn", |session| session["awaiting"].is_object());
    let brought = server.post(&format!("/api/auth/session/{id}/code"), r#"{"code":"x"}"#);
    assert_eq!(brought.status, 202, "{}", brought.body);
}

fn interrupt(child: &Child) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
}

#[test]
fn who_receives_needs_one_command() {
    use std::os::unix::fs::PermissionsExt;
    let server = Setup::host().start_with_provider(TOOL);
    let folder = tempfile::tempdir().unwrap();
    let mut child = receive(&server, folder.path(), &["demo"]).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let started = line(&mut output);
    let id = started["sessionId"].as_str().unwrap();
    assert!(started["viewerUrl"].as_str().unwrap().starts_with("http"), "{started}");
    assert!(started["recipient"].as_str().unwrap().starts_with("age1"), "{started}");
    let identity = folder.path().join("data/anteroom/identity.txt");
    assert_eq!(std::fs::metadata(&identity).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(started["identity"], json!(identity));
    submit_code(&server, id);
    let reported = line(&mut output);
    assert!(child.wait().unwrap().success());
    assert_eq!(
        (&reported["session"], &reported["provider"]),
        (&started["sessionId"], &json!("demo"))
    );
    let home = folder.path().join("home");
    assert_eq!(
        std::fs::read_to_string(home.join(".tool/auth.json")).unwrap(),
        "{\"token\":\"canary\"}\n"
    );
    assert_eq!(std::fs::read(home.join(".tool/db")).unwrap(), [0, 255]);

    // What is there is not replaced unasked; the credential is still to be had.
    let again = ["--session", id];
    let refused = receive(&server, folder.path(), &again).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("--force"), "{said}");
    let forced = receive(&server, folder.path(), &[&again[..], &["--force"]].concat()).output();
    assert!(forced.unwrap().status.success());

    // And as files, from a machine that called the controller once, with nobody else's key.
    let sealed = server.sealed(id, folder.path());
    let open = |more: &[&str]| {
        let mut open = anteroom(folder.path());
        open.args(["credentials", "open", "--list"]).arg(&sealed).args(more).output().unwrap()
    };
    assert!(open(&[]).status.success(), "{:?}", open(&[]));
    let elsewhere = folder.path().join("elsewhere");
    let listed = open(&["--home", elsewhere.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(said.contains(&elsewhere.join(".tool/db").display().to_string()), "{listed:?}");
    assert!(!elsewhere.exists());
    let vault = server.state_dir().join("vault/identity.txt");
    let other = open(&["-i", vault.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&other.stderr).contains("it is sealed to age1"), "{other:?}");
    std::fs::remove_dir_all(folder.path().join("data/anteroom/controllers")).unwrap();
    let unknown = open(&[]);
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(said.contains("credentials key") && said.contains("--controller-key"), "{said}");
    let key = folder.path().join("controller.pem");
    std::fs::write(&key, server.bytes("/api/credentials/key")).unwrap();
    assert!(open(&["--controller-key", key.to_str().unwrap()]).status.success());
    std::fs::remove_file(folder.path().join("sealed.age.envelope.json")).unwrap();
    let missing = open(&["--controller-key", key.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(said.contains("anteroom credentials get"), "{said}");
}

#[test]
fn an_envelope_without_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let sealed = folder.path().join("sealed.age");
    std::fs::write(&sealed, "x").unwrap();
    let mut open = anteroom(folder.path());
    open.args(["credentials", "open", "--list"]).arg(&sealed).args(["--envelope", "/dev/zero"]);
    let output = open.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("reading /dev/zero failed: it is larger than 256 KiB"), "{said}");
}

#[test]
fn what_would_not_be_received_is_reported_before_somebody_signs_in() {
    let server = Setup::host().start_with_provider(TOOL);
    let folder = tempfile::tempdir().unwrap();
    let said = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let nowhere = folder.path().join("none/home");
    let mut receives = anteroom(folder.path());
    receives.args(["credentials", "receive", "demo", "--url", &server.url, "--home"]);
    let said_of_home = said(receives.arg(&nowhere).env("ANTEROOM_API_KEY", &server.key));
    assert!(said_of_home.contains("none/home failed"), "{said_of_home}");
    let sessions = || server.get("/api/sessions").body.as_array().unwrap().clone();
    assert_eq!(sessions(), [] as [Value; 0]);
    let home = folder.path().join("home");
    std::fs::create_dir_all(home.join(".tool")).unwrap();
    std::fs::write(home.join(".tool/db"), "old").unwrap();
    let taken = said(&mut receive(&server, folder.path(), &["demo"]));
    assert!(taken.contains(".tool/db already exists") && taken.contains("--force"), "{taken}");
    let ended = server.torn_down(sessions()[0]["sessionId"].as_str().unwrap());
    assert_eq!(ended["reason"]["code"], "cancelled", "{ended}");
    // A folder in a file's place shows only afterwards here; the command that is printed has all of it.
    std::fs::remove_dir_all(home.join(".tool")).unwrap();
    std::fs::write(home.join(".tool"), "").unwrap();
    let own = folder.path().join("a key.txt");
    let more = ["demo", "-i", own.to_str().unwrap()];
    let mut child = receive(&server, folder.path(), &more).stderr(Stdio::piped()).spawn().unwrap();
    let started = line(&mut BufReader::new(child.stdout.take().unwrap()));
    let id = started["sessionId"].as_str().unwrap();
    submit_code(&server, id);
    let said = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    let (own, home) = (own.display(), home.display());
    let again = format!("receive --session {id} -i '{own}' --home {home} --url {}", server.url);
    assert!(said.contains(&again), "{said}");
}

#[test]
fn who_receives_may_wait_for_a_sign_in_of_somebody_else_s() {
    let server = Setup::host().start_with_provider(TOOL);
    let folder = tempfile::tempdir().unwrap();
    let mut child = receive(&server, folder.path(), &[]).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let recipient = line(&mut output)["recipient"].clone();
    let body = json!({ "provider": "demo", "recipient": recipient }).to_string();
    let id = server.post("/api/auth/start", &body).body["sessionId"].clone();
    assert_eq!(line(&mut output)["sessionId"], id);
    submit_code(&server, id.as_str().unwrap());
    assert_eq!(line(&mut output)["session"], id);
    assert!(child.wait().unwrap().success());
    assert!(folder.path().join("home/.tool/auth.json").is_file());
}

#[test]
fn who_receives_and_gives_up_leaves_nothing() {
    let server = Server::with_fake_guest(SILENT);
    let folder = tempfile::tempdir().unwrap();
    for (more, cancelled) in [(&["demo"][..], true), (&[], false)] {
        let mut child = receive(&server, folder.path(), more);
        let mut child = child.stderr(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let first = line(&mut output);
        interrupt(&child);
        assert!(!child.wait_with_output().unwrap().status.success());
        if cancelled {
            let ended = server.torn_down(first["sessionId"].as_str().unwrap());
            assert_eq!(ended["reason"]["code"], "cancelled", "{ended}");
        }
    }
    assert!(!folder.path().join("home").exists());
}

#[test]
fn a_login_that_only_its_end_user_may_hold_never_goes_to_the_vault() {
    let start = |server: &Server, more: Value| {
        let mut body = json!({ "provider": "claude_code" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post("/api/auth/start", &body.to_string())
    };
    let server = Server::with_options(SILENT, &["--allow-weak-isolation"]);
    let refused = start(&server, json!({}));
    assert_eq!((refused.status, &refused.body["code"]), (422, &json!("custody_not_allowed")));
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(detail.contains("https://") && detail.contains("credentials receive"), "{detail}");
    // The vault's own key, named as if it were the end user's.
    let demo = server.start_session();
    let demo = server.get(&format!("/api/auth/session/{}", demo["sessionId"].as_str().unwrap()));
    let vault = &demo.body["credential"]["recipient"];
    for spelled in [vault.clone(), json!(vault.as_str().unwrap().to_uppercase())] {
        let refused = start(&server, json!({ "recipient": spelled }));
        assert_eq!(refused.status, 422, "{}", refused.body);
    }
    let own = start(&server, json!({ "recipient": anteroom_vault::nobody() }));
    let session =
        server.get(&format!("/api/auth/session/{}", own.body["sessionId"].as_str().unwrap()));
    let credential = &session.body["credential"];
    assert_eq!(credential["terms"]["custody"], "recipient_only", "{credential}");
    assert_eq!(
        (&credential["terms"]["overridden"], &credential["openableBy"]),
        (&json!(false), &json!("caller"))
    );
    assert!(demo.body["credential"]["terms"].is_null());
}

#[test]
fn the_operator_s_own_word_is_said_wherever_it_counts() {
    let options = ["--allow-weak-isolation", "--allow-vault-custody", "claude_code"];
    let server = Server::with_options(SILENT, &options);
    let id =
        server.post("/api/auth/start", r#"{"provider":"claude_code"}"#).body["sessionId"].clone();
    let session = server.get(&format!("/api/auth/session/{}", id.as_str().unwrap())).body;
    assert_eq!(session["credential"]["terms"]["overridden"], true, "{session}");
    let warned = [
        "credentials of Claude Code may be sealed to the vault",
        "start without --driver host",
        "start without --allow-weak-isolation",
    ];
    eventually("it is in the log", || {
        let log = server.log();
        warned.iter().all(|line| log.contains(line)).then_some(())
    });
    let folder = tempfile::tempdir().unwrap();
    let mut doctor = anteroom(folder.path());
    let reported = doctor.args(["doctor", "--state-dir"]).arg(server.state_dir()).output().unwrap();
    let reported = String::from_utf8_lossy(&reported.stdout).into_owned();
    assert!(reported.contains("--allow-vault-custody claude_code"), "{reported}");

    for odd in ["nobody", "demo"] {
        let mut serve = anteroom(folder.path());
        serve.args([
            "serve",
            "--driver",
            "host",
            "--agent",
            "/bin/true",
            "--listen",
            "127.0.0.1:0",
        ]);
        let refused = serve.args(["--allow-vault-custody", odd]).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("--allow-vault-custody"), "{said}");
    }
}

#[test]
fn an_envelope_reports_its_session_bytes_and_names() {
    let server = Setup::host().start_with_provider(TOOL);
    let before =
        server.get("/api/auth/session/01890000-0000-7000-8000-000000000000/credentials/envelope");
    assert_eq!(before.status, 404);
    let body = json!({ "provider": "demo", "recipient": anteroom_vault::nobody() }).to_string();
    let id = server.post("/api/auth/start", &body).body["sessionId"].as_str().unwrap().to_owned();
    let at = format!("/api/auth/session/{id}/credentials");
    assert_eq!(server.get(&format!("{at}/envelope")).status, 409);
    submit_code(&server, &id);
    server.torn_down(&id);
    let pem = String::from_utf8(server.bytes("/api/credentials/key")).unwrap();
    let key = anteroom_vault::PublicKey::from_pem(&pem).unwrap();
    let json = server.bytes(&format!("{at}/envelope"));
    let envelope = anteroom_vault::Envelope::verify(&json, &[key]).unwrap();
    let statement = envelope.statement();
    assert_eq!(statement.session.to_string(), id);
    assert_eq!(statement.sha256, anteroom_vault::Statement::digest(&server.bytes(&at)));
    assert!(envelope.declares_file(".tool/auth.json") && envelope.declares_file(".tool/db-wal"));
    let unauthorized = server.post_with("/api/credentials/key", "", &[]);
    assert_eq!(unauthorized.status, 405);
}
