//! A stolen viewer link, exchanged first: what the thief still sees when the end user has another.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::meaning::{closes, refused_with};
use super::{Outcome, Tries};
use anteroom_testkit::link::{Visitor, exchange, secret};
use anteroom_testkit::raw::{self, Answer, ask};

use crate::server::Server;

/// How soon everything of a revoked link is closed.
const SOON: Duration = Duration::from_secs(1);

/// A tool that waits for a code that never comes: a terminal and a desktop, and no browser.
pub(super) const WAITS: &str = r#"
id = "demo"
name = "A tool that waits"
kind = "demo"
image = "demo"

[[login]]
method = "paste_code"
command = ["sh", "-c", "echo https://login.example.com/a; printf 'Paste code: '; exec sleep 1000"]
instructions = "Open the page."
code_prompt = 'Paste code:'

[egress]
allow = []

[credential]
[[credential.files]]
path = "~/.tool/auth.json"
required = ["/token"]
"#;

/// Makes the attacks.
pub fn attack(anteroom: &Path, tries: &mut Tries) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("xtask-doors-").tempdir()?;
    let mut server = Server::start_with(anteroom, folder.path(), WAITS, "host", &[])?;
    let host = raw::host(server.url()).to_owned();
    let started = server.begin(&json!({ "provider": "demo" }))?;
    let (id, first) = (&started.id, &started.viewer_url);
    once(&host, id, first, tries)?;
    let first = renew(&server, &host, id)?;
    server.wait_until(id, Duration::from_secs(120), "come to the end user's turn", |status| {
        status["state"] == "awaiting_user"
    })?;

    let thief = Visitor::by(&host, id, &first)?;
    let mut open = Vec::new();
    for n in 1..=8 {
        open.push((format!("terminal {n} of a revoked link"), thief.terminal()?));
    }
    open.push(("VNC of a revoked link".to_owned(), thief.vnc()?));
    let path = format!("/api/viewer/session/{id}/events");
    open.push(("events of a revoked link".to_owned(), raw::open(&host, &path, &thief.headers())?));
    for (what, (status, _)) in &open {
        if ![101, 200].contains(status) {
            bail!("{what} could not be opened before: {status}");
        }
    }
    let second = renew(&server, &host, id)?;
    let since = Instant::now();
    for (what, (_, stream)) in open {
        tries.record(&what, closes(stream, since, SOON)?);
    }
    by_its_cookie(&thief, tries)?;
    let again = exchange(&host, id, secret(&first)?)?;
    tries.record("a revoked link, opened again", refused_with(&again, &[410]));

    crowd_out(&server, &host, id, &second, tries)?;
    server.cancel(id)?;
    server.wait_until_torn_down(id, Duration::from_secs(60))?;
    server.stop()
}

/// One link at many hands, another session's, and none.
fn once(host: &str, id: &str, link: &str, tries: &mut Tries) -> Result<()> {
    let secret = secret(link)?;
    let other = "01890000-0000-7000-8000-000000000000";
    let answer = exchange(host, other, secret)?;
    tries.record("a link with another session's id", refused_with(&answer, &[410]));
    tries.record("a guessed link", refused_with(&exchange(host, id, &"A".repeat(43))?, &[410]));
    let answers: Vec<Result<Answer>> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..50).map(|_| scope.spawn(|| exchange(host, id, secret))).collect();
        calls
            .into_iter()
            .map(|call| call.join().unwrap_or_else(|_| bail!("a call panicked")))
            .collect()
    });
    let mut admitted = 0;
    for answer in answers {
        admitted += usize::from(answer?.status == 204);
    }
    let outcome = match admitted {
        1 => Outcome::Refused,
        more => Outcome::Passed(format!("{more} were let in")),
    };
    tries.record("one link opened by fifty at once", outcome);
    Ok(())
}

/// Everything that a viewer may ask, by the cookie of a revoked link.
fn by_its_cookie(thief: &Visitor, tries: &mut Tries) -> Result<()> {
    let (host, id, headers) = (&thief.host, &thief.id, thief.headers());
    tries.record("the session, by a revoked cookie", refused_with(&thief.view()?, &[401]));
    let session = format!("/api/viewer/session/{id}");
    for (method, path, body) in [
        ("GET", format!("{session}/events"), ""),
        ("POST", format!("{session}/code"), r#"{"code":"abcdefgh"}"#),
        ("POST", format!("{session}/open-sign-in-page"), ""),
        ("POST", format!("{session}/cancel"), ""),
        ("POST", format!("/api/webrtc/session/{id}/offer"), r#"{"type":"offer","sdp":"v=0"}"#),
    ] {
        let answer = ask(host, method, &path, &headers, body)?;
        let what = format!("{} by a revoked cookie", path.rsplit('/').next().unwrap_or_default());
        tries.record(&what, refused_with(&answer, &[401]));
    }
    for (what, opened) in [("terminal", thief.terminal()), ("VNC", thief.vnc())] {
        let (status, _) = opened?;
        let answer = Answer { status, text: String::new() };
        tries.record(&format!("{what} by a revoked cookie"), refused_with(&answer, &[401]));
    }
    Ok(())
}

/// The end user opens more channels than there is capacity for, and everybody who came is reported to
/// them; then all links are revoked.
fn crowd_out(server: &Server, host: &str, id: &str, link: &str, tries: &mut Tries) -> Result<()> {
    let end_user = Visitor::by(host, id, link)?;
    let mut open = Vec::new();
    let mut refused = 0;
    for _ in 0..12 {
        let (status, stream) = end_user.terminal()?;
        refused += usize::from(status != 101);
        open.push(stream);
    }
    let outcome = match refused {
        0 => Outcome::Refused,
        some => Outcome::Passed(format!("{some} of the end user's 12 terminals were refused")),
    };
    tries.record("all channels taken, so that the end user gets none", outcome);
    let view = end_user.view()?.body();
    let visits = view["visitsOfOthers"].as_array().cloned().unwrap_or_default();
    let saw = |what: &str| visits.iter().filter(|visit| visit["opened"] == what).count();
    for (what, least) in [("link", 2), ("terminal", 8), ("vnc", 1)] {
        let outcome = match saw(what) {
            enough if enough >= least => Outcome::Refused,
            few => Outcome::Passed(format!("{few} of {least} were reported to the end user")),
        };
        tries.record(&format!("opening the {what} unseen by the end user"), outcome);
    }
    let path = format!("/api/auth/session/{id}/viewers/revoke");
    let key = format!("Authorization: Bearer {}\r\n", server.key());
    let answer = ask(host, "POST", &path, &key, "")?;
    if answer.status != 204 {
        bail!("revoking was answered {}", answer.text);
    }
    let since = Instant::now();
    // The oldest were closed for the newer ones already.
    let newest = open.pop().context("no terminal is open")?;
    tries.record("a terminal after all links were taken back", closes(newest, since, SOON)?);
    let view = end_user.view()?;
    tries.record("the session after all links were taken back", refused_with(&view, &[401]));
    Ok(())
}

fn renew(server: &Server, host: &str, id: &str) -> Result<String> {
    let path = format!("/api/auth/session/{id}/viewer-link");
    let key = format!("Authorization: Bearer {}\r\n", server.key());
    let answer = ask(host, "POST", &path, &key, "")?;
    answer.body()["viewerUrl"].as_str().map(str::to_owned).context("there is no new link")
}
