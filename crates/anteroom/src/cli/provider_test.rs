//! `anteroom provider test`: each sign-in method with the real tool, up to the end user's turn.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anteroom_controller::methods;
use anteroom_provider::{Provider, SignInMethod};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::client::Client;
use super::sessions::{show, text};
use super::temporary::{Sandboxes, Temporary, provider_text};
use super::why::explanation;
use crate::counted::counted;

/// The timeline's entries at which it is the end user's turn.
const TURNS: [&str; 4] = ["sign_in_url", "unknown_prompt", "address_unmatched", "answer_not_taken"];

/// How long a tool may take beyond its own limit.
const SLACK: Duration = Duration::from_secs(240);

/// How long a tool has to live on that has come to the end user's turn: one that names an address in an
/// error ends right after it, which is known when what it left has ended too.
const SETTLED_AFTER: Duration = Duration::from_secs(8);

/// What `provider test` takes.
#[derive(clap::Args)]
pub struct Test {
    /// A shipped provider's id, or a provider file.
    provider: String,
    /// The golden image to use instead of the one that the file names.
    #[arg(long)]
    image: Option<String>,
    /// Test only this method.
    #[arg(long)]
    method: Option<String>,
    #[command(flatten)]
    sandboxes: Sandboxes,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// `anteroom provider test`.
pub fn run(options: &Test) -> Result<()> {
    let mut file = provider_text(&options.provider)?;
    if let Some(image) = &options.image {
        let mut table: toml::Table = file.parse().context("the provider file is not valid TOML")?;
        table.insert("image".to_owned(), image.clone().into());
        file = toml::to_string(&table)?;
    }
    let provider = Provider::parse(&options.provider, &file)?;
    let wanted = |login: &&SignInMethod| {
        options.method.as_ref().is_none_or(|only| *only == login.method.to_string())
    };
    let logins: Vec<&SignInMethod> = provider.login.iter().filter(wanted).collect();
    if logins.is_empty() {
        bail!("{} offers the methods {}", provider.name, methods(&provider));
    }
    let interrupted = super::interrupts()?;
    let (_controller, client) = Temporary::start(&file, &options.sandboxes, &[])?;
    let mut reported = Vec::new();
    for login in &logins {
        if !options.json {
            anstream::eprintln!("{}: booting a sandbox for {} …", login.method, provider.name);
        }
        reported.push(try_login(&client, &provider, login, &interrupted)?);
        if interrupted.load(Ordering::SeqCst) {
            bail!("interrupted; the sandboxes are being torn down");
        }
    }
    let failed = reported.iter().filter(|one| one["ok"] != true).count();
    show(options.json, &json!(reported), |reported| {
        reported.as_array().into_iter().flatten().map(lines).collect()
    })?;
    match failed {
        0 => Ok(()),
        n => {
            let methods = counted(logins.len(), "method", "methods");
            bail!("{n} of {methods} did not reach the end user's turn")
        }
    }
}

/// Starts a session, waits for the end user's turn, ends it.
fn try_login(
    client: &Client,
    provider: &Provider,
    login: &SignInMethod,
    interrupted: &AtomicBool,
) -> Result<Value> {
    // It ends before there is a credential; some terms want a recipient all the same.
    let recipient = anteroom_vault::nobody();
    let body = json!({ "provider": provider.id, "method": login.method, "recipient": recipient });
    let started = client.post("/api/auth/start", &body)?;
    let id = text(&started, "sessionId").to_owned();
    // A tool that waits for the end user is tried all the same.
    client.post(&format!("/api/auth/session/{id}/start-tool"), &Value::Null)?;
    let asked = Instant::now();
    let most = Duration::from_secs(login.url_timeout_seconds) + SLACK;
    let mut turn_since = None;
    let session = loop {
        let session = client.get_json(&format!("/api/auth/session/{id}"))?;
        if !session["awaiting"].is_null() {
            turn_since.get_or_insert_with(Instant::now);
        }
        if interrupted.load(Ordering::SeqCst)
            || turn_since.is_some_and(|since: Instant| since.elapsed() > SETTLED_AFTER)
            || session["state"] == "ended"
            || asked.elapsed() > most
        {
            break session;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    client.post(&format!("/api/auth/session/{id}/cancel"), &Value::Null)?;
    let timeline = session["timeline"].as_array().cloned().unwrap_or_default();
    let at = |kind: &str| {
        let entry = timeline.iter().find(|entry| entry["kind"] == kind)?;
        Some(entry["at"].as_u64()?.saturating_sub(session["createdAt"].as_u64()?))
    };
    let of_kind = |kind: &str| -> Vec<&Value> {
        timeline
            .iter()
            .filter(|entry| entry["kind"] == kind)
            .map(|entry| &entry["message"])
            .collect()
    };
    let (awaiting, reason) = (&session["awaiting"], &session["reason"]);
    let ended = session["state"] == "ended";
    Ok(json!({
        "method": login.method,
        "ok": awaiting["url"].is_string(),
        "ms": TURNS.iter().find_map(|kind| at(kind)),
        "url": awaiting["url"],
        "code": awaiting["code"],
        "answered": of_kind("question_answered"),
        "answeredAgain": of_kind("question_answered_again"),
        "instructions": awaiting["instructions"],
        "notified": of_kind("end_user_notified"),
        "unmatched": of_kind("address_unmatched").first(),
        "ignored": of_kind("address_ignored"),
        "screen": if ended { &reason["detail"]["last_lines"] } else { &awaiting["screen"] },
        "error": failure(reason, at("sign_in_url").is_some()),
        "line": reason["detail"]["line"],
        "explanation": reason["detail"]["explanation"],
        "egress": session["egress"],
    }))
}

/// Why the session ended before anybody did anything. That it succeeded is no success of this test.
fn failure(reason: &Value, had_turn: bool) -> Value {
    if reason["code"] != "completed" {
        return reason["message"].clone();
    }
    json!(match had_turn {
        true =>
            "the tool signed in by itself, before the end user could have done anything on its page",
        false => "the tool signed in by itself, without the end user's turn",
    })
}

fn lines(one: &Value) -> String {
    let seconds = one["ms"].as_u64().unwrap_or_default() as f64 / 1000.0;
    let method = text(one, "method");
    let mut lines = match one["url"].as_str() {
        Some(url) => {
            format!("PASS  {method:<14} the end user's turn after {seconds:.1} s: {url}\n")
        }
        None => format!(
            "FAIL  {method:<14} {}\n",
            match one["error"].as_str() {
                Some(error) => error.to_owned(),
                None => one["unmatched"].as_str().unwrap_or(text(one, "instructions")).to_owned(),
            }
        ),
    };
    let mut add =
        |label: &str, value: &str| lines.push_str(&format!("      {label:<14} {value}\n"));
    if let Some(code) = one["code"].as_str() {
        add("code", code);
    }
    for (label, key) in [("answered", "answered"), ("once more", "answeredAgain")] {
        for answered in one[key].as_array().into_iter().flatten() {
            add(label, answered.as_str().unwrap_or_default());
        }
    }
    if let Some(line) = one["line"].as_str() {
        add("it showed", line);
    }
    for (label, key) in [("not taken", "ignored"), ("notified", "notified")] {
        for said in one[key].as_array().into_iter().flatten() {
            add(label, said.as_str().unwrap_or_default());
        }
    }
    let rows = one["screen"].as_array();
    for (n, row) in rows.into_iter().flatten().enumerate() {
        add(if n == 0 { "its screen" } else { "" }, row.as_str().unwrap_or_default());
    }
    for entry in one["egress"].as_array().into_iter().flatten() {
        let cause = entry["detail"].as_str().map(|cause| format!(" ({cause})")).unwrap_or_default();
        add(text(entry, "verdict"), &format!("{}:{}{cause}", text(entry, "host"), entry["port"]));
    }
    lines.push_str(&explanation(&one["explanation"]));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_is_never_given_as_the_error() {
        let completed = json!({ "code": "completed", "message": "signed in" });
        for had_turn in [false, true] {
            let error = failure(&completed, had_turn);
            let error = error.as_str().unwrap();
            assert!(error.starts_with("the tool signed in by itself"), "{error}");
        }
        let failed = json!({ "code": "cli_exited", "message": "the tool exited with code 1" });
        assert_eq!(failure(&failed, false), failed["message"]);
        assert_eq!(failure(&Value::Null, true), Value::Null);
    }
}
