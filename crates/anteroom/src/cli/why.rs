//! `anteroom why`: what happened to a session and why, with the evidence.

use anteroom_session::StateName;
use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;

use super::client::{Client, Connection};
use super::sessions::{show, text, turn};

/// What `why` takes.
#[derive(clap::Args)]
pub struct Why {
    /// The session's id.
    id: String,
    #[command(flatten)]
    connection: Connection,
}

/// `anteroom why`.
pub fn run(options: &Why) -> Result<()> {
    let client = options.connection.open()?;
    let session = client.get_json(&format!("/api/auth/session/{}", options.id))?;
    show(options.connection.json, &session, |session| for_people(session, &client))
}

/// The end first, since that is the question; then what led to it.
fn for_people(session: &Value, client: &Client) -> String {
    let mut page = match text(&session["reason"], "message") {
        "" => format!("The session is {}.\n", state(&session["state"])),
        reason => format!("It ended ({}): {reason}\n", text(&session["reason"], "code")),
    };
    let detail = &session["reason"]["detail"];
    for (label, key) in [("it showed", "line"), ("to do", "operator")] {
        if let Some(text) = detail[key].as_str() {
            page.push_str(&format!("{label:12}{text}\n"));
        }
    }
    if session["awaiting"].is_object() {
        page.push_str(&turn(&session["awaiting"], text(session, "sessionId"), client));
    }
    let created = session["createdAt"].as_u64().unwrap_or_default();
    page.push('\n');
    for entry in session["timeline"].as_array().into_iter().flatten() {
        let at = entry["at"].as_u64().unwrap_or(created).saturating_sub(created);
        let (seconds, tenths) = (at / 1000, at % 1000 / 100);
        page.push_str(&format!("{seconds:>6}.{tenths} s  {}\n", text(entry, "message")));
        page.push_str(&explanation(&entry["explanation"]));
    }
    page
}

/// A state in words; one that a newer controller has, by its wire name.
fn state(name: &Value) -> &str {
    match StateName::deserialize(name) {
        Ok(state) => state.label(),
        Err(_) => name.as_str().unwrap_or_default(),
    }
}

/// The evidence of an explanation, and what to do.
pub fn explanation(explanation: &Value) -> String {
    if explanation.is_null() {
        return String::new();
    }
    let mut page = String::new();
    let mut line = |label: &str, text: &str| {
        page.push_str(&format!("{:12}{label:10}{text}\n", ""));
    };
    let cause = format!("{} ({})", text(explanation, "cause"), text(explanation, "confidence"));
    line("cause", &cause.replace('_', " "));
    for (n, evidence) in explanation["evidence"].as_array().into_iter().flatten().enumerate() {
        line(if n == 0 { "evidence" } else { "" }, evidence.as_str().unwrap_or_default());
    }
    if let Some(advice) = explanation["advice"].as_str() {
        line("to do", advice);
    }
    page
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_session_that_is_not_over_is_described_by_its_label() {
        let client = Client::new("http://127.0.0.1:7070", "k");
        let says = |state: &str| for_people(&json!({ "state": state, "reason": null }), &client);
        let page = says("awaiting_user");
        assert!(
            page.starts_with("The session is waiting for the end user to sign in.\n"),
            "{page}"
        );
        assert!(says("a_new_one").starts_with("The session is a_new_one.\n"));
    }

    #[test]
    fn the_end_comes_first_and_the_evidence_below_its_line() {
        let page = for_people(
            &json!({
                "state": "ended", "createdAt": 1000, "reason": { "code": "service_failed", "message": "m" },
                "timeline": [{ "at": 2500, "kind": "ended", "message": "m", "explanation": {
                    "cause": "out_of_memory", "confidence": "certain", "sentence": "s",
                    "evidence": ["a", "b"], "advice": "do"
                }}]
            }),
            &Client::new("http://127.0.0.1:7070", "k"),
        );
        let lines: Vec<&str> = page.lines().collect();
        assert_eq!(lines[0], "It ended (service_failed): m");
        assert_eq!(lines[2], "     1.5 s  m");
        assert_eq!(lines[3], "            cause     out of memory (certain)");
        assert_eq!(lines[5], "                      b");
        assert_eq!(lines[6], "            to do     do");
    }
}
