//! `anteroom credentials`: a sealed credential on the machine that is to use it.
//!
//! What comes out of one is what the controller's envelope names (crate `vault`); [`place`] puts it
//! into a home and [`keyring`] into a keyring, [`fetch`] brings it from a controller, [`receive`] does all of it.

mod fetch;
mod keyring;
mod place;
mod receive;
mod trust;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anteroom_guest_protocol::ForeignText;
use anteroom_private::quoted;
use anteroom_vault::{Bundle, Envelope, MAX_ENVELOPE, open_bundle};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

pub use fetch::{check_output, fetch};

use super::client::Connection;
use super::folders::StateDir;
use super::sessions::{show, text};
use crate::counted::counted;
use place::Placing;

/// The largest sealed file read, in bytes.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Sealed credentials.
#[derive(clap::Subcommand)]
pub enum Credentials {
    /// Open a sealed credential and write its files to a home directory, where the tool finds them.
    Open(Open),
    /// Receive a credential on the machine that will use it: create a key, start a sign-in (or wait
    /// for one), and write the files to the home directory.
    ///
    /// The key stays on this machine (see --identity), so the same sealed credential can be opened again.
    Receive(receive::Receive),
    /// Fetch a session's sealed credential and the envelope that `credentials open` needs.
    Get(Get),
    /// Print the controller's public key, which verifies envelopes on machines that do not call it.
    Key(Key),
}

/// What `credentials open` takes.
#[derive(clap::Args)]
pub struct Open {
    /// The sealed credential, as `auth start -o` or `credentials get` wrote it.
    file: PathBuf,
    /// Show what is in it and write nothing; with --home, also where it would go.
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    into: Into,
    /// The controller's envelope [default: FILE.envelope.json].
    #[arg(long, value_name = "FILE")]
    envelope: Option<PathBuf>,
    /// The public key of the controller that signed the envelope, as `credentials key` prints it
    /// [default: the keys of this machine's controller and of those that were called from here].
    #[arg(long, value_name = "FILE")]
    controller_key: Option<PathBuf>,
    /// The age identity (a key file as age-keygen writes it) that it was sealed to [default: that of this
    /// machine's vault, or your own, which `credentials receive` created].
    #[arg(long, short, value_name = "FILE")]
    identity: Option<PathBuf>,
    #[command(flatten)]
    state: StateDir,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Where a credential goes.
#[derive(clap::Args)]
pub struct Into {
    /// The home directory [default: your own].
    #[arg(long, value_name = "FOLDER")]
    home: Option<PathBuf>,
    /// Replace existing files.
    #[arg(long)]
    force: bool,
}

/// What `credentials get` takes.
#[derive(clap::Args)]
pub struct Get {
    /// The session's id.
    id: String,
    /// Where to write the sealed credential; the envelope goes to FILE.envelope.json.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Replace existing files.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What `credentials key` takes.
#[derive(clap::Args)]
pub struct Key {
    #[command(flatten)]
    connection: Connection,
}

/// `anteroom credentials …`.
pub fn run(command: &Credentials) -> Result<()> {
    match command {
        Credentials::Open(options) => open(options),
        Credentials::Receive(options) => receive::run(options),
        Credentials::Get(options) => get(options),
        Credentials::Key(options) => {
            let key = fetch::controller_key(&options.connection.open()?)?;
            let reported = json!({ "id": key.id(), "pem": key.pem() });
            show(options.connection.json, &reported, |reported| text(reported, "pem").to_owned())
        }
    }
}

fn get(options: &Get) -> Result<()> {
    check_output(&options.output, options.force)?;
    let fetched = fetch(&options.connection.open()?, &options.id)?;
    fetched.save(&options.output, options.force)?;
    let envelope = fetch::beside(&options.output);
    let reported = json!({ "file": options.output, "envelope": envelope });
    show(options.connection.json, &reported, |_| {
        let path = options.output.display();
        let open = quoted(&options.output);
        format!("Wrote {path} and its envelope. To use it: anteroom credentials open {open}\n")
    })
}

fn open(options: &Open) -> Result<()> {
    let sealed = read_sealed(&options.file)?;
    let state_dir = options.state.path();
    let envelope = read_envelope(options, &state_dir)?;
    let identity = match &options.identity {
        Some(path) => trust::read(path)?,
        None => trust::identity_for(&envelope.statement().recipient, &state_dir)?,
    };
    let bundle = open_bundle(&sealed, &identity, &envelope)
        .with_context(|| format!("{} was not opened", options.file.display()))?;
    if options.list {
        let home = options.into.home.is_some().then(|| options.into.home()).transpose()?;
        return report(&bundle, &envelope, home.as_deref(), options.json);
    }
    // Whoever interrupts it now gets all of it or nothing.
    let interrupted = super::interrupts()?;
    let home = options.into.home()?;
    restore(&bundle, &home, options.into.force, &interrupted)?;
    report(&bundle, &envelope, Some(&home), options.json)
}

fn read_sealed(path: &Path) -> Result<Vec<u8>> {
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "{} does not exist; pass the file that `auth start -o` or `credentials get -o` wrote",
            path.display()
        ),
        read => read.with_context(|| format!("reading {} failed", path.display()))?,
    };
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        bail!("{} is not a sealed credential: it is not a file, or too large", path.display());
    }
    std::fs::read(path).with_context(|| format!("reading {} failed", path.display()))
}

