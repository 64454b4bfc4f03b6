//! `anteroom provider`: provider files, before `serve` uses them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anteroom_controller::load_providers;
use anteroom_provider::{Provider, ProviderError};
use anteroom_session::{Method, ProviderId};
use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::provider_test;
use super::sessions::{show, text};
use super::table::table;
use crate::counted::counted;
use crate::embedded;

/// Provider files.
#[derive(clap::Subcommand)]
pub enum Command {
    /// List the providers that `serve` would offer.
    List(List),
    /// Check provider files; each mistake is reported with its line and key.
    Check(Check),
    /// Test each sign-in method with the real tool in its own sandbox, up to the end user's turn.
    Test(provider_test::Test),
    /// Print the JSON Schema of provider files, for editors.
    Schema,
}

/// What `provider list` takes.
#[derive(clap::Args)]
pub struct List {
    /// A folder of provider files, in addition to the shipped ones.
    #[arg(long, value_name = "FOLDER", env = "ANTEROOM_PROVIDERS")]
    providers: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What `provider check` takes.
#[derive(clap::Args)]
pub struct Check {
    /// The files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON.
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
    let providers = load_providers(&embedded::providers(), options.providers.as_deref())?;
    let mut reported: Vec<Value> = providers.values().map(in_short).collect();
    reported.sort_by_key(|provider| text(provider, "id").to_owned());
    show(options.json, &json!(reported), |reported| {
        let row = |provider: &Value| {
            let methods = provider["methods"].as_array().into_iter().flatten();
            let methods: Vec<&str> = methods.filter_map(Value::as_str).collect();
            let [id, name, image] =
                ["id", "name", "image"].map(|field| text(provider, field).to_owned());
            [id, name, image, methods.join(", ")]
        };
        let rows = reported.as_array().into_iter().flatten().map(row);
        table(["PROVIDER", "NAME", "IMAGE", "METHODS"], rows)
    })
}

fn check(options: &Check) -> Result<()> {
    let mut by_id = BTreeMap::new();
    let checked: Vec<Value> =
        options.files.iter().map(|path| check_file(path, &mut by_id)).collect();
    let mistakes = |file: &Value| file["mistakes"].as_array().cloned().unwrap_or_default();
    let wrong = checked.iter().filter(|file| !mistakes(file).is_empty()).count();
    show(options.json, &json!(checked), |checked| {
        let files = checked.as_array().into_iter().flatten();
        let of_file = |file| match &mistakes(file)[..] {
            [] => format!("{} is valid: {}\n", text(file, "file"), text(file, "name")),
            mistakes => mistakes.iter().map(|one| format!("{}\n", text(one, "error"))).collect(),
        };
        files.map(of_file).collect()
    })?;
    match wrong {
        0 => Ok(()),
        1 if checked.len() == 1 => bail!("the file is not a valid provider file"),
        n => bail!("{n} of {} are not valid", counted(checked.len(), "file", "files")),
    }
}

/// What is wrong with a file, and whether its id is that of one beside it that was checked before.
fn check_file(path: &Path, by_id: &mut BTreeMap<(PathBuf, ProviderId), PathBuf>) -> Value {
    let name = path.display().to_string();
    let alone = |error: String| json!({ "file": name, "mistakes": [mistake(error, None, None)] });
    let file = match anteroom_private::read_text(path) {
        Ok(file) => file,
        Err(error) => return alone(format!("cannot read {name}: {error}")),
    };
    let (provider, wrong) = match Provider::parse_all(&name, &file) {
        Ok(parsed) => parsed,
        // Where a mistake of form is, is in the parser's own words.
        Err(error) => return alone(chain(&error)),
    };
    let mut mistakes: Vec<Value> = wrong.iter().map(of_value).collect();
    // A file of the operator's folder may have the id of a shipped one: it stands in for it.
    let place = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = place.parent().unwrap_or(Path::new("/")).to_owned();
    let other = by_id.insert((folder, provider.id.clone()), place.clone());
    if let Some(other) = other.filter(|other| *other != place) {
        let (id, other) = (&provider.id, other.display());
        mistakes.push(mistake(
            format!("{name}: id is {id}, which {other} also has"),
            None,
            Some("id"),
        ));
    }
    let mut reported = in_short(&provider);
    reported["file"] = json!(name);
    reported["mistakes"] = json!(mistakes);
    reported
}

fn of_value(error: &ProviderError) -> Value {
    match error {
        ProviderError::Value { line, key, .. } => {
            mistake(error.to_string(), Some(*line), Some(key))
        }
        ProviderError::Syntax { .. } => mistake(chain(error), None, None),
    }
}

fn mistake(error: String, line: Option<usize>, key: Option<&str>) -> Value {
    json!({ "error": error, "line": line, "key": key })
}

/// An error with what it comes from.
fn chain(error: &ProviderError) -> String {
    match error {
        ProviderError::Syntax { source, .. } => {
            format!("{error}: {}", source.to_string().trim_end())
        }
        ProviderError::Value { .. } => error.to_string(),
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
