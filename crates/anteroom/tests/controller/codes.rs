//! Sign-ins away from the desktop, and what CLIs do on the way: by the real agent on this host, with
//! shell scripts as CLIs.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::support::{Server, Setup, anteroom, files_in};

/// Asks for codes until it gets the good one.
pub const PASTES: &str = r#"printf 'Visit:\n\n  https://login.example.com/authorize?client=1\n\n'
while :; do
  printf 'Paste code: '; read code
  if [ "$code" = 'good1234#state' ]; then break; fi
  echo 'Wrong code, try again.'
done
mkdir -p ~/.tool/sub; umask 077
echo '{"token":"canary-token"}' > ~/.tool/auth.json
echo 'name: ada' > ~/.tool/sub/who.yml
echo 'Signed in.'"#;

/// The demo provider with this script as its CLI; `login` goes into its way to sign in, `rest` after.
pub fn provider(method: &str, script: &str, login: &str, rest: &str) -> String {
    let script = serde_json::to_string(script).unwrap();
    format!(
        r##"
id = "demo"
name = "Test tool"
kind = "demo"
image = "demo"

[[login]]
method = "{method}"
command = ["sh", "-c", {script}]
instructions = "Open the page."
url_timeout_seconds = 20
{login}

[[screens]]
screen = 'Wrong code'
says = "The tool did not take the code; copy all of it."

[[screens]]
screen = 'Access denied'
says = "You did not allow it. Start again and allow it."
ends = true

[egress]
allow = []

[credential]
{rest}

[[credential.files]]
path = "~/.tool/auth.json"
required = ["/token"]

[[credential.files]]
path = "~/.tool/sub/who.yml"
format = "text"
optional = true
required = ['(?m)^name: \S+']
"##
    )
}

fn serve(provider: &str) -> Server {
    Setup::host().start_with_provider(provider)
}

/// Where they are taken, and what they look like.
pub const PASTE: &str = "code_prompt = 'Paste code:'\ncode_form = '[a-z0-9]+#[a-z]+'";

/// The kinds of its timeline's entries.
pub fn kinds(session: &Value) -> Vec<&str> {
    let timeline = session["timeline"].as_array().unwrap();
    timeline.iter().map(|entry| entry["kind"].as_str().unwrap()).collect()
}

/// What the end user is asked for, once it is their turn.
pub fn turn(server: &Server, id: &str) -> Value {
    let session = server.session_when(id, "the end user's turn", |session| {
        assert_eq!(session["reason"], Value::Null, "{session}");
        session["awaiting"].is_object()
    });
    session["awaiting"].clone()
}

/// Brings a code; status and problem code of the answer.
pub fn bring(server: &Server, id: &str, code: &str) -> (u16, Value) {
    let body = json!({ "code": code }).to_string();
    let answer = server.post(&format!("/api/auth/session/{id}/code"), &body);
    (answer.status, answer.body["code"].clone())
}

/// The session's end after its CLI got a code. A CLI of these tests waits for one before it writes
/// anything: what is there when the end user's turn begins is no sign-in of theirs.
pub fn ended_with_code(server: &Server, id: &str) -> Value {
    turn(server, id);
    assert_eq!(bring(server, id, "good1234#state").0, 202);
    server.torn_down(id)
}

/// The same: its reason's code and message.
fn end_with_code(server: &Server, id: &str) -> (String, String) {
    reason_of(&ended_with_code(server, id))
}

/// The session's end: its reason's code and message.
fn end(server: &Server, id: &str) -> (String, String) {
    reason_of(&server.torn_down(id))
}

fn reason_of(ended: &Value) -> (String, String) {
    let text = |name: &str| ended["reason"][name].as_str().unwrap().to_owned();
    (text("code"), text("message"))
}

