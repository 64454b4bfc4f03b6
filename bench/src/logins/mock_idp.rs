//! Mocks of the identity providers that the real CLIs sign in to: `demo/mock-idps/server.mjs`.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::certificates;
use crate::node_server::NodeServer;
use xtask::shell;

/// The host names that it answers for.
pub const HOSTS: [&str; 13] = [
    "github.com",
    "api.github.com",
    "auth.openai.com",
    "claude.ai",
    "claude.com",
    "platform.claude.com",
    "api.anthropic.com",
    "accounts.google.com",
    "oauth2.googleapis.com",
    "www.googleapis.com",
    "cloudcode-pa.googleapis.com",
    "codeassist.google.com",
    "play.googleapis.com",
];

/// The certificate that it shows.
#[derive(Clone, Copy)]
pub struct Certificate {
    /// For these names.
    pub hosts: &'static [&'static str],
    /// Valid from this time on.
    pub from: SystemTime,
}

impl Default for Certificate {
    fn default() -> Self {
        Self { hosts: &HOSTS, from: UNIX_EPOCH }
    }
}

/// A running mock identity provider.
pub struct MockIdp {
    server: NodeServer,
    seen: RefCell<Vec<Value>>,
    authority: PathBuf,
    authority_pem: String,
}

impl MockIdp {
    /// Makes an authority and certificates in `folder` and starts it.
    pub fn start(folder: &Path) -> Result<Self> {
        Self::start_with(folder, &Certificate::default(), "")
    }

    /// The same with a certificate that may not do, and a fault of the server's unless it is empty.
    pub fn start_with(folder: &Path, certificate: &Certificate, fault: &str) -> Result<Self> {
        let Certificate { hosts, from } = *certificate;
        let authority_pem = certificates::make_valid_from(folder, "mock-idp", hosts, from)?;
        let authority = folder.join("authority.pem");
        std::fs::write(&authority, &authority_pem)?;
        let mut command = Command::new("node");
        command
            .arg(shell::root().join("demo/mock-idps/server.mjs"))
            .arg("--cert")
            .arg(folder.join("mock-idp.pem"))
            .arg("--key")
            .arg(folder.join("mock-idp.key"))
            .args(["--fault", fault]);
        let server = NodeServer::start(&mut command, &folder.join("mock-idp.log"))
            .context("starting the mock identity provider failed")?;
        Ok(Self { server, seen: RefCell::default(), authority, authority_pem })
    }

    /// Ends it: its port is closed then.
    pub fn stop(&mut self) -> Result<()> {
        self.server.stop()
    }

    /// A shipped provider whose hosts lead to the mock identity provider, by names and a certificate authority
    /// alone; `then` is a shell command that runs after the CLI, which is not changed.
    pub fn provider(&self, name: &str, then: &str) -> Result<String> {
        let path = shell::root().join(format!("providers/{name}.toml"));
        let mut provider: toml::Table = std::fs::read_to_string(path)?.parse()?;
        let map: Vec<toml::Value> = HOSTS
            .iter()
            .map(|host| {
                let to = format!("127.0.0.1:{}", self.server.port);
                toml::Table::from_iter([
                    ("host".to_owned(), (*host).into()),
                    ("to".to_owned(), to.into()),
                ])
                .into()
            })
            .collect();
        let egress = provider["egress"].as_table_mut().context("egress is missing")?;
        egress.insert("map".to_owned(), map.into());
        egress.insert("extra_ca_pem".to_owned(), self.authority_pem.clone().into());
        if !then.is_empty() {
            for login in provider["login"].as_array_mut().into_iter().flatten() {
                let command = login["command"].as_array().context("command is missing")?;
                let arguments: Vec<&str> = command.iter().filter_map(toml::Value::as_str).collect();
                let line = format!("{}; {then}", arguments.join(" "));
                let wrapped = vec!["sh".to_owned(), "-c".to_owned(), line];
                login.as_table_mut().context("a login is not a table")?["command"] = wrapped.into();
            }
        }
        Ok(toml::to_string(&provider)?)
    }

    /// Signs in where the end user likes; the code that the last page shows.
    pub fn visit(&self, url: &str) -> Result<String> {
        let mut visit = Command::new("node");
        visit.arg(shell::root().join("demo/mock-idps/visit.mjs")).args(["--url", url]);
        visit
            .args(["--port", &self.server.port.to_string()])
            .arg("--authority")
            .arg(&self.authority);
        Ok(shell::output(&mut visit)?.trim().to_owned())
    }

    /// What was called.
    pub fn called(&self) -> Vec<String> {
        self.reported("called")
    }

    /// SHA-256 of each token that it issued and that a tool keeps.
    pub fn issued(&self) -> Vec<String> {
        self.reported("refresh_sha256")
    }

    /// SHA-256 of the tokens that it was called with, call by call.
    pub fn used(&self) -> Vec<String> {
        self.reported("used_sha256")
    }

    /// Has a tool on this machine find every host here, and trust it.
    pub fn lead(&self, tool: &mut Command) {
        tool.env("HTTPS_PROXY", format!("http://127.0.0.1:{}", self.server.first["proxy"]));
        for name in ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"] {
            tool.env(name, &self.authority);
        }
    }

    fn reported(&self, field: &str) -> Vec<String> {
        let mut seen = self.seen.borrow_mut();
        seen.extend(self.server.lines.try_iter());
        seen.iter().filter_map(|line| line[field].as_str().map(str::to_owned)).collect()
    }
}
