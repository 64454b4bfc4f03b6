//! `anteroom egress`: what sign-ins ask of the network.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anteroom_egress::{Decision, Policy};
use anteroom_provider::Provider;
use anyhow::Result;
use serde_json::{Value, json};

use super::sessions::{show, text, turn};
use super::temporary::{Rooms, Temporary, provider_text};

/// What sign-ins ask of the network.
#[derive(clap::Subcommand)]
pub enum Egress {
    /// Has somebody sign in with every host allowed, and prints which were asked for: what to write
    /// into the provider file's list. Ctrl-C ends it and prints what was seen so far.
    Learn(Learn),
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
    rooms: Rooms,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// `anteroom egress …`.
pub fn run(command: &Egress) -> Result<()> {
    let Egress::Learn(options) = command;
    let file = provider_text(&options.provider)?;
    let provider = Provider::parse(&options.provider, &file)?;
    let interrupted = super::interrupts()?;
    let (_controller, client) = Temporary::start(&file, &options.rooms, &["--learn-egress"])?;
    // What is signed in to here is for nobody.
    let mut body = json!({ "provider": provider.id, "recipient": anteroom_vault::nobody() });
    if let Some(method) = &options.method {
        body["method"] = json!(method);
    }
    let started = client.post("/api/auth/start", &body)?;
    let id = text(&started, "sessionId");
    if !options.json {
        anstream::println!("Sign in at {}", text(&started, "viewerUrl"));
    }
    let mut told = Value::Null;
    let session = loop {
        let session = client.get_json(&format!("/api/auth/session/{id}"))?;
        if session["state"] == "ended" {
            break session;
        }
        if interrupted.load(Ordering::SeqCst) {
            client.post(&format!("/api/auth/session/{id}/cancel"), &Value::Null)?;
            break client.get_json(&format!("/api/auth/session/{id}"))?;
        }
        if !options.json && !session["awaiting"].is_null() && session["awaiting"] != told {
            anstream::println!("{}", turn(&session["awaiting"], id));
        }
        told = session["awaiting"].clone();
        std::thread::sleep(Duration::from_millis(300));
    };
    show(options.json, &learnt(&session, &provider)?, |learnt| {
        let mut lines = format!("\nThe sign-in: {}\n\n[egress]\nallow = [\n", text(learnt, "end"));
        for host in learnt["hosts"].as_array().into_iter().flatten() {
            let bytes = host["bytes"].as_u64().unwrap_or_default();
            let new = if host["listed"] == true { "" } else { ", not listed yet" };
            let entry = format!("{:?},", text(host, "host"));
            lines.push_str(&format!("  {entry:<50} # {bytes} bytes{new}\n"));
        }
        lines + "]\n"
    })
}

/// Each host that was reached, with what it carried and whether the provider's list has it.
fn learnt(session: &Value, provider: &Provider) -> Result<Value> {
    let policy = Policy::new(&provider.egress.allow, &[])?;
    let mut hosts: BTreeMap<String, (bool, u64)> = BTreeMap::new();
    for entry in session["egress"].as_array().into_iter().flatten() {
        if entry["verdict"] != "allowed" {
            continue;
        }
        let number = |name: &str| entry[name].as_u64().unwrap_or_default();
        let (name, port) = (text(entry, "host"), u16::try_from(number("port")).unwrap_or(0));
        let host = match port {
            80 | 443 => name.to_owned(),
            port => format!("{name}:{port}"),
        };
        let (listed, bytes) = hosts.entry(host).or_default();
        *listed |= policy.decide(name, port) != Decision::Refused;
        *bytes += number("bytesUp") + number("bytesDown");
    }
    let hosts: Vec<Value> = hosts
        .iter()
        .map(|(host, (listed, bytes))| json!({ "host": host, "bytes": bytes, "listed": listed }))
        .collect();
    let end = session["reason"]["message"].as_str().unwrap_or("cancelled");
    Ok(json!({ "provider": provider.id, "end": end, "hosts": hosts }))
}
