//! `anteroom keys`: API keys of a controller that runs.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anteroom_controller::COMMAND_LINE;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::client::Connection;
use super::output;
use super::sessions::{show, show_once, text};
use super::table::table;

/// API keys. These commands require a key with the role `admin`; on the controller's own machine the
/// command line has one.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Create a key.
    Add(Add),
    /// List the keys with their roles, and when they were created and last used.
    List(List),
    /// Replace a key; the old one is revoked immediately, and what it opened is closed.
    Rotate(Rotate),
    /// Revoke a key immediately, and close what it opened.
    Revoke(Revoke),
}

/// What `keys add` takes.
#[derive(clap::Args)]
pub struct Add {
    /// A name, such as that of the service that will use it.
    name: String,
    /// Let the key manage keys.
    #[arg(long)]
    admin: bool,
    #[command(flatten)]
    key: NewKey,
}

/// What `keys list` takes.
#[derive(clap::Args)]
pub struct List {
    #[command(flatten)]
    connection: Connection,
}

/// What `keys rotate` takes.
#[derive(clap::Args)]
pub struct Rotate {
    /// The name of the key.
    name: String,
    #[command(flatten)]
    key: NewKey,
}

/// Where a key that was created goes.
#[derive(clap::Args)]
struct NewKey {
    /// Write the key to this file, readable only by its owner, instead of printing it.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// With -o: replace an existing file.
    #[arg(long, requires = "output")]
    force: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What `keys revoke` takes.
#[derive(clap::Args)]
pub struct Revoke {
    /// The name of the key.
    name: String,
    #[command(flatten)]
    connection: Connection,
}

/// `anteroom keys …`.
pub fn run(command: &Command) -> Result<()> {
    match command {
        Command::Add(Add { name, admin, key }) => {
            let role = if *admin { "admin" } else { "caller" };
            key.create("/api/keys", &json!({ "name": name, "role": role }))
        }
        Command::Rotate(Rotate { name, key }) => {
            // The command line's own key is in its file already.
            key.create(&format!("/api/keys/{}/rotate", segment(name)), &Value::Null)
        }
        Command::Revoke(Revoke { name, connection }) => {
            let client = connection.open()?;
            if name == COMMAND_LINE && client.has_own_key() {
                bail!(
                    "{name} is the key that this command line uses itself; replace it with `anteroom keys rotate {name}`"
                );
            }
            client.delete(&format!("/api/keys/{}", segment(name)))?;
            show(connection.json, &json!({ "revoked": name }), |_| {
                format!("The key {name} is revoked.\n")
            })
        }
        Command::List(List { connection }) => {
            let keys = connection.open()?.get_json("/api/keys")?;
            show(connection.json, &keys, for_people)
        }
    }
}

impl NewKey {
    /// Has it created by this call; the controller gives it this once.
    fn create(&self, path: &str, body: &Value) -> Result<()> {
        if let Some(path) = &self.output {
            output::check(path, self.force)?;
        }
        let client = self.connection.open()?;
        let key = client.post(path, body)?;
        self.show(&key).with_context(|| {
            let name = text(&key, "name");
            let rotate = client.command(&format!("keys rotate {name}"));
            format!("the key {name} was created, but not reported (`{rotate}` replaces it)")
        })
    }

    fn show(&self, key: &Value) -> Result<()> {
        let Some(path) = &self.output else {
            return show_once(self.connection.json, key, |key| format!("{}\n", text(key, "key")));
        };
        output::write(path, format!("{}\n", text(key, "key")).as_bytes(), self.force)?;
        let written = json!({ "name": key["name"], "role": key["role"], "path": path });
        show(self.connection.json, &written, |_| format!("The key is in {}\n", path.display()))
    }
}

fn for_people(keys: &Value) -> String {
    let row = |key: &Value| {
        let time = |field: &str| key[field].as_u64().map(time).unwrap_or("never".to_owned());
        let of = |field: &str| text(key, field).to_owned();
        [of("name"), of("role"), time("createdAt"), time("lastUsedAt")]
    };
    let rows = keys.as_array().into_iter().flatten().map(row);
    table(["NAME", "ROLE", "CREATED", "LAST USED"], rows)
}

fn time(millis: u64) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    humantime::format_rfc3339_seconds(at).to_string()
}

/// A name as a part of a path. The controller says what a name may be.
fn segment(name: &str) -> String {
    url::form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>().replace('+', "%20")
}
