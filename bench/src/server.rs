//! The controller of the demo, and its API as a caller sees it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::provider::{HOST, OpenIdProvider};
use xtask::{interrupt, shell};

/// A running `anteroom serve`.
pub struct Server {
    child: Child,
    url: String,
    key: String,
    media: SocketAddr,
    agent: ureq::Agent,
    /// The demo's CLI where the host driver finds it; gone when this is.
    programs: Option<tempfile::TempDir>,
}

/// A session that was started.
pub struct Started {
    /// Its id.
    pub id: String,
    /// The one-use link for the person.
    pub viewer_url: String,
}

/// A sealed credential as its caller gets it.
pub struct Sealed {
    /// An age file.
    pub bytes: Vec<u8>,
    /// What may come out of it.
    pub envelope: Vec<u8>,
    /// The key of the controller that says so.
    pub key: Vec<u8>,
}

/// How long the controller may take to be ready.
const READY: Duration = Duration::from_secs(30);

/// How often the API is asked while waiting. Events would be nicer; this client has none.
const ASK_EVERY: Duration = Duration::from_millis(200);

impl Server {
    /// Starts it on free ports, its state in `folder`, with a provider file that maps the issuer's
    /// name to `provider`; `options` are further ones of `serve`.
    pub fn start(
        anteroom: &Path,
        folder: &Path,
        provider: &OpenIdProvider,
        driver: &str,
        options: &[&str],
    ) -> Result<Self> {
        Self::start_with(anteroom, folder, &provider_file(provider)?, driver, options)
    }

    /// The same with this provider file.
    pub fn start_with(
        anteroom: &Path,
        folder: &Path,
        provider_file: &str,
        driver: &str,
        options: &[&str],
    ) -> Result<Self> {
        let providers = folder.join("providers");
        std::fs::create_dir(&providers)?;
        std::fs::write(providers.join("demo.toml"), provider_file)?;
        let programs = programs_for_host_driver(driver)?;
        let mut command = Command::new(anteroom);
        if let Some(programs) = &programs {
            let usual = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{}:{usual}", programs.path().display()));
        }
        command
            .args(["serve", "--driver", driver])
            .arg("--providers")
            .arg(&providers)
            .args(["--operator-name", "the demo on this machine"])
            .args(options);
        Self::run(command, folder, programs)
    }

    /// Starts one whose rooms are a fake guest on this host, as many as are asked for.
    pub fn with_fake_guest(anteroom: &Path, folder: &Path, guest: &Path) -> Result<Self> {
        Self::with_fake_guest_and(anteroom, folder, guest, &[])
    }

    /// The same with further options of `serve`.
    pub fn with_fake_guest_and(
        anteroom: &Path,
        folder: &Path,
        guest: &Path,
        options: &[&str],
    ) -> Result<Self> {
        let mut command = Command::new(anteroom);
        command.args(["serve", "--driver", "host", "--max-sessions", "1000", "--agent"]).arg(guest);
        command.args(options);
        Self::run(command, folder, None)
    }