#[test]
fn a_code_is_brought_until_the_tool_takes_it_and_the_bundle_works_elsewhere() {
    let server = serve(&provider("paste_code", PASTES, PASTE, ""));
    let id = server.started();
    let awaiting = turn(&server, &id);
    assert_eq!(awaiting["url"], "https://login.example.com/authorize?client=1");
    assert_eq!((&awaiting["takesCode"], &awaiting["method"]), (&json!(true), &json!("paste_code")));
    let session = server.get(&format!("/api/auth/session/{id}")).body;
    assert!(session["methodReason"].as_str().unwrap().contains("first method"), "{session}");

    for malformed in ["", "no-state", "a\u{1b}[A#b", &"a".repeat(5000)] {
        assert_eq!(bring(&server, &id, malformed).0, 422, "{malformed:.20}");
    }
    assert_eq!(bring(&server, &id, "wrong567#state").0, 202);
    let reported = server.session_when(&id, "the wrong code is reported", |session| {
        kinds(session).contains(&"end_user_notified")
    });
    assert_eq!(reported["state"], "awaiting_user");
    assert_eq!(bring(&server, &id, " good1234#state\n").0, 202);
    let ended = server.torn_down(&id);
    assert_eq!(ended["reason"]["code"], "completed", "{ended}");
    // Codes and tokens are nowhere in what the controller keeps.
    for path in files_in(&server.state_dir()) {
        let bytes = std::fs::read(&path).unwrap();
        for secret in ["good1234", "wrong567", "canary-token"] {
            let holds = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!holds, "{} holds {secret}", path.display());
        }
    }

    // On the machine that is to use it.
    let folder = tempfile::tempdir().unwrap();
    let sealed = server.sealed(&id, folder.path());
    let open = |home: &str, more: &[&str]| {
        let mut command = anteroom(folder.path());
        command.args(["credentials", "open"]).arg(&sealed).arg("--state-dir");
        command.arg(server.state_dir()).arg("--home").arg(folder.path().join(home));
        command.args(more).output().unwrap()
    };
    assert!(open("home", &[]).status.success());
    let auth = folder.path().join("home/.tool/auth.json");
    assert_eq!(std::fs::read_to_string(&auth).unwrap(), "{\"token\":\"canary-token\"}\n");
    assert_eq!(std::fs::metadata(&auth).unwrap().permissions().mode() & 0o777, 0o600);
    let who = folder.path().join("home/.tool/sub/who.yml");
    assert_eq!(std::fs::read_to_string(who).unwrap(), "name: ada\n");
    let again = open("home", &[]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("--force"), "{again:?}");
    assert!(open("home", &["--force"]).status.success());
}

#[test]
fn a_code_that_replaces_a_waiting_one_is_reported_as_replacing() {
    let script = format!(
        "printf 'https://login.example.com/a\\n'; while [ ! -e ~/go ]; do sleep 0.1; done\n{PASTES}"
    );
    let server = serve(&provider("paste_code", &script, PASTE, ""));
    let id = server.started();
    turn(&server, &id);
    let brings = |code: &str| {
        let body = json!({ "code": code }).to_string();
        server.post(&format!("/api/auth/session/{id}/code"), &body)
    };
    let first = brings("wrong567#state");
    assert_eq!(first.body, json!({ "typed": false, "replaced": false }));
    let second = brings("good1234#state");
    assert_eq!((second.status, second.body), (202, json!({ "typed": false, "replaced": true })));
    server.session_when(&id, "the timeline reports it", |session| {
        kinds(session).contains(&"code_replaced")
    });
}

#[test]
fn a_device_code_is_shown_after_questions_were_answered() {
    let script = r#"printf 'Shall I? (Y/n) '; read yes; [ "$yes" = y ] || exit 3
echo 'First copy your one-time code: AB12-CD34'
printf 'Then open https://login.example.com/device\n'
while [ ! -e ~/.go ]; do sleep 0.1; done; echo 'Access denied'; exit 1"#;
    let login = "code_pattern = 'one-time code: (\\S+)'\n\
                 [[login.answers]]\nscreen = 'Shall I\\?'\ntype = \"y\\r\"";
    let server = serve(&provider("device_code", script, login, ""));
    let id = server.started();
    let awaiting = turn(&server, &id);
    assert_eq!(awaiting["code"], "AB12-CD34", "{awaiting}");
    assert_eq!(awaiting["url"], "https://login.example.com/device");
    assert_eq!(awaiting["takesCode"], false);
    let (status, code) = bring(&server, &id, "abc#d");
    assert_eq!((status, code), (422, json!("code_refused")), "there is none to bring");
    let session = server.get(&format!("/api/auth/session/{id}")).body;
    assert!(kinds(&session).contains(&"question_answered"), "{session}");
    // Nobody asked for the desktop's browser.
    assert!(!session.to_string().contains("browser is ready"), "{session}");
    std::fs::write(format!("/tmp/anteroom-{id}/home/.go"), "").unwrap();
    let (code, message) = end(&server, &id);
    assert_eq!(code, "sign_in_refused");
    assert_eq!(message, "You did not allow it. Start again and allow it.");
}

