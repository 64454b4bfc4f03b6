//! A provider file of one's own, along the way that docs/operate/providers.md goes.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::codes::{PASTE, PASTES, provider};
use crate::support::{SILENT, Setup, eventually};

const ANTEROOM: &str = env!("CARGO_BIN_EXE_anteroom");

/// The provider file of the documentation's half hour, without what its image needs.
fn of_the_docs() -> String {
    let page = include_str!("../../../../docs/operate/providers.md");
    let file = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let (head, rest) = file.split_once("[[install.npm]]").unwrap();
    let (_, rest) = rest.split_once("[[login]]").unwrap();
    format!("{head}[[login]]{rest}")
}

#[test]
fn a_real_provider_is_refused_with_what_is_too_weak_and_what_to_do() {
    let real = of_the_docs();
    assert!(real.contains("kind = \"real\""), "the documentation says which kind to write");
    let start = |setup: Setup, text: &str| {
        let server = setup.start_with_provider(text);
        let answer = server.post("/api/auth/start", r#"{"provider":"acme"}"#);
        let said = server.log().lines().any(|line| line.contains("sign-ins to acme"));
        assert_eq!(said, answer.status == 503, "it is said at the start: {}", server.log());
        (answer.status, answer.body["detail"].as_str().unwrap_or_default().to_owned())
    };
    let (status, on_host) = start(Setup::host(), &real);
    assert_eq!(status, 503);
    assert!(on_host.contains("the host driver") && on_host.contains("--driver host"), "{on_host}");
    assert!(on_host.contains("Acme CLI") && on_host.contains("kind = \"demo\""), "{on_host}");
    let emulated = Setup::machines().option("--accelerator=tcg");
    let (status, emulated) = start(emulated, &real.replace("kind =", "# kind ="));
    assert_eq!(status, 503);
    assert!(emulated.contains("emulated") && emulated.contains("doctor"), "{emulated}");
    for reported in [on_host, emulated] {
        assert!(reported.contains("--allow-weak-isolation"), "{reported}");
    }
    let mock_idp = real.replace("kind = \"real\"", "kind = \"demo\"");
    assert_eq!(start(Setup::host(), &mock_idp).0, 201);
    assert_eq!(start(Setup::host().option("--allow-weak-isolation"), &real).0, 201);
}

/// Runs a command of its own controller on this provider file, in sandboxes on this host.
fn command(arguments: &[&str], provider: &str) -> (bool, Value, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = folder.path().join("tool.toml");
    std::fs::write(&file, provider).unwrap();
    let output = Command::new(ANTEROOM)
        .args(arguments)
        .arg(&file)
        .args(["--driver", "host", "--json"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), serde_json::from_slice(&output.stdout).unwrap_or_default(), said)
}

#[test]
fn a_provider_file_is_tried_as_far_as_the_end_user_s_turn() {
    let (ok, reported, said) =
        command(&["provider", "test"], &provider("paste_code", PASTES, PASTE, ""));
    assert!(ok, "{said}");
    assert_eq!(reported[0]["url"], "https://login.example.com/authorize?client=1", "{reported}");
    let asks = "printf 'Theme?\\n'; exec sleep 1000";
    let short = provider("paste_code", asks, PASTE, "").replace("_seconds = 20", "_seconds = 2");
    let (ok, reported, said) = command(&["provider", "test"], &short);
    assert!(!ok && said.contains("1 of 1 method"), "{said}");
    assert_eq!(reported[0]["screen"], json!(["Theme?"]), "{reported}");
    // An address, but not one that url_pattern takes.
    let other = "printf 'Visit https://other.test/a?b=1\\n'; exec sleep 1000";
    let text =
        provider("paste_code", other, &format!("{PASTE}\nurl_pattern = 'https://login\\.'"), "");
    let (ok, reported, said) =
        command(&["provider", "test"], &text.replace("_seconds = 20", "_seconds = 2"));
    assert!(!ok, "{said}");
    let unmatched = reported[0]["unmatched"].as_str().unwrap();
    assert!(unmatched.contains("url_pattern") && unmatched.contains("other.test/a"), "{reported}");
    let ends =
        "echo '✘ [ERROR] No such account'; echo; echo 'Logs were written to /root/x.log'; exit 3";
    let (ok, reported, said) =
        command(&["provider", "test"], &provider("paste_code", ends, PASTE, ""));
    assert!(!ok, "{said}");
    let error = reported[0]["error"].as_str().unwrap();
    assert!(error.ends_with("it reported: ✘ [ERROR] No such account"), "{error}");
    assert_eq!(reported[0]["screen"][1], "Logs were written to /root/x.log", "{reported}");
    assert!(reported[0]["explanation"]["evidence"].is_array(), "{reported}");
}

#[test]
fn a_tool_that_ends_right_after_its_address_fails_and_its_notices_are_reported() {
    let ends = "echo 'Wrong code'; echo 'fatal: unable to access https://login.example.com/ : \
                SSL certificate problem'; sleep 1; exit 1";
    let (ok, reported, said) =
        command(&["provider", "test"], &provider("paste_code", ends, PASTE, ""));
    assert!(!ok && said.contains("1 of 1 method"), "{said} {reported}");
    let error = reported[0]["error"].as_str().unwrap();
    assert!(error.contains("SSL certificate problem"), "{reported}");
    let says = "The tool did not take the code; copy all of it.";
    assert_eq!(reported[0]["notified"], json!([says]), "{reported}");
}

#[test]
fn what_a_sign_in_asks_of_the_network_is_learnt() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let script = r#"printf 'https://login.example.com/a\nPaste code: '
for port in 443 8443; do
  python3 -c "import os, socket; p = os.environ['HTTPS_PROXY'].split('/')[2].split(':')
s = socket.create_connection((p[0], int(p[1])))
s.sendall(b'CONNECT api.example.com:$port HTTP/1.1\r\n\r\n'); s.recv(100)"
done; exit 3"#;
    let map = |port: u16| {
        format!("[[egress.map]]\nhost = 'api.example.com'\nport = {port}\nto = '{to}'\n")
    };
    let maps = format!("allow = []\n{}{}", map(443), map(8443));
    let text = provider("paste_code", script, PASTE, "").replace("allow = []", &maps);
    let (ok, reported, said) = command(&["egress", "learn"], &text);
    assert!(ok, "{said}");
    let hosts: Vec<&str> =
        reported["hosts"].as_array().unwrap().iter().map(|h| h["host"].as_str().unwrap()).collect();
    assert_eq!(hosts, ["api.example.com", "api.example.com:8443"], "{reported}");
    assert!(reported["end"].as_str().unwrap().contains("exited with code 3"), "{reported}");
}

