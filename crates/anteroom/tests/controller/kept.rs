//! What tools keep their credentials in besides a text file of a known name, and credentials that work
//! only where they were made.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::keyring::desktop;
use crate::support::{Server, Setup, anteroom, eventually};

/// A provider of a tool that is this Python program.
fn provider(program: &str, credential: &str) -> String {
    let program = serde_json::to_string(program).unwrap();
    format!(
        r#"
id = "demo"
name = "Test tool"
kind = "demo"
image = "demo"

[[login]]
method = "browser"
command = ["/usr/bin/python3", "-c", {program}]
instructions = "Open the page."
url_timeout_seconds = 60

[egress]
allow = ["login.example.com"]

{credential}
"#
    )
}

/// Signs in; how the session ended.
pub fn signed_in(server: &Server) -> Value {
    server.torn_down(&server.started())
}

/// Opens a session's credential into a home.
pub fn opened(server: &Server, session: &Value, home: &Path) -> Output {
    let folder = home.parent().unwrap();
    let sealed = server.sealed(session["sessionId"].as_str().unwrap(), folder);
    let mut open = anteroom(folder);
    open.args(["credentials", "open"]).arg(&sealed).arg("--state-dir").arg(server.state_dir());
    open.arg("--home").arg(home).output().unwrap()
}

/// Opens its database when it starts and never closes it, so that what was written last is in the
/// write-ahead log alone; the token comes with the sign-in, and two values always change together.
const DATABASE: &str = r#"
import os, sqlite3, subprocess, time
os.makedirs(os.path.expanduser("~/.tool"))
db = sqlite3.connect(os.path.expanduser("~/.tool/state.db"), isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute("PRAGMA wal_autocheckpoint = 100")
db.execute("CREATE TABLE kept (name TEXT PRIMARY KEY, value TEXT)")
subprocess.run(["xdg-open", "https://login.example.com/authorize"], check=True)
time.sleep(6)
db.execute("INSERT INTO kept VALUES ('token', 'whole')")
n = 0
while True:
    n += 1
    time.sleep(0.001)
    db.execute("BEGIN")
    db.execute("REPLACE INTO kept VALUES ('one', ?)", (n,))
    db.execute("REPLACE INTO kept VALUES ('other', ?)", (n,))
    db.execute("COMMIT")
"#;

const LOOK: &str = r#"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
kept = dict(db.execute("SELECT name, value FROM kept"))
assert kept["one"] == kept["other"], kept
print(db.execute("PRAGMA integrity_check").fetchone()[0], kept["token"])
"#;

#[test]
fn a_database_is_taken_with_its_log_while_the_tool_writes() {
    let credential = r#"
[[credential.files]]
path = "~/.tool/state.db"
format = "binary"
max_bytes = 1048576
"#;
    let server = Setup::host().start_with_provider(&provider(DATABASE, credential));
    let ended = signed_in(&server);
    assert_eq!(ended["reason"]["code"], "completed", "{ended}");
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let output = opened(&server, &ended, &home);
    assert!(output.status.success(), "{output:?}");
    assert!(home.join(".tool/state.db-wal").metadata().unwrap().len() > 0);
    let mut python = Command::new("/usr/bin/python3");
    let looked = python.args(["-c", LOOK]).arg(home.join(".tool/state.db")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&looked.stdout), "ok whole\n", "{looked:?}");
}

/// Keeps its database open from its start on, prints its address, and signs in when a while is over.
const ASKED: &str = r#"
import os, sqlite3, time
os.makedirs(os.path.expanduser("~/.tool"))
db = sqlite3.connect(os.path.expanduser("~/.tool/state.db"), isolation_level=None)
db.execute("CREATE TABLE kept (name TEXT, value TEXT)")
print("Open https://login.example.com/authorize", flush=True)
time.sleep(8)
db.execute("INSERT INTO kept VALUES ('token', 'late')")
time.sleep(1000)
"#;

const SAYS: &str = "import os, sqlite3; db = sqlite3.connect(os.path.expanduser('~/.tool/state.db')); \
                    print('Signed in:', [row[0] for row in db.execute('SELECT value FROM kept')])";

#[test]
fn of_a_database_the_tool_s_word_decides_when_it_is_a_sign_in() {
    let credential = format!(
        r#"
[[credential.files]]
path = "~/.tool/state.db"
format = "binary"

[credential.status]
command = ["/usr/bin/python3", "-c", "{SAYS}"]
signed_in = "Signed in: \\['late'\\]"
"#
    );
    let text = provider(ASKED, &credential)
        .replace("url_timeout_seconds", "url_from = \"terminal\"\nurl_timeout_seconds");
    let server = Setup::host().start_with_provider(&text);
    let ended = signed_in(&server);
    assert_eq!(ended["reason"]["code"], "completed", "{ended}");
    let found = ended["timeline"].as_array().unwrap().iter();
    assert_eq!(found.filter(|entry| entry["kind"] == "credential_found").count(), 1, "{ended}");
}

