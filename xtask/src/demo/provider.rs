//! The local OpenID provider: npm's `oidc-provider` with a certificate of this run's own authority.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::certificates;
use crate::shell;

/// The name that the guest knows the provider by.
pub const HOST: &str = "accounts.anteroom.test";
/// The one account.
pub const USER: &str = "ada@example.com";
/// Its password.
pub const PASSWORD: &str = "correct horse";

/// The running provider.
pub struct OpenIdProvider {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
    /// TCP port on 127.0.0.1.
    pub port: u16,
    /// PEM of the authority that signed its certificate.
    pub authority_pem: String,
}

/// What the provider saw.
#[derive(Debug, Default)]
pub struct Saw {
    /// Hashes of the tokens that it issued.
    pub issued: Vec<Value>,
    /// Whether the guest's browser took itself for online (`navigator.onLine`) at the last sign-in.
    pub online: Option<bool>,
    /// What the page of the long run reported.
    pub soak: Vec<Value>,
}

impl OpenIdProvider {
    /// Makes an authority and a certificate in `folder` and starts the provider.
    pub fn start(folder: &Path) -> Result<Self> {
        let authority_pem = certificates::make(folder, "provider", &[HOST])
            .context("making the provider's certificates failed")?;
        // It warns of what does not matter here: a store in memory, a Node that is not the newest.
        let log = folder.join("provider.log");
        let complaints = File::create(&log).context("making the provider's log failed")?;
        let mut child = Command::new("node")
            .arg(shell::root().join("demo/oidc-provider/server.mjs"))
            .args(["--host", "127.0.0.1", "--port", "0", "--issuer", &format!("https://{HOST}")])
            .arg("--cert")
            .arg(folder.join("provider.pem"))
            .arg("--key")
            .arg(folder.join("provider.key"))
            .args(["--user", USER, "--password", PASSWORD])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(complaints)
            .spawn()
            .context("starting the OpenID provider failed")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the provider has no output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Ok(value) = serde_json::from_str(&line)
                    && sender.send(value).is_err()
                {
                    return;
                }
            }
        });
        let mut provider = Self { child, stdin, lines, port: 0, authority_pem };
        let first = provider.lines.recv_timeout(Duration::from_secs(30));
        let first = first.with_context(|| {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            format!("the OpenID provider did not start within 30 s; it said: {}", said.trim())
        })?;
        match first["port"].as_u64().and_then(|port| u16::try_from(port).ok()) {
            Some(port) => provider.port = port,
            None => bail!("the OpenID provider said {first} instead of its port"),
        }
        Ok(provider)
    }

    /// Ends it; what it saw.
    pub fn stop(&mut self) -> Result<Saw> {
        self.stdin.take();
        self.child.wait().context("waiting for the provider's end failed")?;
        let mut saw = Saw::default();
        for line in self.lines.iter() {
            saw.issued.extend(line.get("issued").cloned());
            saw.soak.extend(line.get("soak").cloned());
            saw.online = line["login"]["online"].as_bool().or(saw.online);
        }
        Ok(saw)
    }
}

impl Drop for OpenIdProvider {
    fn drop(&mut self) {
        self.stdin.take();
        let _ = self.child.wait();
    }
}
