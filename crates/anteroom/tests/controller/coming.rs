//! Tools that are started when the end user comes.

use serde_json::{Value, json};

use crate::codes::{bring, kinds, turn};
use crate::support::{Server, Setup};
use crate::viewers::{Visitor, new_link, started};

/// Gives up by itself when nobody brings a code, as real ones do after some minutes.
const IMPATIENT: &str = r#"echo 'The tool runs.'; echo 'Open https://login.example.com/a'
read -t 8 -p 'Paste code: ' code || { echo; echo 'Error: gave up waiting for the code'; exit 1; }
mkdir -p ~/.tool; umask 077; echo '{"token":"a"}' > ~/.tool/auth.json"#;

fn provider(id: &str, start: &str) -> String {
    let script = serde_json::to_string(IMPATIENT).unwrap();
    format!(
        r#"
id = "{id}"
name = "Impatient tool"
kind = "demo"
image = "demo"

[[login]]
method = "paste_code"
command = ["bash", "-c", {script}]
instructions = "Open the page."
code_prompt = 'Paste code:'
gives_up_after_seconds = 8
start = "{start}"

[egress]
allow = []

[credential]
[[credential.files]]
path = "~/.tool/auth.json"
required = ["/token"]
"#
    )
}

fn patient() -> Server {
    Setup::host().start_with_provider(&provider("demo", "when_the_end_user_comes"))
}

/// How often the tool was started.
fn starts(server: &Server, id: &str) -> usize {
    let logs = server.get(&format!("/api/auth/session/{id}/logs")).body;
    logs.as_str().unwrap().matches("The tool runs.").count()
}

fn ready(server: &Server, id: &str) -> Value {
    server.session_when(id, "the sandbox is ready", |session| {
        assert_eq!(session["reason"], Value::Null, "{session}");
        session["state"] == "ready"
    })
}

fn start_tool(server: &Server, id: &str) -> (u16, Value) {
    let answer = server.post(&format!("/api/auth/session/{id}/start-tool"), "");
    (answer.status, answer.body["code"].clone())
}

#[test]
fn a_tool_that_gives_up_waits_for_who_comes_late_and_is_started_once() {
    let server = patient();
    let eager = server.state_dir().with_file_name("providers").join("eager.toml");
    std::fs::write(eager, provider("eager", "at_once")).unwrap();
    let (id, link) = started(&server);
    let waits = ready(&server, &id);
    assert_eq!(waits["awaiting"], Value::Null, "{waits}");
    let granted = waits["deadline"].as_u64().unwrap() - waits["createdAt"].as_u64().unwrap();
    assert_eq!(granted, 900_000, "its time is the session's");
    assert_eq!(bring(&server, &id, "early"), (409, json!("wrong_state")));

    // Beside it the same tool is started at once, and gives up before anybody comes.
    let begun = server.post("/api/auth/start", r#"{"provider":"eager"}"#);
    let other = begun.body["sessionId"].as_str().unwrap();
    let gave_up = server.torn_down(other);
    assert_eq!(gave_up["reason"]["code"], "cli_exited", "{gave_up}");
    assert!(gave_up["reason"]["message"].as_str().unwrap().contains("gave up"), "{gave_up}");
    assert_eq!((starts(&server, other), starts(&server, &id)), (1, 0));
    assert_eq!(server.get(&format!("/api/auth/session/{id}")).body["state"], "ready");

    // They come, look at the terminal, come by another device, and their caller says so twice.
    let end_user = Visitor::by(&server, &id, &link);
    let _terminal = end_user.terminal().unwrap();
    let _second = Visitor::by(&server, &id, &new_link(&server, &id));
    for _ in 0..2 {
        assert_eq!(start_tool(&server, &id).0, 202);
    }
    let awaiting = turn(&server, &id);
    assert_eq!(awaiting["url"], "https://login.example.com/a");
    assert!(awaiting["deadline"].as_u64() < waits["deadline"].as_u64(), "now it is the tool's");
    assert_eq!(bring(&server, &id, "some-code").0, 202);
    let ended = server.torn_down(&id);
    assert_eq!(ended["reason"]["code"], "completed", "{ended}");
    assert_eq!(starts(&server, &id), 1);
    let reported = kinds(&ended);
    let at = |kind: &str| reported.iter().position(|one| *one == kind);
    let on_the_way = ["sandbox_ready", "link_opened", "end_user_came", "sign_in_url"].map(at);
    assert!(on_the_way.is_sorted() && on_the_way[0].is_some(), "{reported:?}");
    assert_eq!(reported.iter().filter(|kind| **kind == "end_user_came").count(), 1, "{reported:?}");
    assert_eq!(start_tool(&server, &id), (409, json!("wrong_state")));
}

#[test]
fn who_comes_before_the_sandbox_is_there_is_not_waited_for() {
    let server = patient();
    let (id, link) = started(&server);
    let _end_user = Visitor::by(&server, &id, &link);
    turn(&server, &id);
    assert_eq!(bring(&server, &id, "some-code").0, 202);
    let ended = server.torn_down(&id);
    assert_eq!(ended["reason"]["code"], "completed", "{ended}");
    let reported = kinds(&ended);
    assert!(
        reported.contains(&"end_user_came") && !reported.contains(&"sandbox_ready"),
        "{reported:?}"
    );
    assert_eq!(starts(&server, &id), 1);
}

#[test]
fn a_caller_who_shows_the_page_themselves_says_that_the_end_user_is_there() {
    let server = patient();
    let id = server.started();
    ready(&server, &id);
    assert_eq!(start_tool(&server, &id).0, 202);
    turn(&server, &id);
    assert_eq!(bring(&server, &id, "some-code").0, 202);
    assert_eq!(server.torn_down(&id)["reason"]["code"], "completed");
}

#[test]
fn a_sandbox_that_nobody_comes_to_ends_by_the_session_s_time_and_says_so() {
    let server = patient();
    let begun = server.post("/api/auth/start", r#"{"provider":"demo","ttlSeconds":5}"#);
    let id = begun.body["sessionId"].as_str().unwrap();
    // However long the sandbox takes, its last seconds begin when it is ready.
    server.session_when(id, "the sandbox is ready", |session| {
        server.post(&format!("/api/auth/session/{id}/heartbeat"), "");
        session["state"] == "ready"
    });
    let ended = server.torn_down(id);
    assert_eq!(ended["reason"]["code"], "nobody_came", "{ended}");
    assert!(ended["reason"]["message"].as_str().unwrap().contains("not started"), "{ended}");
    assert_eq!(starts(&server, id), 0);
}