#[test]
fn a_database_s_tool_that_only_prints_its_address_is_signed_in_when_it_writes_again() {
    let credential = "[[credential.files]]\npath = '~/.tool/state.db'\nformat = 'binary'\n";
    let text = provider(ASKED, credential)
        .replace("url_timeout_seconds", "url_from = \"terminal\"\nurl_timeout_seconds");
    let server = Setup::host().start_with_provider(&text);
    let ended = signed_in(&server);
    assert_eq!(ended["reason"]["code"], "completed", "{ended}");
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let output = opened(&server, &ended, &home);
    assert!(output.status.success(), "{output:?}");
    let database = std::fs::read(home.join(".tool/state.db")).unwrap();
    assert!(database.windows(4).any(|bytes| bytes == b"late"), "sealed before the sign-in");
}

/// Writes a file whose name nobody knows before, with a byte order mark.
const MARKED: &str = r#"
import os, secrets, subprocess
os.makedirs(os.path.expanduser("~/.tool"))
subprocess.run(["xdg-open", "https://login.example.com/authorize"], check=True)
with open(os.path.expanduser(f"~/.tool/token-{secrets.token_hex(8)}.json"), "wb") as file:
    file.write(b"\xef\xbb\xbf" + b'{"token": "marked"}')
"#;

#[test]
fn a_file_of_an_unknown_name_with_a_byte_order_mark_is_taken_as_it_is() {
    let credential = "[[credential.files]]\npath = '~/.tool/token-*.json'\nrequired = ['/token']\n";
    let server = Setup::host().start_with_provider(&provider(MARKED, credential));
    let ended = signed_in(&server);
    assert_eq!(ended["reason"]["code"], "completed", "{ended}");
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let output = opened(&server, &ended, &home);
    assert!(output.status.success(), "{output:?}");
    let mut files = std::fs::read_dir(home.join(".tool")).unwrap();
    let bytes = std::fs::read(files.next().unwrap().unwrap().path()).unwrap();
    assert_eq!(bytes, b"\xef\xbb\xbf{\"token\": \"marked\"}");
}

/// A tool whose token works only with `MINE` as it was; it says what it finds in its place.
fn bound(mine: &str) -> String {
    let tool = format!(
        r#"
import getpass, grp, json, os, pwd, socket, subprocess, sys
def kept_in(folder):
    path = folder + "/anteroom-test-{{}}".format(os.environ["ANTEROOM_SANDBOX"])
    if sys.argv[1:] != ["status"]:
        open(path, "w").close()
    return path
mine = {mine}
kept = os.path.expanduser("~/.tool.json")
if sys.argv[1:] == ["status"]:
    then = json.load(open(kept))["mine"]
    print("Signed in" if then == mine else f"made for {{then!r}}, and this is {{mine!r}}")
else:
    subprocess.run(["xdg-open", "https://login.example.com/authorize"], check=True)
    json.dump({{"token": "t", "mine": mine}}, open(kept, "w"))
"#
    );
    let command = serde_json::to_string(&tool).unwrap();
    let credential = format!(
        "[[credential.files]]\npath = '~/.tool.json'\nrequired = ['/token']\n[credential.status]\n\
         command = ['/usr/bin/python3', '-c', {command}, 'status']\nsigned_in = '^Signed in$'\n"
    );
    provider(&tool, &credential)
}

#[test]
fn a_credential_that_is_bound_to_its_machine_is_refused_while_the_end_user_is_there() {
    for mine in [
        "socket.gethostname()",
        "pwd.getpwuid(os.getuid()).pw_name",
        "getpass.getuser()",
        "os.getuid()",
        "open('/etc/machine-id').read()",
        "open('/proc/sys/kernel/random/boot_id').read()",
        "os.getgid()",
        "grp.getgrgid(os.getgid()).gr_name",
        "[open(f'/sys/class/net/{n}/address').read() for n in os.listdir('/sys/class/net') if n != 'lo']",
        "os.path.exists(kept_in('/dev/shm'))",
    ] {
        let server = Setup::host().start_with_provider(&bound(mine));
        let ended = signed_in(&server);
        let reason = &ended["reason"];
        assert_eq!(reason["code"], "credential_refused", "{mine}: {ended}");
        let message = reason["message"].as_str().unwrap();
        assert!(message.contains("signed in on the machine where it signed in"), "{message}");
        assert!(
            message.contains("not on another one") && message.contains("made for"),
            "{message}"
        );
    }
    let server = Setup::host().start_with_provider(&bound("'the same everywhere'"));
    let ended = signed_in(&server);
    assert_eq!(ended["reason"]["code"], "completed", "{ended}");
}

