//! Secrets of a credential in their owner's keyring: GNOME's, on a session bus of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use anteroom_guest_protocol::{KeyringItem, keyring_entry};
use anteroom_session::{OpenableBy, SessionId};
use anteroom_vault::{ControllerKey, Declared, Statement, create_identity};
use base64::Engine;

use crate::support::anteroom;

/// Unlocks the owner's keyring.
const UNLOCK: &str = r#"
printf password | gnome-keyring-daemon --unlock --components=secrets > "$HOME/daemon.log" 2>&1
"#;

/// Runs `$@` where the owner's keyring has another program's secret.
const BESIDE_ANOTHER: &str = r#"
printf other | secret-tool store --label=Other service acme username ada application other
"$0" "$@"
code=$?
echo "[$(secret-tool lookup service acme username bob)]"
secret-tool search --all service acme 2>&1
exit $code
"#;

fn attributes(username: &str) -> BTreeMap<String, String> {
    [("service", "acme"), ("username", username)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn tar_entry(archive: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o600);
    archive.append_data(&mut header, name, content).unwrap();
}

/// A credential with a file and secrets of these users, as a guest seals one.
fn seal(folder: &Path, users: &[(&str, &str)]) {
    let _ = std::fs::remove_file(folder.join("identity.txt"));
    let recipient = create_identity(&folder.join("identity.txt")).unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    tar_entry(&mut archive, ".tool/auth.json", b"{}");
    for (n, (user, secret)) in users.iter().enumerate() {
        let item = KeyringItem {
            attributes: attributes(user),
            secret_base64: base64::engine::general_purpose::STANDARD.encode(secret),
            content_type: "text/plain".into(),
        };
        tar_entry(&mut archive, &keyring_entry(n), &serde_json::to_vec(&item).unwrap());
    }
    let key: age::x25519::Recipient = recipient.parse().unwrap();
    let sealed = age::encrypt(&key, &archive.into_inner().unwrap()).unwrap();
    let statement = Statement {
        session: SessionId::generate(),
        provider: "demo".parse().unwrap(),
        sha256: Statement::digest(&sealed),
        recipient,
        openable_by: OpenableBy::Caller,
        declared: vec![
            Declared::File { path: ".tool/auth.json".into() },
            Declared::KeyringSecret { label: "Acme".into(), attributes: attributes("*") },
        ],
    };
    let key = ControllerKey::open(&folder.join("state/vault/controller.pem")).unwrap();
    std::fs::write(folder.join("c.age"), sealed).unwrap();
    std::fs::write(folder.join("c.age.envelope.json"), statement.sign(&key).unwrap()).unwrap();
}

/// The owner's desktop, whose keyring is unlocked and kept in the folder: a shell there, for further
/// arguments.
pub fn desktop(folder: &Path, script: &str) -> Command {
    let mut command = Command::new("dbus-run-session");
    command.args(["--", "sh", "-c", &format!("{UNLOCK}{script}")]);
    command.env("HOME", folder).env("XDG_RUNTIME_DIR", folder);
    command.env("XDG_DATA_HOME", folder.join("data"));
    command
}

/// `credentials open`, below a command.
fn open(folder: &Path, mut below: Command, more: &[&str]) -> Output {
    below.arg(env!("CARGO_BIN_EXE_anteroom")).args(["credentials", "open"]);
    below.arg(folder.join("c.age")).arg("-i").arg(folder.join("identity.txt"));
    below.arg("--state-dir").arg(folder.join("state")).args(more).output().unwrap()
}

fn on_a_desktop(folder: &Path, more: &[&str]) -> (bool, String) {
    let output = open(folder, desktop(folder, BESIDE_ANOTHER), more);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.success(), said)
}

fn private_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("home")).unwrap();
    folder
}

#[test]
fn a_secret_comes_into_its_owner_s_keyring_with_the_files() {
    let folder = private_folder();
    let home = folder.path().join("home");
    let into = ["--home", home.to_str().unwrap()];
    seal(folder.path(), &[("bob", "first")]);
    let (done, said) = on_a_desktop(folder.path(), &into);
    assert!(done && said.contains("keyring: Acme") && said.contains("[first]"), "{said}");
    assert!(home.join(".tool/auth.json").is_file());

    // What is there is replaced when it is asked for, with the files or not at all.
    std::fs::remove_file(home.join(".tool/auth.json")).unwrap();
    seal(folder.path(), &[("eve", "new"), ("bob", "second")]);
    let (done, said) = on_a_desktop(folder.path(), &into);
    assert!(!done && said.contains("already in the keyring; --force"), "{said}");
    assert!(said.contains("[first]") && !home.join(".tool/auth.json").exists(), "{said}");
    let (done, said) = on_a_desktop(folder.path(), &[&into[..], &["--force"]].concat());
    assert!(done && said.contains("[second]"), "{said}");
    assert!(home.join(".tool/auth.json").is_file());
}

#[test]
fn a_secret_of_another_program_is_left_alone() {
    let folder = private_folder();
    let home = folder.path().join("home");
    seal(folder.path(), &[("ada", "ours")]);
    let more = ["--force", "--home", home.to_str().unwrap()];
    let (done, said) = on_a_desktop(folder.path(), &more);
    assert!(done, "{said}");
    for line in ["label = Acme", "secret = ours", "label = Other", "secret = other"] {
        assert!(said.contains(line), "{said}");
    }
}

#[test]
fn files_that_cannot_be_put_take_the_secrets_back() {
    let folder = private_folder();
    // A link where the file's folder would be.
    std::os::unix::fs::symlink("/tmp", folder.path().join("home/.tool")).unwrap();
    seal(folder.path(), &[("bob", "first")]);
    let home = folder.path().join("home");
    let (done, said) = on_a_desktop(folder.path(), &["--home", home.to_str().unwrap()]);
    assert!(!done && said.contains("move it away first") && said.contains("[]"), "{said}");
}

#[test]
fn without_a_keyring_nothing_is_written_and_what_to_do_is_reported() {
    let folder = private_folder();
    let home = folder.path().join("home");
    seal(folder.path(), &[("bob", "first")]);
    let nowhere = "DBUS_SESSION_BUS_ADDRESS=unix:path=/nonexistent";
    let mut without = Command::new("env");
    without.arg(nowhere).env("HOME", folder.path());
    let refused = open(folder.path(), without, &["--home", home.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{said}");
    assert!(
        said.contains("Acme") && said.contains("no keyring (Secret Service) is running"),
        "{said}"
    );
    assert_eq!(std::fs::read_dir(&home).unwrap().count(), 0);
    let mut list = anteroom(folder.path());
    list.args(["credentials", "open", "--list", "--json"]).arg(folder.path().join("c.age"));
    list.arg("-i").arg(folder.path().join("identity.txt"));
    let listed = list.arg("--state-dir").arg(folder.path().join("state")).output().unwrap();
    let reported: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(reported["secrets"][0]["label"], "Acme", "{reported}");
    assert_eq!(reported["secrets"][0]["attributes"]["username"], "bob", "{reported}");
}
