//! Sign-ins of the real, unmodified CLIs in real VMs: how long each takes to its true address, and
//! whole sign-ins against mock identity providers; those that go wrong are in [`scenarios`].

mod elsewhere;
mod mock_idp;
mod scenarios;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::server::Server;
use crate::{cycles, identity::new_identity, leftovers};
use anteroom_testkit::Started;
use mock_idp::MockIdp;
use xtask::{interrupt, shell};

/// How long a CLI may take to its address, whatever the bound that it is held to.
const ADDRESS: Duration = Duration::from_secs(300);

/// The options that a controller needs for real CLIs on this machine.
const OPTIONS: [&str; 2] = ["--allow-weak-isolation", "--allow-unverified-images"];

/// A CLI and what is expected of it.
struct Cli {
    provider: &'static str,
    method: &'static str,
    /// How its true address begins.
    url: &'static str,
    /// The file whose bytes are compared, in its home.
    file: &'static str,
    /// What shows that the credential works on another machine.
    verified_by: VerifiedBy,
}

/// What shows that a credential works at its owner's: in a home that holds it alone.
enum VerifiedBy {
    /// What the CLI says to this question.
    Says { question: &'static [&'static str], answer: &'static str },
    /// Its file has a token that was issued: the CLI can be asked nothing.
    Token,
    /// The CLI, so called, finds its token in its owner's keyring and calls its provider with it.
    Calls(&'static [&'static str]),
}

const CLIS: [Cli; 6] = [
    Cli {
        provider: "codex",
        method: "browser",
        url: "https://auth.openai.com/oauth/authorize?response_type=code&client_id=app_",
        file: ".codex/auth.json",
        verified_by: VerifiedBy::Says {
            question: &["codex", "login", "status"],
            answer: "Logged in using ChatGPT",
        },
    },
    Cli {
        provider: "claude_code",
        method: "paste_code",
        url: "https://claude.ai/oauth/authorize?",
        file: ".claude/.credentials.json",
        verified_by: VerifiedBy::Says {
            question: &["claude", "auth", "status"],
            answer: "\"loggedIn\": true",
        },
    },
    Cli {
        provider: "claude_setup_token",
        method: "paste_code",
        url: "https://claude.ai/oauth/authorize?",
        file: ".claude/setup-token",
        verified_by: VerifiedBy::Token,
    },
    Cli {
        provider: "gemini_cli",
        method: "paste_code",
        url: "https://accounts.google.com/o/oauth2/v2/auth?",
        file: ".gemini/oauth_creds.json",
        verified_by: VerifiedBy::Token,
    },
    Cli {
        provider: "gh",
        method: "device_code",
        url: "https://github.com/login/device",
        file: ".config/gh/hosts.yml",
        verified_by: VerifiedBy::Token,
    },
    Cli {
        provider: "copilot_cli",
        method: "device_code",
        url: "https://github.com/login/device",
        file: ".copilot/config.json",
        verified_by: VerifiedBy::Calls(&["copilot", "-p", "hi"]),
    },
];

/// What became of one.
struct Outcome {
    /// From the start call to the end user's turn, in milliseconds.
    address_ms: u64,
    /// Whether it was signed in to the end, and all that was checked then held.
    full: bool,
    /// What was left on this machine.
    leftovers: Vec<String>,
}

/// Real CLIs, then scripted sign-ins of the demo provider; the last line is one JSON object.
pub fn run(anteroom: &Path, only: Option<&str>, host: usize, qemu: usize) -> Result<()> {
    build_image(anteroom)?;
    let (mut result, mut left) = (json!({}), Vec::new());
    for cli in CLIS.iter().filter(|cli| only.is_none_or(|only| cli.provider.contains(only))) {
        interrupt::check()?;
        let Outcome { address_ms, full, leftovers } = sign_in(anteroom, cli)
            .with_context(|| format!("the sign-in of {} failed", cli.provider))?;
        let short = match cli.provider {
            "claude_setup_token" => "claude_setup",
            other => other.split('_').next().unwrap_or_default(),
        };
        eprintln!("{short}: the end user's turn came after {address_ms} ms; signed in: {full}");
        result[format!("{short}_ms")] = json!(address_ms);
        result[format!("{short}_full")] = json!(full);
        left.extend(leftovers);
    }
    if only.is_none() {
        let on_host = cycles::run(anteroom, "host", host)?;
        let in_vms = cycles::run(anteroom, "qemu", qemu)?;
        result["demo_runs"] = json!(host + qemu);
        result["captured"] = json!(on_host.captured + in_vms.captured);
        left.extend(on_host.leftovers.into_iter().chain(in_vms.leftovers));
    }
    for left in &left {
        eprintln!("left over: {left}");
    }
    result["leftovers"] = json!(left.len());
    println!("{result}");
    Ok(())
}

/// Sign-ins in which something goes wrong; the last line is one JSON object.
pub fn run_failure_scenarios(anteroom: &Path, only: Option<&str>) -> Result<()> {
    build_image(anteroom)?;
    scenarios::run(anteroom, only)
}