#[test]
fn a_way_that_the_provider_lacks_is_refused_with_those_that_it_has() {
    let server = serve(&provider("paste_code", PASTES, PASTE, ""));
    let start = |more: Value| {
        let mut body = json!({ "provider": "demo" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post("/api/auth/start", &body.to_string())
    };
    let refused = start(json!({ "method": "browser" }));
    assert_eq!(refused.status, 422);
    assert!(
        refused.body["detail"].as_str().unwrap().contains("auto, paste_code"),
        "{}",
        refused.body
    );
    for bad in [json!({ "locale": "--lang" }), json!({ "timeZone": "../etc" })] {
        assert_eq!(start(bad).status, 422);
    }
}

#[test]
fn the_desktop_s_browser_comes_when_it_is_asked_for() {
    let server = serve(&provider("paste_code", PASTES, PASTE, ""));
    let id = server.started();
    turn(&server, &id);
    assert_eq!(server.post(&format!("/api/auth/session/{id}/open-sign-in-page"), "").status, 202);
    server.session_when(&id, "the browser opened the page", |session| {
        assert_eq!(session["reason"], Value::Null, "{session}");
        kinds(session).contains(&"sign_in_page_opened")
    });
}

#[test]
fn a_credential_in_pieces_replaced_and_removed_is_taken_when_it_is_whole() {
    let script = r#"printf 'https://login.example.com/a\nPaste code: '; mkdir -p ~/.tool; cd ~/.tool; read code
printf '{"tok' > auth.json; sleep 0.5; printf 'en":""' >> auth.json; sleep 0.5; printf '}' >> auth.json
sleep 0.5; echo '{"token":"first"}' > auth.json; rm auth.json; sleep 1
for n in second third; do echo "{\"token\":\"$n\"}" > new; mv new auth.json; sleep 0.1; done; sleep 1000"#;
    let server = serve(&provider("paste_code", script, PASTE, ""));
    let id = server.started();
    let ended = ended_with_code(&server, &id);
    assert_eq!(ended["reason"]["code"], "completed", "{ended}");
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let mut open = anteroom(folder.path());
    open.args(["credentials", "open"]).arg(server.sealed(&id, folder.path()));
    open.arg("--state-dir").arg(server.state_dir()).arg("--home").arg(&home);
    assert!(open.output().unwrap().status.success());
    let auth = std::fs::read_to_string(home.join(".tool/auth.json")).unwrap();
    assert_eq!(auth, "{\"token\":\"third\"}\n");
}

#[test]
fn a_tool_that_succeeds_without_its_credential_is_reported_with_what_was_seen() {
    let ends = |then: &str| {
        let script =
            format!("printf 'https://login.example.com/a\\nPaste code: '; read code; {then}");
        let server = serve(&provider("paste_code", &script, PASTE, ""));
        end_with_code(&server, &server.started())
    };
    let (code, message) = ends("exit 0");
    assert_eq!(code, "credential_refused");
    assert!(message.contains("~/.tool/auth.json does not exist"), "{message}");
    let (code, message) = ends("mkdir ~/.tool; echo '{\"user\":\"ada\"}' > ~/.tool/auth.json");
    assert_eq!(code, "credential_refused");
    assert!(
        message.contains("exists, but has no /token") && !message.contains("keyring"),
        "{message}"
    );
}

/// Shows its address, then does this.
fn after_its_address(then: &str) -> String {
    format!("printf 'https://login.example.com/a\\nPaste code: '; mkdir -p ~/.tool; {then}")
}

/// Shows its address, takes a code, then does this.
fn after_the_code(then: &str) -> String {
    after_its_address(&format!("read code; {then}"))
}

#[test]
fn a_tool_that_says_that_it_failed_has_failed_whatever_it_left() {
    let writes = "echo '{\"token\":\"t\"}' > ~/.tool/auth.json";
    let shows = "sleep 2; echo Access denied; exec sleep 1000";
    let ends = "echo Access denied; exit 0";
    for then in [shows, ends] {
        let script = after_the_code(&format!("{writes}; {then}"));
        let server = serve(&provider("paste_code", &script, PASTE, ""));
        let ended = ended_with_code(&server, &server.started());
        assert_eq!(ended["reason"]["code"], "sign_in_refused", "{ended}");
        assert_eq!(ended["reason"]["detail"]["line"], "Access denied", "{ended}");
        assert_eq!(ended["credential"]["status"], "none", "{ended}");
        assert!(!kinds(&ended).contains(&"credential_sealed"), "{ended}");
    }
    let script = after_the_code(&format!("{writes}; echo Error: not eligible; exit 3"));
    let server = serve(&provider("paste_code", &script, PASTE, ""));
    let (code, message) = end_with_code(&server, &server.started());
    assert_eq!(code, "cli_exited");
    assert!(
        message.starts_with("the credential was discarded because the tool failed"),
        "{message}"
    );
    assert!(message.contains("not eligible"), "{message}");
}

#[test]
fn where_the_screen_decides_nothing_is_taken_before_it_has_said_so() {
    let screen = "screen = 'Signed in as \\w+'";
    let writes = "echo '{\"token\":\"t\"}' > ~/.tool/auth.json";
    let says =
        after_the_code(&format!("{writes}; sleep 7; echo Signed in as ada; exec sleep 1000"));
    let server = serve(&provider("paste_code", &says, PASTE, screen));
    let ended = ended_with_code(&server, &server.started());
    assert_eq!(ended["reason"]["code"], "completed", "{ended}");

    let fails = after_the_code(&format!("{writes}; sleep 7; echo Access denied; exec sleep 1000"));
    let server = serve(&provider("paste_code", &fails, PASTE, screen));
    assert_eq!(
        end_with_code(&server, &server.started()).0,
        "sign_in_refused",
        "more than its silence allowed"
    );

    let says_nothing = after_the_code(writes);
    let server = serve(&provider("paste_code", &says_nothing, PASTE, screen));
    let (code, message) = end_with_code(&server, &server.started());
    assert_eq!(code, "credential_refused");
    assert!(message.contains("its screen never showed that it is signed in"), "{message}");
}

#[test]
fn a_question_after_the_end_user_s_turn_opens_the_terminal_and_then_the_page_is_theirs_again() {
    let script = after_its_address(
        "while [ ! -e ~/.go ]; do sleep 0.1; done; printf '\\nStore the token in a plain file? y/N '; \
         while [ ! -e ~/.on ]; do sleep 0.1; done; printf '\\nWaiting for the server.\\n'; exec sleep 1000",
    );
    let server = serve(&provider("paste_code", &script, PASTE, ""));
    let id = server.started();
    assert_eq!(turn(&server, &id)["url"], "https://login.example.com/a");
    std::fs::write(format!("/tmp/anteroom-{id}/home/.go"), "").unwrap();
    let asked = server.session_when(&id, "the end user is asked", |session| {
        session["awaiting"]["screen"].as_array().is_some_and(|screen| !screen.is_empty())
    });
    let screen = asked["awaiting"]["screen"].as_array().unwrap();
    assert_eq!(screen.last().unwrap(), "Store the token in a plain file? y/N");
    assert_eq!(asked["signInUrl"], "https://login.example.com/a", "the page stays known");
    std::fs::write(format!("/tmp/anteroom-{id}/home/.on"), "").unwrap();
    server.session_when(&id, "the page is theirs again", |session| {
        session["awaiting"]["url"] == "https://login.example.com/a"
    });
}

#[test]
fn an_answer_that_is_not_taken_is_reported_as_answered() {
    let script = "printf 'Shall I? (Y/n) '; exec sleep 1000";
    let login = "code_pattern = 'code: (\\S+)'\nquiet_ms = 100\n\
                 [[login.answers]]\nscreen = 'Shall I\\?'\ntype = \"y\\r\"";
    let text = provider("device_code", script, login, "").replace("_seconds = 20", "_seconds = 4");
    let server = serve(&text);
    let id = server.started();
    let session = server
        .session_when(&id, "it is the end user's turn", |session| session["awaiting"].is_object());
    let instructions = session["awaiting"]["instructions"].as_str().unwrap();
    assert!(
        instructions.contains("Shall I?") && instructions.contains("was answered"),
        "{instructions}"
    );
    let reported = kinds(&session);
    for kind in ["question_answered", "question_answered_again", "answer_not_taken"] {
        assert!(reported.contains(&kind), "{kind}: {reported:?}");
    }
}

#[test]
fn a_printed_token_is_sealed_as_a_file_and_stands_in_no_log() {
    let token = format!("tok-demo-{}", "aB3_-".repeat(25));
    let (first, rest) = token.split_at(110);
    let (rest, last) = rest.split_at(22);
    let shows = format!(
        "read code; printf '\\nYour token:\\n\\n {first}\\n {rest}{last}\\n\\nKeep it.\\n'"
    );
    // In pieces too, and by a tool that goes on.
    let pieces = format!(
        "read code; printf '\\nexport T={first}'; sleep 0.2; printf '\\n{rest}{last}\\n'; exec sleep 1000"
    );
    let secret = "[[credential.printed]]\npath = '~/.tool/token'\nbegins = 'tok-demo-'\nrest = '[A-Za-z0-9_-]{60,}'";
    for script in [shows, pieces] {
        let script = after_its_address(&script);
        let text = provider("paste_code", &script, PASTE, secret);
        let at = text.find("[[credential.files]]").unwrap();
        let server = serve(&text[..at]);
        let id = server.started();
        turn(&server, &id);
        assert_eq!(bring(&server, &id, "good1234#state").0, 202);
        let ended = server.torn_down(&id);
        assert_eq!(ended["reason"]["code"], "completed", "{ended}");
        for path in files_in(&server.state_dir()) {
            let bytes = std::fs::read(&path).unwrap();
            for piece in ["aB3_-aB3_-", "B3_-aB", &token[100..112]] {
                let holds = bytes.windows(piece.len()).any(|window| window == piece.as_bytes());
                assert!(!holds, "{} holds {piece}", path.display());
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let sealed = server.sealed(&id, folder.path());
        let identity = server.state_dir().join("vault/identity.txt");
        let mut open = anteroom(folder.path());
        open.args(["credentials", "open"]).arg(&sealed).arg("-i").arg(identity);
        let opened = open.arg("--home").arg(folder.path()).output().unwrap();
        assert!(opened.status.success(), "{opened:?}");
        let file = folder.path().join(".tool/token");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{token}\n"));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let ends = provider("paste_code", &after_the_code("exit 0"), PASTE, secret);
    let at = ends.find("[[credential.files]]").unwrap();
    let server = serve(&ends[..at]);
    let (code, message) = end_with_code(&server, &server.started());
    assert_eq!(code, "credential_refused");
    assert!(message.contains("never printed what is to be sealed as ~/.tool/token"), "{message}");
}

#[test]
fn the_tool_s_own_word_decides() {
    let signs_in = r#"printf 'https://login.example.com/a\nPaste code: '; mkdir -p ~/.tool; read code
echo '{"token":"t"}' > ~/.tool/auth.json; echo done"#;
    let status = |command: &str| {
        format!(
            "status = {{ command = ['sh', '-c', '{command}'], signed_in = 'Signed in as (\\w+)' }}"
        )
    };
    // It runs in another home, which holds the bundle alone.
    let asks = status("test ! -e ~/.injected && cat ~/.tool/auth.json && echo Signed in as ada");
    let server = serve(&provider("paste_code", signs_in, PASTE, &asks));
    let body = json!({ "provider": "demo", "files": [{ "path": "~/.injected", "content": "x" }] });
    let started = server.post("/api/auth/start", &body.to_string());
    let ended = ended_with_code(&server, started.body["sessionId"].as_str().unwrap());
    assert_eq!(ended["reason"]["code"], "completed", "{ended}");
    assert!(kinds(&ended).contains(&"credential_verified"), "{ended}");

    let server = serve(&provider("paste_code", signs_in, PASTE, &status("echo Not logged in")));
    let (code, message) = end_with_code(&server, &server.started());
    assert_eq!(code, "credential_refused");
    assert!(message.contains("it printed: Not logged in"), "{message}");
}

#[test]
fn a_callback_port_that_is_taken_is_reported_before_the_tool_starts() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let login = format!("{PASTE}\ncallback_ports = [{port}]");
    let server = serve(&provider("paste_code", PASTES, &login, ""));
    let (code, message) = end(&server, &server.started());
    assert_eq!(code, "service_failed");
    assert!(message.contains(&format!("port {port}")), "{message}");
}

#[test]
fn a_host_that_cannot_be_reached_is_reported_to_the_end_user_with_its_cause() {
    // A port that was free a moment ago: nobody listens.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let script = r#"printf 'https://login.example.com/a\nPaste code: '
python3 -c "import os, socket; p = os.environ['HTTPS_PROXY'].split('/')[2].split(':')
for host in ('api', 'api', 'cdn', 'evil'):
  s = socket.create_connection((p[0], int(p[1])))
  s.sendall(f'CONNECT {host}.example.com:443 HTTP/1.1\r\n\r\n'.encode()); s.recv(100)"; sleep 1000"#;
    let map =
        |host: &str| format!("[[egress.map]]\nhost = '{host}.example.com'\nto = '{nobody}'\n");
    let list = "allow = ['api.example.com', 'cdn.example.com']";
    let maps = format!("{list}\n{}{}", map("api"), map("cdn"));
    let text = provider("paste_code", script, PASTE, "").replace("allow = []", &maps);
    let server = serve(&text);
    let id = server.started();
    // The last one is not on the list, and no host is shown to the end user.
    let session = server.session_when(&id, "the last host is refused", |session| {
        kinds(session).contains(&"host_refused")
    });
    let timeline = session["timeline"].as_array().unwrap();
    let reported: Vec<&str> = timeline
        .iter()
        .filter(|entry| entry["kind"] == "host_unreachable")
        .map(|entry| entry["message"].as_str().unwrap())
        .collect();
    assert_eq!(reported.len(), 2, "once for each host: {reported:?}");
    assert!(
        reported[0].contains("cannot reach api.example.com (connecting failed: "),
        "{reported:?}"
    );
    assert!(
        reported[0].contains("Connection refused") && reported[1].contains("cdn."),
        "{reported:?}"
    );
    let entry = &session["egress"][0];
    assert_eq!(
        (&entry["verdict"], &entry["connections"]),
        (&json!("failed"), &json!(2)),
        "{entry}"
    );
    assert!(entry["detail"].as_str().unwrap().contains("Connection refused"), "{entry}");
}

#[test]
fn the_operator_allows_a_refused_host_while_the_session_waits() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = nobody.local_addr().unwrap();
    let script = r#"printf 'https://login.example.com/a\nPaste code: '
python3 -c "import os, socket, sys, time; p = os.environ['HTTPS_PROXY'].split('/')[2].split(':')
while True:
  s = socket.create_connection((p[0], int(p[1])))
  s.sendall(b'CONNECT acme.example.org:PORT HTTP/1.1\r\n\r\n')
  if b' 200 ' in s.recv(100): break
  time.sleep(0.1)
sys.exit('it is open')""#;
    for (sso, port, named, expected) in [
        ("sso = 'ask'", "443", "acme.example.org", 204),
        ("sso = 'ask'", "8443", "acme.example.org:8443", 204),
        ("sso = 'ask'", "8443", "acme.example.org", 409),
        ("", "443", "acme.example.org", 409),
    ] {
        let map =
            format!("[[egress.map]]\nhost = 'acme.example.org'\nport = {port}\nto = '{to}'\n");
        let script = &script.replace("PORT", port);
        let egress = format!("allow = []\n{sso}\n{map}");
        let text = provider("paste_code", script, PASTE, "").replace("allow = []", &egress);
        let server = serve(&text);
        let id = server.started();
        server.session_when(&id, "the host is refused", |s| kinds(s).contains(&"host_refused"));
        let allow = |host: &str| {
            let body = json!({ "host": host }).to_string();
            server.post(&format!("/api/auth/session/{id}/egress/allow"), &body)
        };
        for other in ["other.example.org", "127.0.0.1", "metadata.google.internal", ""] {
            assert_eq!(allow(other).status, 409, "{other}");
        }
        let answer = allow(named);
        assert_eq!(answer.status, expected, "{}", answer.body);
        if expected == 204 {
            // The tool ends once its connection is taken.
            let ended = server.torn_down(&id);
            assert!(ended["reason"]["message"].as_str().unwrap().contains("it is open"), "{ended}");
            assert!(kinds(&ended).contains(&"end_user_notified"), "{ended}");
            let timeline = ended["timeline"].as_array().unwrap().iter();
            let allowed: Vec<_> =
                timeline.filter(|entry| entry["kind"] == "host_allowed").collect();
            assert_eq!(allowed.len(), 1, "{ended}");
            assert_eq!(allowed[0]["by"], ended["startedBy"], "{ended}");
        }
    }
}

#[test]
fn where_a_server_hangs_up_the_tool_hears_it() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (n, connection) in listener.incoming().enumerate() {
            let mut connection = connection.unwrap();
            let mut asked = [0; 4];
            std::io::Read::read_exact(&mut connection, &mut asked).unwrap();
            if n % 2 == 1 {
                // An end with unread bytes is a reset.
                std::thread::sleep(std::time::Duration::from_millis(300));
            }
        }
    });
    let script = r#"printf 'https://login.example.com/a\nPaste code: '
python3 -c "import os, socket; p = os.environ['HTTPS_PROXY'].split('/')[2].split(':')
for n in range(2):
  s = socket.create_connection((p[0], int(p[1])), 20)
  s.sendall(b'CONNECT api.example.com:80 HTTP/1.1\r\n\r\n'); s.recv(100)
  s.sendall(b'GET /' + b'x' * 1000 * n + b' HTTP/1.1\r\nHost: api.example.com\r\n\r\n')
  try: print('heard', n, s.recv(100))
  except ConnectionError: print('heard', n, 'reset')
"; sleep 1000"#;
    let map = format!(
        "allow = ['api.example.com']\n[[egress.map]]\nhost = 'api.example.com'\nport = 80\nto = '{to}'"
    );
    let text = provider("paste_code", script, PASTE, "").replace("allow = []", &map);
    let server = serve(&text);
    let id = server.started();
    turn(&server, &id);
    crate::support::eventually_within(
        std::time::Duration::from_secs(60),
        "both ends are heard",
        || {
            let logs = server.get(&format!("/api/auth/session/{id}/logs")).body;
            let logs = logs.as_str().unwrap();
            (logs.contains("heard 0") && logs.contains("heard 1")).then_some(())
        },
    );
}

#[test]
fn a_credential_of_a_megabyte_is_taken_and_two_are_refused_as_what_they_are() {
    let script = |bytes: u32| {
        format!(
            "printf 'https://login.example.com/a\\nPaste code: '; mkdir -p ~/.tool; read code
(printf '{{\"token\":\"'; head -c {bytes} /dev/zero | tr '\\0' a; printf '\"}}') > ~/.tool/new
cp ~/.tool/new ~/.tool/sub.json; mv ~/.tool/new ~/.tool/auth.json; sleep 1000"
        )
    };
    let files = "[[credential.files]]\npath = \"~/.tool/sub.json\"\nrequired = [\"/token\"]\n\
                 max_bytes = 1048576";
    let ends = |bytes: u32| {
        let text = provider("paste_code", &script(bytes), PASTE, files).replace(
            "required = [\"/token\"]\n\n",
            "required = [\"/token\"]\nmax_bytes = 1048576\n\n",
        );
        let server = serve(&text);
        end_with_code(&server, &server.started())
    };
    assert_eq!(ends(700_000).0, "completed");
    let (code, message) = ends(900_000);
    assert_eq!(code, "credential_refused");
    assert!(message.contains("bytes in total; at most"), "{message}");
}
