//! `anteroom credentials receive`: the other end of a sign-in, where the tool is to run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anteroom_private::quoted;
use anteroom_vault::open_bundle;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::super::client::{Client, Connection};
use super::super::sessions::{Follow, SignInOptions, cancel_unless, follow, show, show_once, text};
use super::place::Placing;
use super::{Into, fetch, report, restore, trust};

/// How often the controller is asked for a sign-in that somebody else starts.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What `credentials receive` takes.
#[derive(clap::Args)]
pub struct Receive {
    /// The tool to sign in to: the id of a provider file. Without it, wait for a sign-in that somebody
    /// starts with the printed recipient (`auth start --recipient …`).
    provider: Option<String>,
    /// A sign-in that was started with this machine's recipient; it may have ended.
    #[arg(long, value_name = "ID", conflicts_with = "provider")]
    session: Option<String>,
    /// The age identity (key) to receive with [default: your own, `anteroom/identity.txt` in
    /// $XDG_DATA_HOME or ~/.local/share, for root /var/lib/anteroom/identity.txt; created when first
    /// used].
    #[arg(long, short, value_name = "FILE")]
    identity: Option<PathBuf>,
    #[command(flatten)]
    sign_in: SignInOptions,
    #[command(flatten)]
    into: Into,
    #[command(flatten)]
    connection: Connection,
}

/// `anteroom credentials receive`.
pub fn run(options: &Receive) -> Result<()> {
    let interrupted = super::super::interrupts()?;
    let client = options.connection.open()?;
    let as_json = options.connection.json;
    let home = options.into.home()?;
    // Whoever signed in is not to hear it only afterwards.
    Placing::try_home(&home)?;
    let is_free = |session: &Value| match options.into.force || session["state"] == "ended" {
        true => Ok(()),
        false => is_free(session, &home),
    };
    let path = options.identity.clone().unwrap_or_else(trust::own_identity);
    let (identity, recipient) = trust::identity_or_new(&path)?;
    let key = format!("The key that opens the credential is in {}\n", path.display());
    let (id, at_interrupt) = match (&options.provider, &options.session) {
        (Some(provider), _) => {
            let mut started = start(&client, provider, &recipient, &options.sign_in)?;
            let id = text(&started, "sessionId").to_owned();
            let free = is_free(&client.get_json(&format!("/api/auth/session/{id}"))?);
            if free.is_err() {
                client.post(&format!("/api/auth/session/{id}/cancel"), &Value::Null)?;
            }
            free?;
            started["identity"] = json!(path);
            let text_form = format!("{key}Open {}\n", text(&started, "viewerUrl"));
            cancel_unless(show_once(as_json, &started, |_| text_form.clone()), &client, &id)?;
            (id, Follow::Cancel)
        }
        (None, Some(id)) => (id.clone(), Follow::Leave),
        (None, None) => {
            let reported = json!({ "recipient": recipient, "identity": path });
            let text_form = format!(
                "{key}recipient {recipient}\nWaiting for a sign-in whose credential is sealed to it. Start one with: anteroom auth start PROVIDER --recipient {recipient}\n"
            );
            report_line(as_json, &reported, &text_form)?;
            let Some(id) = wait_for(&client, &recipient, &interrupted)? else {
                let again = options.again(&client, None);
                bail!("interrupted; the key is kept: run `{again}` to continue waiting");
            };
            report_line(as_json, &json!({ "sessionId": id }), &format!("session {id}\n"))?;
            (id, Follow::Leave)
        }
    };
    let session = client.get_json(&format!("/api/auth/session/{id}"))?;
    let sealed_to = text(&session["credential"], "recipient");
    if sealed_to != recipient {
        bail!(
            "session {id} is sealed to {sealed_to}, not to {recipient}, the recipient of {}",
            path.display()
        );
    }
    is_free(&session)?;
    // Who runs this is the end user: a tool that waits for them waits no longer.
    if session["state"] != "ended" {
        client.post(&format!("/api/auth/session/{id}/start-tool"), &Value::Null)?;
    }
    let ended = follow(&client, &id, as_json, &interrupted, at_interrupt)?;
    if ended.session["credential"]["status"] != "sealed" {
        return Err(ended.failure());
    }
    let fetched = fetch(&client, &id)?;
    let bundle = open_bundle(&fetched.sealed, &identity, &fetched.envelope)
        .with_context(|| format!("the credential of session {id} was not opened"))?;
    restore(&bundle, &home, options.into.force, &interrupted).with_context(|| {
        format!(
            "the credential was not restored; it is still available (`{}`)",
            options.again(&client, Some(&id))
        )
    })?;
    report(&bundle, &fetched.envelope, Some(&home), as_json)
}

impl Receive {
    /// The command that receives a session's credential again, or waits again, with what this one was
    /// given.
    fn again(&self, client: &Client, session: Option<&str>) -> String {
        let mut command = "credentials receive".to_owned();
        if let Some(id) = session {
            command.push_str(&format!(" --session {id}"));
        }
        for (option, path) in [("-i", &self.identity), ("--home", &self.into.home)] {
            if let Some(path) = path {
                command.push_str(&format!(" {option} {}", quoted(path)));
            }
        }
        client.command(&command)
    }
}

/// Whether no file is in the place of one that may come out; of those whose names are not known yet it
/// shows afterwards.
fn is_free(session: &Value, home: &Path) -> Result<()> {
    let files = session["credential"]["files"].as_array().into_iter().flatten();
    for file in files.filter_map(Value::as_str).filter(|file| !file.contains('*')) {
        let place = home.join(file);
        if place.symlink_metadata().is_ok() {
            bail!(
                "{} already exists where the credential goes; --force replaces it",
                place.display()
            );
        }
    }
    Ok(())
}

fn start(
    client: &Client,
    provider: &str,
    recipient: &str,
    sign_in: &SignInOptions,
) -> Result<Value> {
    let mut body = json!({ "provider": provider, "recipient": recipient });
    sign_in.add_to(&mut body);
    let mut started = client.post("/api/auth/start", &body)?;
    started["recipient"] = json!(recipient);
    Ok(started)
}

/// A line of JSON, or text_form.
fn report_line(as_json: bool, value: &Value, text_form: &str) -> Result<()> {
    show(as_json, value, |_| text_form.to_owned())
}

/// The sign-in with this recipient that begins from now on, or runs already; none when it was
/// interrupted.
fn wait_for(client: &Client, recipient: &str, interrupted: &AtomicBool) -> Result<Option<String>> {
    let sessions = || -> Result<Vec<Value>> {
        let sessions = client.get_json("/api/sessions")?;
        let own = sessions.as_array().cloned().unwrap_or_default().into_iter();
        Ok(own.filter(|session| session["recipient"] == recipient).collect())
    };
    let id = |session: &Value| text(session, "sessionId").to_owned();
    let over = |session: &&Value| session["state"] == "ended";
    let before: BTreeSet<String> = sessions()?.iter().filter(over).map(id).collect();
    loop {
        if interrupted.load(Ordering::SeqCst) {
            return Ok(None);
        }
        if let Some(found) = sessions()?.iter().map(id).find(|id| !before.contains(id)) {
            return Ok(Some(found));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
