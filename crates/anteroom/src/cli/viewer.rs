//! `anteroom viewer`: renews or revokes the end user's link.

use anyhow::Result;
use serde_json::{Value, json};

use super::client::Connection;
use super::sessions::{show, text};

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
            let link = connection.open()?.post(&path, &Value::Null)?;
            show(connection.json, &link, |link| format!("open    {}\n", text(link, "viewerUrl")))
        }
        Command::Revoke(Options { id, connection }) => {
            let path = format!("/api/auth/session/{id}/viewers/revoke");
            connection.open()?.post(&path, &Value::Null)?;
            show(connection.json, &json!({ "revoked": id }), |_| {
                format!("All links are revoked. `anteroom viewer link {id}` creates a new one.\n")
            })
        }
    }
}