fn read_envelope(options: &Open, state_dir: &Path) -> Result<Envelope> {
    let path = options.envelope.clone().unwrap_or_else(|| fetch::beside(&options.file));
    let json = match anteroom_private::read_text_or_pipe(&path, MAX_ENVELOPE as u64) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "the envelope {} does not exist: what came from a sandbox is opened only with the controller's signed envelope; `anteroom credentials get SESSION -o FILE` fetches both, or pass the envelope with --envelope",
            path.display()
        ),
        read => read.with_context(|| format!("reading {} failed", path.display()))?,
    };
    let trusted = trust::trusted_keys(options.controller_key.as_deref(), state_dir)?;
    Envelope::verify(json.as_bytes(), &trusted)
        .with_context(|| format!("the envelope {} was not accepted", path.display()))
}

impl Into {
    /// The home directory.
    fn home(&self) -> Result<PathBuf> {
        let home = match &self.home {
            Some(home) => home.clone(),
            None => {
                std::env::home_dir().context("there is no home directory; name one with --home")?
            }
        };
        std::path::absolute(&home).with_context(|| format!("finding {} failed", home.display()))
    }
}

/// Puts all of a bundle where it belongs, or nothing.
fn restore(bundle: &Bundle, home: &Path, force: bool, interrupted: &AtomicBool) -> Result<()> {
    let secrets = &bundle.secrets;
    if !secrets.is_empty() {
        keyring::unlock(interrupted)
            .with_context(|| format!("{} was not restored", keyring::named(secrets)))?;
    }
    let mut placing = Placing::prepare(&bundle.files, home, force)?;
    if secrets.is_empty() {
        placing.commit()?;
    } else {
        keyring::put(secrets, force, || placing.commit())?;
    }
    placing.keep();
    Ok(())
}

/// Says what is in a credential, or where it is now.
fn report(bundle: &Bundle, envelope: &Envelope, home: Option<&Path>, as_json: bool) -> Result<()> {
    let statement = envelope.statement();
    let files = bundle.files.iter().map(|file| {
        let path = home.map_or_else(|| PathBuf::from(&file.path), |home| home.join(&file.path));
        json!({ "path": path, "bytes": file.content.len() })
    });
    let secrets = bundle.secrets.iter().map(|secret| {
        let bytes = secret.secret.len();
        json!({ "label": secret.label, "attributes": secret.attributes, "bytes": bytes })
    });
    let reported = json!({
        "session": statement.session,
        "provider": statement.provider,
        "files": files.collect::<Vec<_>>(),
        "secrets": secrets.collect::<Vec<_>>(),
    });
    show(as_json, &reported, lines)
}

fn lines(reported: &Value) -> String {
    let list = |name: &str| reported[name].as_array().cloned().unwrap_or_default().into_iter();
    let line = |one: &Value, name: &str, before: &str| {
        let bytes = counted(one["bytes"].as_u64().unwrap_or_default(), "byte", "bytes");
        format!("{bytes:>13}  {before}{}\n", ForeignText::new(text(one, name)))
    };
    let files = list("files").map(|file| line(&file, "path", ""));
    let secrets = list("secrets").map(|secret| line(&secret, "label", "keyring: "));
    files.chain(secrets).collect()
}
