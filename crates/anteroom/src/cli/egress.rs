//! `anteroom egress`: what sign-ins ask of the network.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anteroom_controller::MAX_HOSTS;
use anteroom_egress::{Decision, Policy};
use anteroom_provider::Provider;
use anteroom_runner::mappings;
use anteroom_session::HostPort;
use anyhow::Result;
use serde_json::{Value, json};

use super::client::Connection;
use super::sessions::{say, show, text, turn};
use super::temporary::{Sandboxes, Temporary, provider_text};
use crate::counted::counted;

/// Network access of sign-ins.
#[derive(clap::Subcommand)]
pub enum Egress {
    /// Run one sign-in with every host allowed and print the requested hosts, for the provider file's
    /// list. Ctrl-C ends it and prints what was requested so far.
    Learn(Learn),
    /// Allow a refused host for one waiting session, where its provider file says `sso = "ask"`.
    Allow(Allow),
}

/// What `egress allow` takes.
#[derive(clap::Args)]
pub struct Allow {
    /// The session's id.
    id: String,
    /// A host that `anteroom why SESSION` lists as refused, with its port unless that is 80 or 443.
    host: String,
    #[command(flatten)]
    connection: Connection,
}

/// What `egress learn` takes.
#[derive(clap::Args)]
pub struct Learn {
    /// A shipped provider's id, or a provider file.
    provider: String,
    /// How to sign in.
    #[arg(long)]
    method: Option<String>,
    #[command(flatten)]
    sandboxes: Sandboxes,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// `anteroom egress …`.
pub fn run(command: &Egress) -> Result<()> {
    let options = match command {
        Egress::Learn(options) => options,
        Egress::Allow(options) => return allow(options),
    };
    let file = provider_text(&options.provider)?;
    let provider = Provider::parse(&options.provider, &file)?;
    let interrupted = super::interrupts()?;
    let (_controller, client) = Temporary::start(&file, &options.sandboxes, &["--learn-egress"])?;
    // What is signed in to here is for nobody.
    let mut body = json!({ "provider": provider.id, "recipient": anteroom_vault::nobody() });
    if let Some(method) = &options.method {
        body["method"] = json!(method);
    }
    let started = client.post("/api/auth/start", &body)?;
    let id = text(&started, "sessionId");
    if !options.json {
        say(&format!("Sign in at {}\n", text(&started, "viewerUrl")))?;
    }
    let mut reported = Value::Null;
    let session = loop {
        let session = client.get_json(&format!("/api/auth/session/{id}"))?;
        if session["state"] == "ended" {
            break session;
        }
        if interrupted.load(Ordering::SeqCst) {
            client.post(&format!("/api/auth/session/{id}/cancel"), &Value::Null)?;
            let mut session = client.get_json(&format!("/api/auth/session/{id}"))?;
            session["reason"] = json!({ "message": "you interrupted it" });
            break session;
        }
        if !options.json && !session["awaiting"].is_null() && session["awaiting"] != reported {
            say(&format!("{}\n", turn(&session["awaiting"], id, &client)))?;
        }
        reported = session["awaiting"].clone();
        std::thread::sleep(Duration::from_millis(300));
    };
    show(options.json, &learnt(&session, &provider)?, for_people)
}

/// The list to write, and beside it what was asked for in vain.
fn for_people(learnt: &Value) -> String {
    let mut lines =
        format!("\nThe sign-in ended: {}\n\n[egress]\nallow = [\n", text(learnt, "end"));
    let hosts = learnt["hosts"].as_array().into_iter().flatten();
    let entry = |host: &Value| format!("{:?},", text(host, "host"));
    let width = hosts.clone().map(|host| entry(host).chars().count() + 2).max().unwrap_or_default();
    for host in hosts {
        let entry = entry(host);
        match host["cause"].as_str() {
            Some(cause) => {
                let entry = format!("# {entry}");
                lines.push_str(&format!("  {entry:<width$} # {cause}\n"));
            }
            None => {
                let bytes = counted(host["bytes"].as_u64().unwrap_or_default(), "byte", "bytes");
                let new =
                    if host["listed"] == true { "" } else { "; not in the provider file yet" };
                lines.push_str(&format!("  {entry:<width$} # {bytes}{new}\n"));
            }
        }
    }
    lines.push_str("]\n");
    if learnt["full"] == true {
        let most = "a session's list, which is full: further hosts may have been requested";
        lines.push_str(&format!("\nThese are the first {MAX_HOSTS} entries of {most}.\n"));
    }
    lines
}

fn allow(options: &Allow) -> Result<()> {
    let Allow { id, host, connection } = options;
    let client = connection.open()?;
    client.post(&format!("/api/auth/session/{id}/egress/allow"), &json!({ "host": host }))?;
    show(connection.json, &json!({ "sessionId": id, "allowed": host }), |_| {
        format!("{host} is now allowed for this session. Reload the page.\n")
    })
}

/// What is known of a host that was asked for.
#[derive(Default)]
struct Asked {
    listed: bool,
    bytes: u64,
    reached: bool,
    cause: Option<String>,
}

/// Each host that was asked for: with what it carried and whether the provider's list has it, or with
/// the cause where it was never reached.
fn learnt(session: &Value, provider: &Provider) -> Result<Value> {
    let policy = Policy::new(&provider.egress.allow, &mappings(&provider.egress))?;
    let mut hosts: BTreeMap<HostPort, Asked> = BTreeMap::new();
    for entry in session["egress"].as_array().into_iter().flatten() {
        let number = |name: &str| entry[name].as_u64().unwrap_or_default();
        let (name, port) = (text(entry, "host"), u16::try_from(number("port")).unwrap_or(0));
        if name.is_empty() {
            continue;
        }
        let asked = hosts.entry(HostPort::new(name, port)).or_default();
        asked.listed |= !matches!(policy.decide(name, port), Decision::Refused(_));
        asked.bytes += number("bytesUp") + number("bytesDown");
        match text(entry, "verdict") {
            "allowed" => asked.reached = true,
            verdict => {
                let cause = entry["detail"].as_str().unwrap_or("the cause is unknown");
                asked.cause = Some(format!("{}: {cause}", verdict.replace('_', " ")));
            }
        }
    }
    let one = |(host, asked): (&HostPort, &Asked)| {
        let cause = asked.cause.as_ref().filter(|_| !asked.reached);
        json!({ "host": host.to_string(), "bytes": asked.bytes, "listed": asked.listed, "cause": cause })
    };
    let hosts: Vec<Value> = hosts.iter().map(one).collect();
    let end = session["reason"]["message"].as_str().unwrap_or("cancelled");
    let full = session["egress"].as_array().is_some_and(|entries| entries.len() >= MAX_HOSTS);
    Ok(json!({ "provider": provider.id, "end": end, "hosts": hosts, "full": full }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_that_was_asked_for_is_learnt_with_its_cause() {
        let file = super::super::temporary::provider_text("demo").unwrap();
        let provider = Provider::parse("demo", &file).unwrap();
        let entry = |host: &str, verdict: &str, detail: Value| json!({ "host": host, "port": 443, "verdict": verdict, "bytesUp": 1, "detail": detail });
        let session = json!({ "egress": [
            entry("gone.example", "failed", json!("cannot resolve its name: no such name")),
            entry("inside.example", "refused_address", json!("10.0.0.1 is private")),
            entry("late.example", "failed", json!("connecting took too long")),
            entry("late.example", "allowed", Value::Null),
        ]});
        let learnt = learnt(&session, &provider).unwrap();
        let causes: Vec<_> =
            learnt["hosts"].as_array().unwrap().iter().map(|h| &h["cause"]).collect();
        let gone = "failed: cannot resolve its name: no such name";
        assert_eq!(
            causes,
            [&json!(gone), &json!("refused address: 10.0.0.1 is private"), &Value::Null]
        );
        let page = for_people(&learnt);
        assert!(page.contains("  # \"gone.example\",") && page.contains(gone), "{page}");
        assert!(page.contains("\n  \"late.example\",") && !page.contains("too long"), "{page}");
    }

    #[test]
    fn what_a_map_leads_to_is_listed_and_a_full_list_is_reported() {
        let file = super::super::temporary::provider_text("demo").unwrap();
        let listed = "allow = [\"idp.internal\", ";
        let map = "\n[[egress.map]]\nhost = \"idp.internal\"\nto = \"127.0.0.1:9\"\n";
        let file = file.replace("allow = [", listed) + map;
        let provider = Provider::parse("demo", &file).unwrap();
        let entry = |host: String| json!({ "host": host, "port": 443, "verdict": "allowed" });
        let hosts = |n| (1..n).map(|n| entry(format!("{n}.example")));
        let of = |n| {
            let entries: Vec<_> =
                [entry("idp.internal".to_owned())].into_iter().chain(hosts(n)).collect();
            learnt(&json!({ "egress": entries }), &provider).unwrap()
        };
        let page = for_people(&of(2));
        let line = page.lines().find(|line| line.contains("idp.internal")).unwrap();
        assert!(!line.contains("not listed"), "{page}");
        assert!(!page.contains("which is full"), "{page}");
        let page = for_people(&of(MAX_HOSTS));
        assert!(page.contains("the first 500 entries") && page.contains("which is full"), "{page}");
    }
}