#[test]
fn the_demo_without_its_issuer_says_what_runs_it() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let demo = include_str!("../../../../providers/demo.toml");
    let map = format!("[[egress.map]]\nhost = 'accounts.anteroom.test'\nto = '{nobody}'\n");
    // Where the session's user may enter.
    let tools = tempfile::tempdir().unwrap();
    let open = || std::fs::Permissions::from_mode(0o755);
    let tool = tools.path().join("demo-login");
    std::fs::write(&tool, include_bytes!("../../../../demo/cli/demo-login")).unwrap();
    for path in [tools.path(), &tool] {
        std::fs::set_permissions(path, open()).unwrap();
    }
    let path = format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap());
    let server = Setup::host().env("PATH", &path).start_with_provider(&format!("{demo}\n{map}"));
    let ended = server.torn_down(&server.started());
    assert_eq!(ended["reason"]["code"], "sign_in_refused", "{ended}");
    let message = ended["reason"]["message"].as_str().unwrap();
    assert!(message.contains("cargo xtask provider"), "{message}");
}

#[test]
fn odd_files_in_the_folder_stop_nothing_and_are_each_logged_once() {
    let demo = include_str!("../../../../providers/demo.toml");
    let server = Setup::fake_guest(SILENT).start_with_provider(demo);
    let folder = server.state_dir().with_file_name("providers");
    let made = Command::new("mkfifo").arg(folder.join("pipe.toml")).status().unwrap();
    assert!(made.success());
    std::os::unix::fs::symlink("/nowhere/at/all", folder.join("link.toml")).unwrap();
    std::fs::write(folder.join("long.toml"), "x".repeat(900_000)).unwrap();
    std::fs::write(folder.join("same.toml"), demo).unwrap();
    for _ in 0..3 {
        let refused = server.post("/api/auth/start", r#"{"provider":"missing"}"#);
        assert_eq!(refused.body["code"], "unknown_provider", "{}", refused.body);
    }
    let log = server.log();
    for name in ["pipe.toml", "link.toml", "long.toml", "same.toml and "] {
        assert_eq!(log.matches(name).count(), 1, "{name}: {log:.3000}");
    }
    let same = log.lines().find(|line| line.contains("have the same id, demo")).unwrap();
    assert!(same.contains("demo.toml") && same.contains("same.toml is left out"), "{same}");
    assert!(log.contains("pipe.toml failed: it is not a regular file"), "{log:.3000}");
    assert!(log.len() < 100_000, "the log quotes {} bytes", log.len());
}

#[test]
fn a_command_waits_for_no_pipe_and_reads_no_device_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.toml");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for odd in [pipe.to_str().unwrap(), "/dev/zero"] {
        let output = Command::new(ANTEROOM).args(["provider", "check", odd]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains("it is not a regular file"), "{said}");
    }
}

