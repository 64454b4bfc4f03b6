//! Sign-ins of the real CLIs in which something goes wrong: what is reported to the end user.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::mock_idp::{Certificate, MockIdp};
use super::{ADDRESS, OPTIONS, end_users_turn, enter, keep, press_enter};
use crate::server::Server;
use crate::{company, identity::new_identity, leftovers};
use anteroom_testkit::Started;
use xtask::interrupt;

/// How long the report to the end user may take after their turn began.
const REPORTED: Duration = Duration::from_secs(150);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What goes wrong.
#[derive(Clone, Copy)]
enum Fault {
    /// A fault of the mock identity provider, by its name.
    Server(&'static str),
    /// Its certificate is for another name.
    OtherName,
    /// Its certificate is valid from tomorrow on, as when the sandbox's clock is a day slow.
    Tomorrow,
    /// Nobody listens.
    Down,
    /// Nothing, on its side.
    None,
}

/// What the end user does.
#[derive(Clone, Copy)]
enum EndUser {
    Allows,
    Denies,
    /// Brings a code that nobody gave.
    WrongCode,
}

/// What comes of it.
#[derive(Clone, Copy)]
enum Outcome {
    /// This is reported to the end user, in the reason of the end or before.
    Reported(&'static str),
    /// The sign-in completes all the same.
    Completes,
}

struct FailureScenario {
    name: &'static str,
    cli: &'static str,
    method: &'static str,
    fault: Fault,
    end_user: EndUser,
    outcome: Outcome,
}

const CODEX: FailureScenario = FailureScenario {
    name: "",
    cli: "codex",
    method: "browser",
    fault: Fault::None,
    end_user: EndUser::Allows,
    outcome: Outcome::Completes,
};

const CLAUDE: FailureScenario =
    FailureScenario { cli: "claude_code", method: "paste_code", ..CODEX };

const NOT_REACHED: Outcome = Outcome::Reported("cannot reach auth.openai.com");
// Chromium has one page for both, see crates/sign-in/src/pages.rs.
const PRIVACY_ERROR: Outcome = Outcome::Reported("its issuer is not trusted");
const CODEX_FAILED: Outcome = Outcome::Reported("OpenAI's sign-in server");
const CLAUDE_FAILED: Outcome = Outcome::Reported("Anthropic's sign-in server");
const CERTIFICATE: Outcome = Outcome::Reported("is for another name");
const CLOCK: Outcome = Outcome::Reported("one of the two clocks is wrong");

const GEMINI: FailureScenario =
    FailureScenario { cli: "gemini_cli", method: "paste_code", ..CODEX };

const FAILURE_SCENARIOS: [FailureScenario; 17] = [
    FailureScenario { name: "down", fault: Fault::Down, outcome: NOT_REACHED, ..CODEX },
    FailureScenario { name: "500", fault: Fault::Server("500"), outcome: CODEX_FAILED, ..CODEX },
    FailureScenario {
        name: "dropped",
        fault: Fault::Server("drop"),
        outcome: CODEX_FAILED,
        ..CODEX
    },
    FailureScenario { name: "slow", fault: Fault::Server("slow"), ..CODEX },
    FailureScenario {
        name: "other_name",
        fault: Fault::OtherName,
        outcome: PRIVACY_ERROR,
        ..CODEX
    },
    FailureScenario { name: "clock", fault: Fault::Tomorrow, outcome: PRIVACY_ERROR, ..CODEX },
    FailureScenario {
        name: "denied",
        end_user: EndUser::Denies,
        outcome: Outcome::Reported("was not allowed on OpenAI's page"),
        ..CODEX
    },
    FailureScenario {
        name: "blocked",
        fault: Fault::Server("blocked"),
        outcome: Outcome::Reported("does not accept a sign-in from the sign-in desktop's browser"),
        ..CODEX
    },
    FailureScenario {
        name: "country",
        fault: Fault::Server("country"),
        outcome: Outcome::Reported("in the country that this connection comes from"),
        ..CODEX
    },
    FailureScenario {
        name: "ineligible",
        fault: Fault::Server("ineligible"),
        outcome: Outcome::Reported("no longer supports personal accounts in Gemini CLI"),
        ..GEMINI
    },
    FailureScenario { name: "meddling_page", fault: Fault::Server("meddle"), ..CODEX },
    FailureScenario { name: "500", fault: Fault::Server("500"), outcome: CLAUDE_FAILED, ..CLAUDE },
    FailureScenario {
        name: "dropped",
        fault: Fault::Server("drop"),
        outcome: CLAUDE_FAILED,
        ..CLAUDE
    },
    FailureScenario { name: "slow", fault: Fault::Server("slow"), ..CLAUDE },
    FailureScenario { name: "other_name", fault: Fault::OtherName, outcome: CERTIFICATE, ..CLAUDE },
    FailureScenario { name: "clock", fault: Fault::Tomorrow, outcome: CLOCK, ..CLAUDE },
    FailureScenario {
        name: "wrong_code",
        end_user: EndUser::WrongCode,
        outcome: Outcome::Reported("did not accept the code"),
        ..CLAUDE
    },
];

/// All whose CLI and name hold `only`, two sign-ins at once, and one over a company's own host; the last
/// line is one JSON object.
pub fn run(anteroom: &Path, only: Option<&str>) -> Result<()> {
    let (mut planned, mut right, mut left) = (0, 0, Vec::new());
    for scenario in &FAILURE_SCENARIOS {
        let name = format!("{} {}", scenario.cli, scenario.name);
        if only.is_some_and(|only| !name.contains(only)) {
            continue;
        }
        interrupt::check()?;
        planned += 1;
        let (came, leftovers) =
            meet(anteroom, scenario).with_context(|| format!("{name} failed"))?;
        eprintln!(
            "{name}: {}",
            came.as_ref().map_or_else(|wrong| format!("WRONG: {wrong}"), Clone::clone)
        );
        right += u32::from(came.is_ok());
        left.extend(leftovers);
    }
    if only.is_none_or(|only| "two at once".contains(only)) {
        planned += 1;
        let (both, leftovers) = two_at_once(anteroom)?;
        eprintln!(
            "two at once: {}",
            if both { "both completed" } else { "WRONG: not both completed" }
        );
        right += u32::from(both);
        left.extend(leftovers);
    }
    if only.is_none_or(|only| "demo company".contains(only)) {
        planned += 1;
        let met = company::sign_in(anteroom, "qemu");
        match &met {
            Ok(_) => eprintln!("demo company: its host was allowed meanwhile, and it completed"),
            Err(wrong) => eprintln!("demo company: WRONG: {wrong:#}"),
        }
        right += u32::from(met.is_ok());
        left.extend(met.into_iter().flatten());
    }
    for left in &left {
        eprintln!("left over: {left}");
    }
    println!("{}", json!({ "scenarios": planned, "right": right, "leftovers": left.len() }));
    Ok(())
}

/// What was reported to the end user, or what happened instead; and what was left on this machine.
type Met = (Result<String, String>, Vec<String>);

fn meet(anteroom: &Path, scenario: &FailureScenario) -> Result<Met> {
    let before = leftovers::Before::look();
    let folder = tempfile::Builder::new().prefix("xtask-bench-").tempdir()?;
    let certificate = match scenario.fault {
        Fault::OtherName => {
            Certificate { hosts: &["elsewhere.example.com"], ..Certificate::default() }
        }
        Fault::Tomorrow => Certificate { from: SystemTime::now() + DAY, ..Certificate::default() },
        _ => Certificate::default(),
    };
    let fault = match scenario.fault {
        Fault::Server(name) => name,
        _ => "",
    };
    let mut mock_idp = MockIdp::start_with(folder.path(), &certificate, fault)?;
    let provider = mock_idp.provider(scenario.cli, "")?;
    if matches!(scenario.fault, Fault::Down) {
        mock_idp.stop()?;
    }
    let mut server = Server::start_with(anteroom, folder.path(), &provider, "qemu", &OPTIONS)?;
    let session = begin(&server, folder.path(), scenario)?;
    let turn = end_users_turn(&server, &session)?;
    let url = turn["awaiting"]["url"].as_str().unwrap_or_default();
    std::thread::scope(|scope| {
        if scenario.method == "browser" {
            // They stay at the picture until the end.
            scope.spawn(|| {
                complain(press_enter(&session, matches!(scenario.end_user, EndUser::Denies)))
            });
        } else {
            complain(submit_code(scenario, &server, &session, &mock_idp, url));
        }
        // If it takes too long, the final report says so.
        let waited = server.wait_until(&session.id, REPORTED, "reported to the end user", |view| {
            view["state"] == "ended" || is_as_wanted(scenario, view).is_some()
        });
        complain(waited.map(drop));
        interrupt::check()?;
        keep(&server, &session, folder.path())?;
        server.cancel(&session.id)
    })?;
    let ended = server.wait_until_torn_down(&session.id, Duration::from_secs(60))?;
    server.stop()?;
    let leftovers = leftovers::of_session(&session.id, folder.path(), &before)?;
    let came = is_as_wanted(scenario, &ended);
    if came.is_none() {
        for called in mock_idp.called() {
            eprintln!("  called: {called}");
        }
    }
    Ok((came.ok_or_else(|| format!("reported {:?}", reported(&ended))), leftovers))
}

fn begin(server: &Server, folder: &Path, scenario: &FailureScenario) -> Result<Started> {
    let recipient = new_identity(folder)?.recipient;
    server.begin(&json!({
        "provider": scenario.cli, "method": scenario.method, "recipient": recipient,
    }))
}

/// Prints an error that does not end the scenario; its outcome shows in what is reported.
fn complain(result: Result<()>) {
    if let Err(error) = result {
        eprintln!("  {error:#}");
    }
}

fn submit_code(
    scenario: &FailureScenario,
    server: &Server,
    session: &Started,
    mock_idp: &MockIdp,
    url: &str,
) -> Result<()> {
    match (scenario.end_user, scenario.fault) {
        (EndUser::WrongCode, _) => server.enter_code(&session.id, "nobody-gave#this-code"),
        // Their own browser is elsewhere, where all is well.
        (_, Fault::OtherName | Fault::Tomorrow) => {
            server.enter_code(&session.id, "some-code#and-state")
        }
        _ => enter(server, session, mock_idp, url),
    }
}

/// The report, if it is the expected one.
fn is_as_wanted(scenario: &FailureScenario, view: &Value) -> Option<String> {
    match scenario.outcome {
        Outcome::Completes => {
            (view["reason"]["code"] == "completed").then(|| "completed".to_owned())
        }
        Outcome::Reported(part) => reported(view).into_iter().find(|text| text.contains(part)),
    }
}

/// All that was reported to the end user.
fn reported(view: &Value) -> Vec<String> {
    let entries = view["timeline"].as_array().into_iter().flatten();
    let is_reported = |entry: &&Value| {
        ["end_user_notified", "host_unreachable"].iter().any(|kind| entry["kind"] == *kind)
    };
    let said = entries.filter(is_reported).map(|entry| &entry["message"]);
    let texts = said.chain([&view["reason"]["message"]]).filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// Two people sign in to the same CLI at once.
fn two_at_once(anteroom: &Path) -> Result<(bool, Vec<String>)> {
    let before = leftovers::Before::look();
    let folder = tempfile::Builder::new().prefix("xtask-bench-").tempdir()?;
    let mock_idp = MockIdp::start(folder.path())?;
    let provider = mock_idp.provider(CODEX.cli, "")?;
    let mut server = Server::start_with(anteroom, folder.path(), &provider, "qemu", &OPTIONS)?;
    let sessions = [begin(&server, folder.path(), &CODEX)?, begin(&server, folder.path(), &CODEX)?];
    let mut both = true;
    std::thread::scope(|scope| {
        for session in &sessions {
            scope.spawn(move || complain(press_enter(session, false)));
        }
        for session in &sessions {
            let ended = server.wait_until_torn_down(&session.id, ADDRESS)?;
            both &= ended["reason"]["code"] == "completed";
        }
        anyhow::Ok(())
    })?;
    server.stop()?;
    let mut left = Vec::new();
    for session in &sessions {
        left.extend(leftovers::of_session(&session.id, folder.path(), &before)?);
    }
    Ok((both, left))
}
