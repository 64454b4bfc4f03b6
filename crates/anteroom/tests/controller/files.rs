//! Files with a secret in them: nobody else's hand is in them.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{SILENT, Server, eventually};

const ANTEROOM: &str = env!("CARGO_BIN_EXE_anteroom");

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Why `serve` does not start on this state folder.
fn refusal(folder: &Path, options: &[&str]) -> String {
    let agent = folder.join("agent");
    std::fs::write(&agent, SILENT).unwrap();
    let output = Command::new(ANTEROOM)
        .args(["serve", "--driver", "host", "--listen", "127.0.0.1:0", "--agent"])
        .arg(agent)
        .arg("--state-dir")
        .arg(folder.join("state"))
        .args(options)
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_file_that_somebody_prepared_gets_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let (ready, victim) = (folder.path().join("ready.json"), folder.path().join("victim"));
    let option = ready.display().to_string();
    std::fs::write(&victim, "whole").unwrap();
    for target in [victim.clone(), folder.path().join("nothing")] {
        symlink(&target, &ready).unwrap();
        let said = refusal(folder.path(), &["--ready-file", &option]);
        assert!(said.contains("a link already exists"), "{said}");
        std::fs::remove_file(&ready).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "whole");
    assert!(!folder.path().join("nothing").exists());
    // What was written beside it before it took its name, under the name that could be foretold.
    symlink(&victim, folder.path().join("ready.new")).unwrap();
    symlink(&victim, folder.path().join("state/cli.new")).unwrap();
    let mut child = Command::new(ANTEROOM)
        .args(["serve", "--driver", "host", "--listen", "127.0.0.1:0", "--agent", "/bin/true"])
        .arg("--state-dir")
        .arg(folder.path().join("state"))
        .args(["--ready-file", &option])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("it is ready", || ready.exists().then_some(()));
    let file = std::fs::symlink_metadata(&ready).unwrap();
    assert!(file.is_file() && file.mode() & 0o777 == 0o600 && file.nlink() == 1);
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "whole");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_state_that_others_can_change_is_refused_with_the_command_that_mends_it() {
    let server = Server::with_fake_guest(SILENT);
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-a").arg(server.state_dir()).arg(folder.path()).status();
    assert!(copied.unwrap().success());
    drop(server);
    let state = folder.path().canonicalize().unwrap().join("state");
    for (name, open, closed) in [
        ("", 0o777, 0o700),
        ("", 0o1777, 0o700),
        ("", 0o770, 0o700),
        ("anteroom.db", 0o644, 0o600),
        ("cli.json", 0o666, 0o600),
        ("vault", 0o711, 0o700),
        ("vault/identity.txt", 0o440, 0o400),
        ("logs", 0o755, 0o700),
    ] {
        let path = if name.is_empty() { state.clone() } else { state.join(name) };
        if name == "logs" && !path.exists() {
            std::fs::create_dir(&path).unwrap();
        }
        mode(&path, open);
        let said = refusal(folder.path(), &[]);
        let command = said.split('`').nth(1).unwrap_or_else(|| panic!("{name}: {said}")).to_owned();
        assert!(command.starts_with("chmod "), "{said}");
        // The command is true: with it, this is mended.
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o077, 0, "{command}");
        mode(&path, closed);
    }
    if nix::unistd::geteuid().is_root() {
        for name in ["anteroom.db", "vault", "."] {
            let path = state.join(name);
            std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
            let said = refusal(folder.path(), &[]);
            assert!(said.contains("`chown 0 "), "{said}");
            std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        }
    }
    std::fs::hard_link(state.join("cli.json"), state.join("other")).unwrap();
    assert!(refusal(folder.path(), &[]).contains("a hard link"));
    std::fs::remove_file(state.join("other")).unwrap();
    // So is what is run from a cache that others can write to.
    let cache = folder.path().join("cache/anteroom");
    std::fs::create_dir_all(&cache).unwrap();
    mode(&cache, 0o777);
    let said = refusal(folder.path(), &[]);
    assert!(said.contains("cache/anteroom") && said.contains("chmod 0755"), "{said}");
}

#[test]
fn an_output_is_its_owner_s_alone_and_no_link_is_followed() {
    let server = Server::with_fake_guest(SILENT);
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    let add = |name: &str| {
        Command::new(ANTEROOM)
            .args(["keys", "add", name, "--output"])
            .arg(&key)
            .arg("--state-dir")
            .arg(server.state_dir())
            .output()
            .unwrap()
    };
    let done = add("one");
    assert!(done.status.success() && !String::from_utf8_lossy(&done.stdout).contains("ak_"));
    assert_eq!(std::fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
    std::fs::remove_file(&key).unwrap();
    symlink(folder.path().join("elsewhere"), &key).unwrap();
    let refused = add("two");
    assert!(!refused.status.success() && !folder.path().join("elsewhere").exists());
}