/// A command with a controller of its own, which goes with it also where a test fails.
struct Learning(Child);

impl Drop for Learning {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
            let _ = self.0.wait();
        }
    }
}

#[test]
fn the_command_that_learns_prints_one_that_brings_its_code() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = folder.path().join("tool.toml");
    std::fs::write(&file, provider("paste_code", PASTES, PASTE, "")).unwrap();
    let mut command = Command::new(ANTEROOM);
    command.args(["egress", "learn", "--driver", "host"]).arg(&file).stdout(Stdio::piped());
    let mut learning = Learning(command.spawn().unwrap());
    let mut page = learning.0.stdout.take().unwrap();
    let mut reported = String::new();
    let mut read = [0; 4096];
    while !reported.contains("auth code") || !reported.ends_with('\n') {
        let n = page.read(&mut read).unwrap();
        assert!(n > 0, "it ended: {reported}");
        reported.push_str(&String::from_utf8_lossy(&read[..n]));
    }
    let line = reported.lines().find_map(|line| line.strip_prefix("then")).unwrap().trim();
    let brings = line.replacen("anteroom", ANTEROOM, 1);
    let brought = Command::new("sh")
        .args(["-c", &brings])
        .env("ANTEROOM_CODE", "good1234#state")
        .output()
        .unwrap();
    assert!(brought.status.success(), "{line}: {brought:?}");
    let said = String::from_utf8_lossy(&brought.stdout).into_owned();
    assert!(said.contains("The code will be typed ") && said.contains("--state-dir"), "{said}");
    let ended = eventually("it ends", || learning.0.try_wait().unwrap());
    assert!(ended.success());
}

/// As the kernel does when memory is short: the command has no last word.
#[test]
fn a_controller_of_a_command_that_was_killed_ends_and_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = place.path().join("tool.toml");
    std::fs::write(&file, provider("paste_code", PASTES, PASTE, "")).unwrap();
    let mut command = Command::new(ANTEROOM);
    command.args(["egress", "learn", "--driver", "host"]).arg(&file).stdout(Stdio::piped());
    command.env("TMPDIR", place.path());
    let mut learning = Learning(command.spawn().unwrap());
    let mut read = [0; 4096];
    assert!(learning.0.stdout.take().unwrap().read(&mut read).unwrap() > 0, "it started");
    let folders = || {
        let entries = std::fs::read_dir(place.path()).unwrap();
        let entries = entries.map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_dir()).collect::<Vec<_>>()
    };
    assert_eq!(folders().len(), 1);
    let state = folders()[0].join("state");
    learning.0.kill().unwrap();
    learning.0.wait().unwrap();
    eventually("its folder is gone", || folders().is_empty().then_some(()));
    let state = state.display().to_string();
    let serves = |id: &str| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&state)
    };
    eventually("the controller is gone", || {
        let processes = std::fs::read_dir("/proc").unwrap();
        let ids = processes.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        (!ids.into_iter().any(|id| serves(&id))).then_some(())
    });
}
