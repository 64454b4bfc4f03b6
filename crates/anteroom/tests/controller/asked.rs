//! What a tool says of its credential when it is asked, and what is kept out of the report about it.

use serde_json::{Value, json};

use crate::codes::{PASTE, bring, ended_with_code, provider, turn};
use crate::kept::signed_in;
use crate::support::{Server, Setup, files_in};

/// Writes its credential once it has the code.
const SIGNS_IN: &str = r#"printf 'https://login.example.com/a\nPaste code: '; mkdir -p ~/.tool; read code
echo '{"token":"9f8e7d6c5b4ab1a0","user":"ada lovelace"}' > ~/.tool/auth.json; echo done"#;

/// How a sign-in ends of which the tool says this.
fn asked(signs_in: &str, command: &str) -> (Server, Value) {
    let command = serde_json::to_string(command).unwrap();
    let status = format!(
        "status = {{ command = ['sh', '-c', {command}], signed_in = '(?m)^Logged in as .*' }}"
    );
    let text = provider("paste_code", signs_in, PASTE, &status);
    let server = Setup::host().start_with_provider(&text);
    let ended = ended_with_code(&server, &server.started());
    (server, ended)
}

fn message(ended: &Value) -> &str {
    assert_eq!(ended["reason"]["code"], "credential_refused", "{ended}");
    ended["reason"]["message"].as_str().unwrap()
}

#[test]
fn what_a_tool_prints_of_its_secret_is_reported_nowhere() {
    let token = "cut -d'\"' -f4 ~/.tool/auth.json";
    for says in ["Logged in as ada lovelace", "No sign-in of ada lovelace"] {
        let (server, ended) = asked(SIGNS_IN, &format!("echo {says} with $({token})"));
        assert!(ended.to_string().contains(&format!("{says} with [redacted]")), "{ended}");
        for path in files_in(&server.state_dir()) {
            let bytes = std::fs::read(&path).unwrap();
            let holds = bytes.windows(8).any(|window| window == b"9f8e7d6c");
            assert!(!holds, "{} holds it", path.display());
        }
    }
}

#[test]
fn a_tool_that_fails_has_said_nothing_else() {
    let (_server, ended) = asked(SIGNS_IN, "echo Logged in as ada '(cached)'; exit 1");
    let said = "does not report that the tool is signed in; it exited with code 1 and printed: Logged in as ada (cached)";
    assert!(message(&ended).contains(said), "{ended}");
    let (_server, ended) = asked(SIGNS_IN, "echo Logged in as ada; kill -SEGV $$");
    assert!(
        message(&ended).contains("it was killed by signal 11 (SIGSEGV) and printed: Logged"),
        "{ended}"
    );
    let (_server, ended) = asked(SIGNS_IN, "exit 0");
    assert!(message(&ended).ends_with("; it printed nothing"), "{ended}");
}

#[test]
fn a_long_answer_is_read_to_its_end() {
    let (_server, ended) = asked(SIGNS_IN, "echo Logged in as ada; seq 2000");
    assert_eq!(ended["reason"]["code"], "completed", "{ended}");
}

#[test]
fn it_is_asked_as_its_owner_will_have_it() {
    let signs_in = SIGNS_IN.replace("echo done", "chmod 755 ~/.tool/auth.json; echo done");
    let (_server, ended) = asked(&signs_in, "stat -c 'Logged in as %a' ~/.tool/auth.json");
    assert!(ended.to_string().contains("Logged in as 600"), "{ended}");
}

#[test]
fn what_was_there_when_the_end_user_s_turn_began_is_no_sign_in() {
    let device = r#"mkdir -p ~/.tool; echo '{"token":"device"}' > ~/.tool/auth.json
printf 'Open https://login.example.com/a\nPaste code: '; "#;
    let waits = "read code; echo '{\"token\":\"of-ada\"}' > ~/.tool/auth.json; sleep 1000";
    let text = provider("paste_code", &format!("{device}{waits}"), PASTE, "");
    let server = Setup::host().start_with_provider(&text);
    let id = server.started();
    turn(&server, &id);
    std::thread::sleep(std::time::Duration::from_secs(7));
    assert_eq!(bring(&server, &id, "good1234#state").0, 202, "it waits for the end user");
    let ended = server.torn_down(&id);
    assert_eq!(ended["reason"]["code"], "completed", "{ended}");

    let gives_up = "sleep 4; echo; echo Nobody came, goodbye.";
    let text = provider("paste_code", &format!("{device}{gives_up}"), PASTE, "");
    let ended = signed_in(&Setup::host().start_with_provider(&text));
    let said = "has not changed since the end user's turn began; it said \"Nobody came, goodbye.\"";
    assert!(message(&ended).contains(said), "{ended}");
}

#[test]
fn a_credential_that_a_tool_finds_and_is_content_with_is_taken() {
    let text = provider("paste_code", "sleep 2; echo Signed in already.", PASTE, "");
    let server = Setup::host().start_with_provider(&text);
    let found = json!({ "path": "~/.tool/auth.json", "content": "{\"token\":\"t\"}" });
    let body = json!({ "provider": "demo", "files": [found] });
    let started = server.post("/api/auth/start", &body.to_string());
    let ended = server.torn_down(started.body["sessionId"].as_str().unwrap());
    assert_eq!(ended["reason"]["code"], "completed", "{ended}");
}

#[test]
fn a_tool_that_ends_well_with_an_error_is_reported_with_its_message() {
    for (says, reported) in [
        (
            "Error: account is suspended",
            "auth.json does not exist; it said \"Error: account is suspended\"",
        ),
        ("Nobody came, goodbye.", "it said \"Nobody came, goodbye.\"; find out where"),
    ] {
        let script =
            format!("printf 'https://login.example.com/a\\nPaste code: '; read code; echo {says}");
        let server = Setup::host().start_with_provider(&provider("paste_code", &script, PASTE, ""));
        let ended = ended_with_code(&server, &server.started());
        assert!(message(&ended).contains(reported), "{ended}");
    }
}

#[test]
fn it_is_asked_without_the_end_user_s_language_and_time_zone() {
    let status = "status = { command = ['sh', '-c', 'echo Logged in as $TZ.$LANGUAGE.$LANG'], \
                  signed_in = '^Logged in as .*' }";
    let server =
        Setup::host().start_with_provider(&provider("paste_code", SIGNS_IN, PASTE, status));
    let body = json!({ "provider": "demo", "locale": "de-DE", "timeZone": "Asia/Tokyo" });
    let started = server.post("/api/auth/start", &body.to_string());
    let ended = ended_with_code(&server, started.body["sessionId"].as_str().unwrap());
    assert!(ended.to_string().contains("Logged in as ..C.UTF-8"), "{ended}");
}
