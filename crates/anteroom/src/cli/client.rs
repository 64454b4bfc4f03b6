//! The API, as the command line calls it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anteroom_private::quoted;
use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use ureq::tls::{RootCerts, TlsConfig};

use super::folders::StateDir;
use super::own_controller::OwnController;

/// The longest line with a secret in it, in bytes.
const MAX_SECRET: u64 = 64 * 1024;

/// How commands find the controller.
#[derive(clap::Args)]
pub struct Connection {
    /// The controller's address [default: the controller on this machine].
    #[arg(long, env = "ANTEROOM_URL")]
    url: Option<String>,
    /// An API key [default: that of this machine's controller]. Prefer --api-key-file or the variable:
    /// every user of this machine can see arguments in the list of processes.
    #[arg(long, env = "ANTEROOM_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// A file with the API key; `-` is standard input.
    #[arg(long, value_name = "FILE", env = "ANTEROOM_API_KEY_FILE")]
    api_key_file: Option<PathBuf>,
    #[command(flatten)]
    state: StateDir,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// A connection to the controller.
pub struct Client {
    url: String,
    key: String,
    /// The file that the key is from, where it is that of this machine's controller.
    key_file: Option<PathBuf>,
    /// What a command says to find the same controller.
    found_by: String,
    agent: ureq::Agent,
}

impl Connection {
    /// Finds the controller.
    pub fn open(&self) -> Result<Client> {
        // An empty variable is as good as none.
        let given = |value: &Option<String>| {
            let value = value.as_deref().map(str::trim).filter(|value| !value.is_empty());
            value.map(str::to_owned)
        };
        let url = given(&self.url);
        if let Some(url) = &url {
            check_url(url, "given with --url or ANTEROOM_URL")?;
        }
        let key = match self.api_key_file.as_deref().filter(|file| !file.as_os_str().is_empty()) {
            Some(file) => Some(read_secret(file).context("cannot read the API key")?),
            None => given(&self.api_key),
        };
        if key.as_ref().is_some_and(|key| !key.bytes().all(|byte| byte.is_ascii_graphic())) {
            bail!(
                "the API key has a line break, a space or another character that no API key has; pass it as `anteroom keys add` printed it"
            );
        }
        let (url, key, key_file) = match (url, key) {
            (Some(url), Some(key)) => (url, key, None),
            // This machine's key is for this machine's controller only.
            (Some(url), None) => {
                bail!("{url} requires an API key: pass it with --api-key-file or ANTEROOM_API_KEY")
            }
            (None, key) => {
                let OwnController { path, url, key: own } =
                    OwnController::read(&self.state.path())?;
                check_url(&url, &format!("in {}", path.display()))?;
                let key_file = key.is_none().then_some(path);
                (url, key.unwrap_or(own), key_file)
            }
        };
        Ok(Client { key_file, ..Client::new(&url, &key).found_by(self.arguments()) })
    }

    /// The same for another command; but a key, which has no place in what is shown.
    fn arguments(&self) -> String {
        let url = self.url.as_ref().map(|url| ("url", Path::new(url)));
        let file = self.api_key_file.as_deref().map(|file| ("api-key-file", file));
        let folder = self.state.named().map(|folder| ("state-dir", folder));
        let given = [url, file, folder].into_iter().flatten();
        let given = given.filter(|(_, value)| !value.as_os_str().is_empty());
        given.map(|(name, value)| format!(" --{name} {}", quoted(value))).collect()
    }
}

/// Whether a controller can be at this address, which came from there.
fn check_url(url: &str, from: &str) -> Result<()> {
    let parsed = url::Url::parse(url).ok();
    if parsed.is_none_or(|url| !matches!(url.scheme(), "http" | "https") || !url.has_host()) {
        bail!(
            "the address {url:?} {from} must be http:// or https:// with a host, such as http://127.0.0.1:7070"
        );
    }
    Ok(())
}

/// A secret's one line, from a file, a pipe (another command's output, which is waited for) or (`-`)
/// standard input.
pub fn read_secret(path: &Path) -> Result<String> {
    let mut text = String::new();
    let what = match path.to_str() {
        Some("-") => "standard input".to_owned(),
        _ => path.display().to_string(),
    };
    if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_SECRET + 1).read_line(&mut text)?;
    } else {
        let file = std::fs::File::open(path).with_context(|| format!("opening {what} failed"))?;
        BufReader::new(file.take(MAX_SECRET + 1))
            .read_line(&mut text)
            .with_context(|| format!("reading {what} failed"))?;
    }
    if text.len() as u64 > MAX_SECRET {
        bail!("the first line of {what} is longer than {} KiB", MAX_SECRET / 1024);
    }
    let secret = text.trim();
    if secret.is_empty() {
        bail!("the first line of {what} is empty");
    }
    Ok(secret.to_owned())
}

