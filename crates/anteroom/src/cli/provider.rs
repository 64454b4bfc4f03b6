//! `anteroom provider`: provider files, before `serve` takes them.

use std::path::{Path, PathBuf};

use anteroom_provider::{Provider, ProviderError};
use anteroom_session::Method;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::provider_test;
use super::sessions::{show, text};
use crate::controller::load_providers;

/// Provider files.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Lists the providers that `serve` would offer.
    List(List),
    /// Checks provider files; a file's first mistake is told with its line and key.
    Check(Check),
    /// Tries each way to sign in with the real tool, in a room of its own, as far as the person's turn.
    Test(provider_test::Test),
    /// Prints the JSON Schema of a provider file, for editors.
    Schema,
}

/// What `provider list` takes.
#[derive(clap::Args)]
pub struct List {
    /// A folder of provider files, beside those that come with Anteroom.
    #[arg(long, value_name = "FOLDER", env = "ANTEROOM_PROVIDERS")]
    providers: Option<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// What `provider check` takes.
#[derive(clap::Args)]
pub struct Check {
    /// The files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// `anteroom provider …`.
pub fn run(command: &Command) -> Result<()> {
    match command {
        Command::List(options) => list(options),
        Command::Check(options) => check(options),
        Command::Test(options) => provider_test::run(options),
        Command::Schema => {
            show(false, &json!(Provider::schema()), |schema| format!("{schema:#}\n"))
        }
    }
}

fn list(options: &List) -> Result<()> {
    let providers = load_providers(options.providers.as_deref())?;
    let mut told: Vec<Value> = providers.values().map(in_short).collect();
    told.sort_by_key(|provider| text(provider, "id").to_owned());
    show(options.json, &json!(told), |told| {
        let mut table = format!("{:<16}{:<20}{:<12}{}\n", "PROVIDER", "NAME", "IMAGE", "METHODS");
        for provider in told.as_array().into_iter().flatten() {
            let methods = provider["methods"].as_array().into_iter().flatten();
            let methods: Vec<&str> = methods.filter_map(Value::as_str).collect();
            table.push_str(&format!(
                "{:<16}{:<20}{:<12}{}\n",
                text(provider, "id"),
                text(provider, "name"),
                text(provider, "image"),
                methods.join(", ")
            ));
        }
        table
    })
}

fn check(options: &Check) -> Result<()> {
    let checked: Vec<Value> = options.files.iter().map(|path| check_file(path)).collect();
    let wrong = checked.iter().filter(|file| !file["error"].is_null()).count();
    show(options.json, &json!(checked), |checked| {
        let lines =
            checked.as_array().into_iter().flatten().map(|file| match file["error"].as_str() {
                Some(error) => format!("{error}\n"),
                None => format!("{} is fine: {}\n", text(file, "file"), text(file, "name")),
            });
        lines.collect()
    })?;
    match wrong {
        0 => Ok(()),
        n => bail!("{n} of {} files cannot be used", checked.len()),
    }
}

fn check_file(path: &Path) -> Value {
    let name = path.display().to_string();
    let read = std::fs::read_to_string(path).with_context(|| format!("reading {name} failed"));
    let parsed = read.and_then(|file| {
        Provider::parse(&name, &file).map_err(|error| {
            // Where a mistake of form is, is in the parser's own words.
            match &error {
                ProviderError::Syntax { source, .. } => {
                    anyhow::anyhow!("{error}: {}", source.to_string().trim_end())
                }
                ProviderError::Value { .. } => error.into(),
            }
        })
    });
    match parsed {
        Ok(provider) => {
            let mut told = in_short(&provider);
            told["file"] = json!(name);
            told
        }
        Err(error) => {
            let (line, key) = match error.downcast_ref::<ProviderError>() {
                Some(ProviderError::Value { line, key, .. }) => (json!(line), json!(key)),
                _ => (Value::Null, Value::Null),
            };
            json!({ "file": name, "error": format!("{error:#}"), "line": line, "key": key })
        }
    }
}

fn in_short(provider: &Provider) -> Value {
    let methods: Vec<Method> = provider.methods().collect();
    json!({
        "id": provider.id,
        "name": provider.name,
        "image": provider.image,
        "methods": methods,
        "hosts": provider.egress.allow,
    })
}
