//! The ways in which programs open an address: all of them end at the sandbox's opener.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Server, Setup, eventually_within};

const WAYS: &str = include_str!("opener_ways.py");

const PROVIDER: &str = r#"
id = "demo"
name = "Every way to open an address"
kind = "demo"
image = "demo"

[[login]]
method = "browser"
command = ["sh", "-c", "exec python3 -I ~/ways.py MODULES"]
instructions = "Look."
url_pattern = 'https://none\.example/'
url_timeout_seconds = 600

[credential]
[[credential.files]]
path = "~/.none.json"
required = ["/token"]

[egress]
allow = []
"#;

/// Has a sandbox try all ways; what each said, and which addresses came.
pub fn tried(setup: Setup, modules: &str) -> (BTreeMap<String, String>, BTreeSet<String>) {
    let server = setup.start_with_provider(&PROVIDER.replace("MODULES", modules));
    let body = json!({ "provider": "demo", "files": [{ "path": "~/ways.py", "content": WAYS }] });
    let started = server.post("/api/auth/start", &body.to_string());
    assert_eq!(started.status, 201, "{}", started.body);
    let id = started.body["sessionId"].as_str().unwrap();
    let said = |server: &Server| -> BTreeMap<String, String> {
        let logs = server.get(&format!("/api/auth/session/{id}/logs")).body;
        let logs = logs.as_str().unwrap_or_default();
        let lines = logs.lines().filter_map(|line| line.split_once(" way ")?.1.split_once(": "));
        lines.map(|(way, said)| (way.to_owned(), said.to_owned())).collect()
    };
    let said = eventually_within(Duration::from_secs(500), "all ways were tried", || {
        let session = server.get(&format!("/api/auth/session/{id}")).body;
        assert_eq!(session["reason"], Value::Null, "{session}");
        Some(said(&server)).filter(|said| said.contains_key("end"))
    });
    let session = server.get(&format!("/api/auth/session/{id}")).body;
    let ignored = session["timeline"].as_array().unwrap().iter().filter_map(|entry| {
        let message = entry["message"].as_str().filter(|_| entry["kind"] == "address_ignored")?;
        Some(message.split_once("https://")?.1.split_once(".test/")?.0.to_owned())
    });
    (said, ignored.collect())
}

fn succeeded(said: &str) -> bool {
    said.split(' ').next() == Some("0")
}

/// Fails unless each way that could be tried succeeded, and its address came.
pub fn all_came(said: &BTreeMap<String, String>, came: &BTreeSet<String>) {
    let tried = said.iter().filter(|(way, said)| {
        !way.starts_with("none") && *way != "end" && *said != "not installed"
    });
    let missing: Vec<_> =
        tried.filter(|(way, said)| !came.contains(*way) || !succeeded(said)).collect();
    assert!(missing.is_empty(), "{missing:#?} of {came:?}");
}

#[test]
fn every_way_to_open_an_address_ends_at_the_sandbox_s() {
    let modules = concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/node_modules");
    let (said, came) = tried(Setup::host(), modules);
    all_came(&said, &came);
    assert!(came.len() >= 40, "{came:?} of {said:#?}");
}
