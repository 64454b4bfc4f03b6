//! The local OpenID provider: npm's `oidc-provider` with a certificate of this run's own authority.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use xtask::{build, interrupt, machine, shell};

use crate::certificates;
use anteroom_testkit::end_user::{PASSWORD, USER};

use crate::node_server::NodeServer;

/// The name that the guest knows the provider by.
pub const HOST: &str = "accounts.anteroom.test";

/// How long ago its certificate became valid.
const CERTIFIED: Duration = Duration::from_secs(3600);

/// The running provider.
pub struct OpenIdProvider {
    server: NodeServer,
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

/// Runs the demo's OpenID provider until Ctrl-C, for a controller that somebody starts by hand.
pub fn serve() -> Result<()> {
    machine::prepare()?;
    build::install_node_packages(&shell::root().join("demo"))?;
    let folder = tempfile::Builder::new().prefix("xtask-provider-").tempdir()?;
    let mut provider = OpenIdProvider::start(folder.path())?;
    let providers = shell::root().join("target/demo/providers");
    std::fs::create_dir_all(&providers)?;
    std::fs::write(providers.join("demo.toml"), provider_file(&provider)?)?;
    eprintln!(
        "\nThe demo's OpenID provider runs as {} on port {}. Start the controller with\n\n    \
         target/release/anteroom serve --providers target/demo/providers\n\n\
         and sign in as {} with the password {}. Ctrl-C ends the provider.",
        HOST, provider.port, USER, PASSWORD
    );
    while interrupt::check().is_ok() {
        std::thread::sleep(Duration::from_millis(200));
    }
    std::fs::remove_dir_all(&providers)?;
    provider.stop()?;
    Ok(())
}

impl OpenIdProvider {
    /// Makes an authority and a certificate in `folder` and starts the provider.
    pub fn start(folder: &Path) -> Result<Self> {
        Self::start_by(folder, None)
    }

    /// The same, and the way to its sign-in page leads over another host, which is the same server.
    pub fn start_by(folder: &Path, by: Option<&str>) -> Result<Self> {
        let hosts: Vec<&str> = [HOST].into_iter().chain(by).collect();
        // As a real one's: whose clock is behind by more takes it for one of the future.
        let from = SystemTime::now() - CERTIFIED;
        let authority_pem = certificates::make_valid_from(folder, "provider", &hosts, from)
            .context("making the provider's certificates failed")?;
        let mut command = Command::new("node");
        command
            .arg(shell::root().join("demo/oidc-provider/server.mjs"))
            .args(["--host", "127.0.0.1", "--port", "0", "--issuer", &format!("https://{HOST}")])
            .arg("--cert")
            .arg(folder.join("provider.pem"))
            .arg("--key")
            .arg(folder.join("provider.key"))
            .args(["--user", USER, "--password", PASSWORD])
            .args(by.into_iter().flat_map(|host| ["--by", host]));
        // It warns of what does not matter here: a store in memory, a Node that is not the newest.
        let server = NodeServer::start(&mut command, &folder.join("provider.log"))
            .context("starting the OpenID provider failed")?;
        let port = server.port;
        Ok(Self { server, port, authority_pem })
    }

    /// Ends it; what it saw.
    pub fn stop(&mut self) -> Result<Saw> {
        self.server.stop()?;
        let mut saw = Saw::default();
        for line in self.server.lines.iter() {
            saw.issued.extend(line.get("issued").cloned());
            saw.soak.extend(line.get("soak").cloned());
            saw.online = line["login"]["online"].as_bool().or(saw.online);
        }
        Ok(saw)
    }
}

/// The demo's provider file, with the way to `provider` in it.
pub fn provider_file(provider: &OpenIdProvider) -> Result<String> {
    let shipped = std::fs::read_to_string(shell::root().join("providers/demo.toml"))?;
    let port = provider.port;
    let authority = &provider.authority_pem;
    Ok(format!(
        "{shipped}extra_ca_pem = '''\n{authority}'''\n\n\
         [[egress.map]]\nhost = \"{HOST}\"\nport = 443\nto = \"127.0.0.1:{port}\"\n"
    ))
}

/// The same with a CLI that only opens `url`.
pub fn provider_file_opening(provider: &OpenIdProvider, url: &str) -> Result<String> {
    let command = format!(r#"["sh", "-c", "xdg-open {url}; exec sleep 1000000"]"#);
    let file = provider_file(provider)?;
    let changed = file.replace(r#"["demo-login", "login"]"#, &command);
    if changed == file {
        bail!("providers/demo.toml has no command that could be replaced");
    }
    Ok(changed)
}