/// Keeps its token in the keyring by libsecret, and nowhere else; it is asked by libsecret too.
const SECRET: &str = r#"
import subprocess
subprocess.run(["xdg-open", "https://login.example.com/authorize"], check=True)
subprocess.run(
    ["secret-tool", "store", "--label=Acme", "service", "acme", "username", "ada"],
    input=b"canary-secret\nof two lines", check=True, timeout=60,
)
subprocess.run(["secret-tool", "store", "--label=Other", "service", "other"], input=b"x", check=True)
"#;

fn secret(attributes: &str) -> String {
    let credential = format!(
        "[[credential.keyring]]\nlabel = 'Acme'\nattributes = {attributes}\n[credential.status]\n\
         command = ['secret-tool', 'lookup', 'service', 'acme', 'username', 'ada']\n\
         signed_in = '^canary-secret$'\n"
    )
    .replace("^canary-secret$", "(?m)^of two lines$");
    provider(SECRET, &credential)
}

#[test]
fn a_secret_of_the_keyring_is_sealed_like_a_file_and_found_in_its_owner_s() {
    let buses = dead_buses();
    let text = secret("{ service = 'acme', username = '*' }");
    let server = Setup::host().start_with_provider(&text);
    let ended = signed_in(&server);
    assert_eq!(ended["reason"]["code"], "completed", "{ended}");
    let folder = tempfile::tempdir().unwrap();
    let sealed = server.sealed(ended["sessionId"].as_str().unwrap(), folder.path());
    let script = r#"age -d -i "$0" "$1" | tar -t && age -d -i "$0" "$1" | tar -xO"#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(server.state_dir().join("vault/identity.txt")).arg(&sealed);
    let said = String::from_utf8(shell.output().unwrap().stdout).unwrap();
    let (name, item) = said.split_once('\n').unwrap();
    assert_eq!(name, ".anteroom/keyring/0.json");
    let item: Value = serde_json::from_str(item).unwrap();
    let attributes = serde_json::json!({ "service": "acme", "username": "ada" });
    assert_eq!(item["attributes"], attributes);
    assert_eq!(item["secret_base64"], "Y2FuYXJ5LXNlY3JldApvZiB0d28gbGluZXM=");

    // On its owner's desktop the tool's own question finds it, and nothing else was put there.
    let ask = r#""$0" "$@" > opened.txt 2>&1 || { cat opened.txt; exit 1; }
secret-tool lookup service acme username ada; echo; secret-tool search service other"#;
    let mut open = desktop(folder.path(), ask);
    open.current_dir(folder.path()).arg(env!("CARGO_BIN_EXE_anteroom"));
    open.args(["credentials", "open"]).arg(&sealed).arg("--state-dir").arg(server.state_dir());
    let found = open.arg("--home").arg(folder.path().join("home")).output().unwrap();
    let found = (found.status.success(), String::from_utf8(found.stdout).unwrap());
    assert_eq!(found, (true, "canary-secret\nof two lines\n".to_owned()));

    // Others' buses end while this looks; what a bus of ours left would stay.
    eventually("no bus has left its socket in /tmp", || {
        dead_buses().is_subset(&buses).then_some(())
    });
}

/// Sockets of session buses in /tmp on which nobody listens any more.
fn dead_buses() -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir("/tmp").unwrap().flatten().map(|entry| entry.path());
    let is_bus = |path: &PathBuf| path.to_string_lossy().starts_with("/tmp/dbus-");
    let is_dead = |path: &PathBuf| {
        let refused = std::io::ErrorKind::ConnectionRefused;
        UnixStream::connect(path).is_err_and(|error| error.kind() == refused)
    };
    entries.filter(is_bus).filter(is_dead).collect()
}

#[test]
fn a_secret_with_more_attributes_than_declared_is_refused_by_their_name() {
    let server = Setup::host().start_with_provider(&secret("{ service = 'acme' }"));
    let ended = signed_in(&server);
    assert_eq!(ended["reason"]["code"], "credential_refused", "{ended}");
    let message = ended["reason"]["message"].as_str().unwrap();
    assert!(message.contains("attribute username") && message.contains("[[credential.keyring]]"));
}

#[test]
fn a_tool_that_finds_no_keyring_gets_advice() {
    let tool = "raise RuntimeError('keyring.errors.NoKeyringError: No recommended backend was available.')";
    let credential = "[[credential.files]]\npath = '~/.tool.json'\nrequired = ['/token']\n";
    let server = Setup::host().start_with_provider(&provider(tool, credential));
    let ended = signed_in(&server);
    assert_eq!(ended["reason"]["code"], "cli_exited", "{ended}");
    let timeline = ended["timeline"].as_array().unwrap();
    let reported =
        timeline.iter().find(|entry| entry["kind"] == "end_user_notified").expect("it is reported");
    assert!(reported["message"].as_str().unwrap().contains("[[credential.keyring]]"), "{reported}");
}
