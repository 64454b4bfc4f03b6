//! A sign-in that leads over a company's own host, which is on no list: the end user is notified, the
//! operator allows the host while they wait, and they load the page again.

use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::demo::TTL_SECONDS;
use crate::identity::new_identity;
use crate::provider::OpenIdProvider;
use crate::provider::provider_file;
use crate::server::Server;
use anteroom_testkit::end_user;

use crate::leftovers;
use xtask::shell;

/// The company's host.
const HOST: &str = "login.acme.test";

/// How long it may take until the end user hears that the desktop's browser is refused, boot included.
const REFUSED: Duration = Duration::from_secs(240);

/// One sign-in from start to end, by this driver; what was left of it on this machine.
pub fn sign_in(anteroom: &Path, driver: &str) -> Result<Vec<String>> {
    let before = leftovers::Before::look();
    let folder = tempfile::Builder::new().prefix("xtask-demo-").tempdir()?;
    let mut provider = OpenIdProvider::start_by(folder.path(), Some(HOST))?;
    let mut server = Server::start_with(anteroom, folder.path(), &asks(&provider)?, driver, &[])?;
    let identity = new_identity(folder.path())?;
    let session = server.start_session(&identity.recipient, TTL_SECONDS)?;
    let plan = end_user::Plan { reload_when_asked: true, ..end_user::Plan::default() };
    let (asks, asked) = channel();
    let seen = std::thread::scope(|scope| {
        let end_user = scope.spawn(|| {
            end_user::play(&plan, &session, move |event| {
                if event == "asks" {
                    let _ = asks.send(());
                }
            })
        });
        let asked = asked
            .recv_timeout(REFUSED)
            .context("the end user was not asked to contact the operator");
        let allowed = asked.and_then(|()| allow(anteroom, &server, &session.id));
        if allowed.is_err() {
            // The end user's wait ends with it.
            server.cancel(&session.id)?;
        }
        let seen = end_user.join().unwrap_or_else(|_| bail!("playing the end user panicked"));
        allowed.and(seen)
    });
    let ended = server.wait_until_torn_down(&session.id, Duration::from_secs(90))?;
    crate::demo::keep_logs(
        &folder.path().join("state/logs").join(&session.id),
        &shell::root().join("target/demo/company"),
    )?;
    seen.with_context(|| format!("the session's end: {}", ended["reason"]["message"]))?;
    ensure!(ended["reason"]["code"] == "completed", "it ended otherwise: {}", ended["reason"]);
    let sealed = server.credential(&session.id)?;
    let (_, credential) = identity.open(anteroom, folder.path(), &sealed)?;
    server.stop()?;
    let token = credential["access_token"].as_str().context("the credential has no token")?;
    let token = hex::encode(Sha256::digest(token));
    let issued = provider.stop()?.issued;
    ensure!(
        issued.iter().any(|tokens| tokens["access_token_sha256"] == token),
        "the credential is not what the provider issued"
    );
    leftovers::of_session(&session.id, folder.path(), &before)
}

/// The demo's provider file, which has the operator asked.
fn asks(provider: &OpenIdProvider) -> Result<String> {
    let file = provider_file(provider)?.replacen("[egress]\n", "[egress]\nsso = \"ask\"\n", 1);
    let to = provider.port;
    Ok(format!("{file}\n[[egress.map]]\nhost = \"{HOST}\"\nto = \"127.0.0.1:{to}\"\n"))
}

/// The operator, who finds in the session's timeline what is needed, and does it.
fn allow(anteroom: &Path, server: &Server, id: &str) -> Result<()> {
    let needed = |session: &Value| {
        let timeline = session["timeline"].as_array().cloned().unwrap_or_default();
        timeline.into_iter().find(|entry| entry["kind"] == "host_needed")
    };
    let kept = shell::root().join("target/demo/company-refused.png");
    std::fs::write(kept, server.screenshot(id)?)?;
    let reported =
        needed(&server.status(id)?).context("the host was not reported to the operator")?;
    let reported = reported["message"].as_str().unwrap_or_default();
    eprintln!("  operator: {reported}");
    let (_, command) =
        reported.split_once("`anteroom ").context("the report to the operator has no command")?;
    let (command, _) = command.split_once('`').context("the command has no closing backquote")?;
    let mut allow = Command::new(anteroom);
    allow.args(command.split(' ')).args(["--url", server.url(), "--api-key", server.key()]);
    shell::output(&mut allow).context("allowing the host failed")?;
    Ok(())
}
