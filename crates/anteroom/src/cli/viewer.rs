//! `anteroom viewer`: renews or revokes the end user's link.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::client::Connection;
use super::sessions::{show, show_once, text};

/// The end user's link.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Create a new one-use link; earlier links are revoked, and what they opened is closed.
    Link(Options),
    /// Revoke all links and close what they opened, without creating a new one.
    Revoke(Options),
}

/// What both take.
#[derive(clap::Args)]
pub struct Options {
    /// The session's id.
    id: String,
    #[command(flatten)]
    connection: Connection,
}

/// `anteroom viewer …`.
pub fn run(command: &Command) -> Result<()> {
    match command {
        Command::Link(Options { id, connection }) => {
            let path = format!("/api/auth/session/{id}/viewer-link");
            let client = connection.open()?;
            let link = client.post(&path, &Value::Null)?;
            let shown = show_once(connection.json, &link, |link| {
                format!("open    {}\n", text(link, "viewerUrl"))
            });
            shown.with_context(|| {
                let again = client.command(&format!("viewer link {id}"));
                format!("the new link was not reported (`{again}` creates another)")
            })
        }
        Command::Revoke(Options { id, connection }) => {
            let client = connection.open()?;
            client.post(&format!("/api/auth/session/{id}/viewers/revoke"), &Value::Null)?;
            // One that has ended gets no new link.
            let session = client.get_json(&format!("/api/auth/session/{id}"))?;
            show(connection.json, &json!({ "revoked": id }), |_| {
                let again = client.command(&format!("viewer link {id}"));
                match session["state"] == "ended" {
                    true => "All links are revoked.\n".to_owned(),
                    false => format!("All links are revoked. `{again}` creates a new one.\n"),
                }
            })
        }
    }
}