    fn run(
        mut command: Command,
        folder: &Path,
        programs: Option<tempfile::TempDir>,
    ) -> Result<Self> {
        let ready_file = folder.join("ready.json");
        let log = std::fs::File::create(folder.join("serve.log"))?;
        let child = command
            .args(["--listen", "127.0.0.1:0"])
            .arg("--state-dir")
            .arg(folder.join("state"))
            .arg("--ready-file")
            .arg(&ready_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting the controller failed")?;
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build()
            .into();
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let mut server =
            Self { child, url: String::new(), key: String::new(), media: nowhere, agent, programs };
        let ready = server.wait_for_ready(&ready_file, folder)?;
        server.url = text(&ready, "url")?;
        server.key = text(&ready, "apiKey")?;
        server.media = text(&ready, "media")?.parse()?;
        Ok(server)
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// An API key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Where media comes in.
    pub fn media(&self) -> SocketAddr {
        self.media
    }

    /// The controller's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_for_ready(&mut self, file: &Path, folder: &Path) -> Result<Value> {
        let started = Instant::now();
        loop {
            // Written in one piece (rename), so it is whole when it is there.
            if let Ok(content) = std::fs::read(file) {
                return serde_json::from_slice(&content)
                    .context("reading the controller's ready file failed");
            }
            if let Some(status) = self.child.try_wait()? {
                let log = std::fs::read_to_string(folder.join("serve.log")).unwrap_or_default();
                bail!("the controller ended at once ({status}): {}", log.trim());
            }
            if started.elapsed() > READY {
                bail!("the controller was not ready within {} s", READY.as_secs());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts a session of the demo provider.
    pub fn start_session(&self, recipient: &str, ttl_seconds: u64) -> Result<Started> {
        let body = json!({ "provider": "demo", "recipient": recipient, "ttlSeconds": ttl_seconds });
        self.begin(&body)
    }

    /// Tries to start a session of the demo provider: status and body of the answer.
    pub fn try_start(&self, recipient: &str, ttl_seconds: u64) -> Result<(u16, Value)> {
        let body = json!({ "provider": "demo", "recipient": recipient, "ttlSeconds": ttl_seconds });
        let mut answer = self.post_start(&body)?;
        Ok((answer.status().as_u16(), answer.body_mut().read_json()?))
    }

    fn post_start(&self, body: &Value) -> Result<ureq::http::Response<ureq::Body>> {
        self.agent
            .post(format!("{}/api/auth/start", self.url))
            .header("Authorization", format!("Bearer {}", self.key))
            .send_json(body)
            .context("starting a session failed")
    }

    /// Starts one whose credential is sealed to the vault.
    pub fn start_session_without_recipient(&self) -> Result<Started> {
        self.begin(&json!({ "provider": "demo" }))
    }

    /// Starts a session as the body says.
    pub fn begin(&self, body: &Value) -> Result<Started> {
        let answer = self.post_start(body)?.body_mut().read_json::<Value>()?;
        let id = text(&answer, "sessionId")
            .with_context(|| format!("the controller answered {answer}"))?;
        Ok(Started { id, viewer_url: text(&answer, "viewerUrl")? })
    }

    /// The session as the API shows it.
    pub fn status(&self, id: &str) -> Result<Value> {
        let mut answer = self
            .agent
            .get(format!("{}/api/auth/session/{id}", self.url))
            .header("Authorization", format!("Bearer {}", self.key))
            .call()
            .context("asking for the session failed")?;
        answer.body_mut().read_json().context("reading the session failed")
    }

    /// Says that the person is there.
    pub fn start_tool(&self, id: &str) -> Result<()> {
        let mut answer = self
            .agent
            .post(format!("{}/api/auth/session/{id}/start-tool", self.url))
            .header("Authorization", format!("Bearer {}", self.key))
            .send_empty()
            .context("having the tool started failed")?;
        if answer.status() != 202 {
            bail!("the tool was not started: {}", answer.body_mut().read_to_string()?);
        }
        Ok(())
    }

    /// Brings the code that the last page of a sign-in shows.
    pub fn enter_code(&self, id: &str, code: &str) -> Result<()> {
        let mut answer = self
            .agent
            .post(format!("{}/api/auth/session/{id}/code", self.url))
            .header("Authorization", format!("Bearer {}", self.key))
            .send_json(json!({ "code": code }))
            .context("bringing the code failed")?;
        if answer.status() != 202 {
            bail!("the code was refused: {}", answer.body_mut().read_to_string()?);
        }
        Ok(())
    }

    /// The sealed credential, and what it is opened with beside its identity.
    pub fn credential(&self, id: &str) -> Result<Sealed> {
        let bytes = self.bytes(id, "credentials").context("fetching the credential failed")?;
        let envelope = self.bytes(id, "credentials/envelope").context("fetching its envelope")?;
        let key = self.get("/api/credentials/key").context("fetching the controller's key")?;
        Ok(Sealed { bytes, envelope, key })
    }

    /// A picture of the desktop: PNG.
    pub fn screenshot(&self, id: &str) -> Result<Vec<u8>> {
        self.bytes(id, "screenshot").context("taking a picture failed")
    }

    /// What its console and services said.
    pub fn logs(&self, id: &str) -> Result<String> {
        let bytes = self.bytes(id, "logs").context("fetching the logs failed")?;
        String::from_utf8(bytes).context("the logs are no text")
    }

    fn bytes(&self, id: &str, what: &str) -> Result<Vec<u8>> {
        self.get(&format!("/api/auth/session/{id}/{what}"))
    }

    fn get(&self, path: &str) -> Result<Vec<u8>> {
        let mut answer = self
            .agent
            .get(format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {}", self.key))
            .call()?;
        if answer.status() != 200 {
            bail!("{}", answer.body_mut().read_to_string().unwrap_or_default());
        }
        Ok(answer.body_mut().read_to_vec()?)
    }

    /// Milliseconds from the start call to the agent's first words.
    pub fn wait_until_agent(&self, id: &str, at_most: Duration) -> Result<u64> {
        let connected = |status: &Value| {
            let timeline = status["timeline"].as_array()?;
            timeline.iter().find(|entry| entry["kind"] == "agent_connected")?["at"].as_u64()
        };
        let done = |status: &Value| connected(status).is_some() || status["state"] == "ended";
        let status = self.wait_until(id, at_most, "reached its agent", done)?;
        match (connected(&status), status["createdAt"].as_u64()) {
            (Some(at), Some(created)) => Ok(at.saturating_sub(created)),
            _ => bail!("the session ended before: {}", status["reason"]["message"]),
        }
    }

    /// Ends a session.
    pub fn cancel(&self, id: &str) -> Result<()> {
        self.agent
            .post(format!("{}/api/auth/session/{id}/cancel", self.url))
            .header("Authorization", format!("Bearer {}", self.key))
            .send_empty()
            .context("cancelling a session failed")?;
        Ok(())
    }

    /// Waits until the session has ended, however it did.
    pub fn wait_until_ended(&self, id: &str, at_most: Duration) -> Result<Value> {
        self.wait_until(id, at_most, "ended", |status| status["state"] == "ended")
    }

    /// Waits until its VM is destroyed and the machine was looked at.
    pub fn wait_until_torn_down(&self, id: &str, at_most: Duration) -> Result<Value> {
        self.wait_until(id, at_most, "been demolished", |status| status["teardown"] == "torn_down")
    }

    /// Waits until the session is as wanted.
    pub fn wait_until(
        &self,
        id: &str,
        at_most: Duration,
        what: &str,
        done: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let started = Instant::now();
        loop {
            let status = self.status(id)?;
            if done(&status) {
                return Ok(status);
            }
            interrupt::check()?;
            if started.elapsed() > at_most {
                bail!(
                    "the session has not {what} within {} s; it is {}",
                    at_most.as_secs(),
                    status["state"]
                );
            }
            std::thread::sleep(ASK_EVERY);
        }
    }

    /// Ends it in order: it ends its sessions first.
    pub fn stop(&mut self) -> Result<()> {
        let pid = self.child.id().to_string();
        shell::output(Command::new("kill").args(["-TERM", &pid]))?;
        self.child.wait().context("waiting for the controller's end failed")?;
        self.programs.take();
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ctrl-C reached it too; whatever happened here, it must be gone before its folder is.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.stop();
        }
    }
}

/// A guest has the demo CLI from its image; the host driver finds it in a folder of the PATH, readable
/// by the unprivileged user that its rooms run as.
fn programs_for_host_driver(driver: &str) -> Result<Option<tempfile::TempDir>> {
    use std::os::unix::fs::PermissionsExt;
    if driver != "host" {
        return Ok(None);
    }
    let folder = tempfile::Builder::new().prefix("xtask-programs-").tempdir()?;
    let everyone = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), everyone.clone())?;
    let program = folder.path().join("demo-login");
    std::fs::copy(shell::root().join("demo/cli/demo-login"), &program)?;
    std::fs::set_permissions(&program, everyone)?;
    Ok(Some(folder))
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

fn text(value: &Value, field: &str) -> Result<String> {
    value[field].as_str().map(str::to_owned).with_context(|| format!("{field} is missing"))
}