/// The image of the CLIs.
fn build_image(anteroom: &Path) -> Result<()> {
    let recipe = shell::root().join("images/signin.toml");
    let mut build = Command::new(anteroom);
    build.args(["image", "build", "--no-verify"]).arg(recipe).stdout(Stdio::null());
    shell::run(&mut build)
}

/// One sign-in of a real CLI, from the start call to a credential that works elsewhere.
fn sign_in(anteroom: &Path, cli: &Cli) -> Result<Outcome> {
    let before = leftovers::Before::look();
    let folder = tempfile::Builder::new().prefix("xtask-bench-").tempdir()?;
    let mock_idp = MockIdp::start(folder.path())?;
    // What is printed is in no file of the sandbox's.
    let then = match cli.provider {
        "claude_setup_token" => String::new(),
        _ => format!("sha256sum ~/{}", cli.file),
    };
    let provider = mock_idp.provider(cli.provider, &then)?;
    let mut server = Server::start_with(anteroom, folder.path(), &provider, "qemu", &OPTIONS)?;
    let identity = new_identity(folder.path())?;
    let session = server.begin(&json!({
        "provider": cli.provider, "method": cli.method, "recipient": identity.recipient,
    }))?;
    let waits = end_users_turn(&server, &session)?;
    let url = waits["awaiting"]["url"].as_str().unwrap_or_default();
    if !url.starts_with(cli.url) {
        keep(&server, &session, folder.path())?;
        bail!("the address is {url:?}: {}", waits["reason"]["message"]);
    }
    let address_ms = turn_at(&waits).context("the timeline has no address")?;
    let done = match cli.method {
        "browser" => press_enter(&session, false),
        "device_code" => mock_idp.visit(url).map(drop),
        _ => enter(&server, &session, &mock_idp, url),
    };
    if let Err(error) = done {
        eprintln!("{}: {error:#}", cli.provider);
        server.cancel(&session.id)?;
    }
    let ended = server.wait_until_torn_down(&session.id, Duration::from_secs(240));
    let logs = keep(&server, &session, folder.path())?;
    let ended = ended?;
    for called in mock_idp.called() {
        eprintln!("  called: {called}");
    }
    let full = ended["reason"]["code"] == "completed";
    if !full {
        eprintln!("{}: {}", cli.provider, ended["reason"]["message"]);
    }
    let full = full && {
        let sealed = server.credential(&session.id)?;
        let log = std::fs::read_to_string(logs.join("services.log"))?;
        let issuer = elsewhere::Issuer { mock_idp: &mock_idp, log: &log };
        elsewhere::works(anteroom, cli, &sealed, &identity, &issuer)?
    };
    server.stop()?;
    let leftovers = leftovers::of_session(&session.id, folder.path(), &before)?;
    Ok(Outcome { address_ms, full, leftovers })
}

/// The session when the end user, who is there from the beginning, has something to do, or has ended
/// before.
fn end_users_turn(server: &Server, session: &Started) -> Result<Value> {
    server.start_tool(&session.id)?;
    server.wait_until(&session.id, ADDRESS, "come to the end user's turn", |view| {
        !view["awaiting"].is_null() || view["state"] == "ended"
    })
}

/// Milliseconds from the start call to the CLI's address.
fn turn_at(view: &Value) -> Option<u64> {
    let timeline = view["timeline"].as_array()?;
    let at = timeline.iter().find(|entry| entry["kind"] == "sign_in_url")?["at"].as_u64()?;
    Some(at.saturating_sub(view["createdAt"].as_u64()?))
}

/// The end user who signs in in a browser of their own, and brings the code.
fn enter(server: &Server, session: &Started, mock_idp: &MockIdp, url: &str) -> Result<()> {
    server.enter_code(&session.id, &mock_idp.visit(url)?)
}

/// The end user of a page whose button has the focus; or, to deny, the one after it.
fn press_enter(session: &Started, deny: bool) -> Result<()> {
    let mut end_user = Command::new("node");
    end_user.arg(shell::root().join("demo/end-user/allow.mjs"));
    if deny {
        end_user.arg("--deny");
    }
    shell::output(end_user.args(["--viewer-url", &session.viewer_url])).map(drop)
}

/// Keeps the logs, state and picture of a session; returns the folder of its logs.
fn keep(server: &Server, session: &Started, folder: &Path) -> Result<PathBuf> {
    let logs = folder.join("state/logs").join(&session.id);
    let kept = shell::root().join("target/demo/login");
    std::fs::create_dir_all(&kept)?;
    crate::demo::keep_logs(&logs, &kept)?;
    std::fs::write(kept.join("session.json"), server.status(&session.id)?.to_string())?;
    if let Ok(png) = server.screenshot(&session.id) {
        std::fs::write(kept.join("desktop.png"), png)?;
    }
    Ok(logs)
}