impl Client {
    /// A client of the controller at an address, with one of its keys.
    pub fn new(url: &str, key: &str) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // An operator's own authority is known to the machine, not to Mozilla.
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .into();
        Self {
            url: url.trim_end_matches('/').to_owned(),
            key: key.to_owned(),
            key_file: None,
            found_by: String::new(),
            agent,
        }
    }

    /// With what a command says to find the same controller, such as ` --state-dir x`.
    pub fn found_by(self, found_by: String) -> Self {
        Self { found_by, ..self }
    }

    /// A command line that reaches the same controller, to be shown: `anteroom …`.
    pub fn command(&self, command: &str) -> String {
        format!("anteroom {command}{}", self.found_by)
    }

    /// The body of a GET.
    pub fn get(&self, path: &str) -> Result<Vec<u8>> {
        let request =
            self.agent.get(format!("{}{path}", self.url)).header("Authorization", self.bearer());
        self.body(request.call())
    }

    /// The same as JSON.
    pub fn get_json(&self, path: &str) -> Result<Value> {
        serde_json::from_slice(&self.get(path)?)
            .context("the controller's response is not valid JSON")
    }

    /// Posts JSON, nothing for null; the answer as JSON, or null when it is empty.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request =
            self.agent.post(format!("{}{path}", self.url)).header("Authorization", self.bearer());
        // A body that nobody reads may come after the answer; the connection is closed then, and the
        // next call on it fails.
        let answer = if body.is_null() { request.send_empty() } else { request.send_json(body) };
        let bytes = self.body(answer)?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).context("the controller's response is not valid JSON")
    }

    /// Deletes.
    pub fn delete(&self, path: &str) -> Result<()> {
        let request =
            self.agent.delete(format!("{}{path}", self.url)).header("Authorization", self.bearer());
        self.body(request.call()).map(drop)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.key)
    }

    fn body(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Vec<u8>> {
        let mut answer = answer.with_context(|| {
            format!("calling the controller at {} failed; is `anteroom serve` running?", self.url)
        })?;
        let status = answer.status();
        let body = answer.body_mut().with_config().limit(64 * 1024 * 1024).read_to_vec()?;
        if status.is_success() {
            return Ok(body);
        }
        if status == ureq::http::StatusCode::UNAUTHORIZED {
            return Err(self.refused());
        }
        let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
        match problem["detail"].as_str() {
            Some(detail) => bail!("{detail} ({})", problem["code"].as_str().unwrap_or_default()),
            None => bail!("the controller answered {status}"),
        }
    }

    /// Whether it has the command line's own key, of this machine's controller.
    pub fn has_own_key(&self) -> bool {
        self.key_file.is_some()
    }

    /// The key is not accepted.
    fn refused(&self) -> anyhow::Error {
        let url = &self.url;
        match &self.key_file {
            Some(file) => anyhow!(
                "the controller at {url} does not accept the API key in {}; restart the controller of that folder, which writes a new one, or pass the folder of the controller at {url} with --state-dir",
                file.display()
            ),
            None => anyhow!(
                "the controller at {url} does not accept this API key; pass another with --api-key-file or ANTEROOM_API_KEY, or, on the controller's own machine, pass its folder with --state-dir"
            ),
        }
    }
}
