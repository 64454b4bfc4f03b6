//! The API, as its callers see it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::wait::PATIENCE;

/// How often the API is asked while waiting.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// A caller of one controller's API.
pub struct Api {
    url: String,
    key: String,
    http: ureq::Agent,
    /// Asked while waiting; its error ends that.
    go_on: fn() -> Result<()>,
}

/// An answer of any status.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: ureq::http::HeaderMap,
    /// The body, as it came.
    pub bytes: Vec<u8>,
    /// The same as JSON, or as a text where it is none.
    pub body: Value,
}

/// A session that was started.
pub struct Started {
    /// Its id.
    pub id: String,
    /// The one-use link for the end user.
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

impl Answer {
    /// Its body.
    ///
    /// # Errors
    /// With the body, when the status is another.
    pub fn expect(self, status: u16) -> Result<Self> {
        if self.status != status {
            bail!("it was answered {}: {}", self.status, self.body);
        }
        Ok(self)
    }
}

impl Api {
    /// A caller with this key.
    #[must_use]
    pub fn new(url: &str, key: &str) -> Self {
        let http = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        Self { url: url.to_owned(), key: key.to_owned(), http, go_on: || Ok(()) }
    }

    /// Gives up waiting when `go_on` fails.
    pub fn while_waiting(&mut self, go_on: fn() -> Result<()>) {
        self.go_on = go_on;
    }

    /// `http://127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The API key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// A GET with the key.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.get_with(path, &[("authorization", &self.bearer())])
    }

    /// A GET with these headers only.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let request = self.http.get(format!("{}{path}", self.url));
        let request = headers.iter().fold(request, |all, (name, value)| all.header(*name, *value));
        answer(request.call(), path)
    }

    /// A POST with the key.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn post(&self, path: &str, body: &str) -> Result<Answer> {
        self.post_with(path, body, &[("authorization", &self.bearer())])
    }

    /// A POST with these headers only.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn post_with(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let request = self.http.post(format!("{}{path}", self.url));
        let request = headers.iter().fold(request, |all, (name, value)| all.header(*name, *value));
        answer(request.send(body), path)
    }

    /// A DELETE with the key.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn delete(&self, path: &str) -> Result<Answer> {
        let request = self.http.delete(format!("{}{path}", self.url));
        answer(request.header("authorization", self.bearer()).call(), path)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.key)
    }

    /// A POST for a session, which is answered with this status.
    fn post_for(&self, id: &str, what: &str, body: &str, status: u16) -> Result<()> {
        self.post(&format!("/api/auth/session/{id}/{what}"), body)?.expect(status).map(drop)
    }

    /// What a session has below its own path.
    fn bytes_of(&self, id: &str, what: &str) -> Result<Vec<u8>> {
        Ok(self.get(&format!("/api/auth/session/{id}/{what}"))?.expect(200)?.bytes)
    }

    /// Starts a session as the body says.
    ///
    /// # Errors
    /// When it is not started.
    pub fn begin(&self, body: &Value) -> Result<Started> {
        let answer = self.post("/api/auth/start", &body.to_string())?;
        let answer = answer.expect(201).context("starting a session failed")?.body;
        Ok(Started { id: text(&answer, "sessionId")?, viewer_url: text(&answer, "viewerUrl")? })
    }

    /// Starts a session of the demo provider.
    ///
    /// # Errors
    /// When it is not started.
    pub fn start_session(&self, recipient: &str, ttl_seconds: u64) -> Result<Started> {
        self.begin(
            &json!({ "provider": "demo", "recipient": recipient, "ttlSeconds": ttl_seconds }),
        )
    }

    /// Starts one whose credential is sealed to the vault.
    ///
    /// # Errors
    /// When it is not started.
    pub fn start_session_without_recipient(&self) -> Result<Started> {
        self.begin(&json!({ "provider": "demo" }))
    }

    /// The session as the API shows it.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn status(&self, id: &str) -> Result<Value> {
        Ok(self.get(&format!("/api/auth/session/{id}"))?.body)
    }

    /// Says that the end user is there.
    ///
    /// # Errors
    /// When it is refused.
    pub fn start_tool(&self, id: &str) -> Result<()> {
        self.post_for(id, "start-tool", "", 202).context("the tool was not started")
    }

    /// Brings the code that the last page of a sign-in shows.
    ///
    /// # Errors
    /// When it is refused.
    pub fn enter_code(&self, id: &str, code: &str) -> Result<()> {
        let body = json!({ "code": code }).to_string();
        self.post_for(id, "code", &body, 202).context("the code was refused")
    }

    /// Ends a session.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn cancel(&self, id: &str) -> Result<()> {
        self.post(&format!("/api/auth/session/{id}/cancel"), "").map(drop)
    }

    /// The sealed credential, and what it is opened with beside its identity.
    ///
    /// # Errors
    /// When there is none.
    pub fn credential(&self, id: &str) -> Result<Sealed> {
        let bytes = self.bytes_of(id, "credentials").context("fetching the credential failed")?;
        let envelope =
            self.bytes_of(id, "credentials/envelope").context("fetching its envelope failed")?;
        let key = self.get("/api/credentials/key")?.expect(200)?.bytes;
        Ok(Sealed { bytes, envelope, key })
    }

    /// A picture of the desktop: PNG.
    ///
    /// # Errors
    /// When there is none.
    pub fn screenshot(&self, id: &str) -> Result<Vec<u8>> {
        self.bytes_of(id, "screenshot").context("taking a picture failed")
    }

    /// What its console and services said.
    ///
    /// # Errors
    /// When it cannot be had, or is no text.
    pub fn logs(&self, id: &str) -> Result<String> {
        let bytes = self.bytes_of(id, "logs").context("fetching the logs failed")?;
        String::from_utf8(bytes).context("the logs are not text")
    }

    /// Milliseconds from the start call to the agent's hello.
    ///
    /// # Errors
    /// When it ends before, or does not come in time.
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

    /// Waits until the session has ended, however it did.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_until_ended(&self, id: &str, at_most: Duration) -> Result<Value> {
        self.wait_until(id, at_most, "ended", |status| status["state"] == "ended")
    }

    /// Waits until nothing is left of it and the machine was looked at.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn wait_until_torn_down(&self, id: &str, at_most: Duration) -> Result<Value> {
        self.wait_until(id, at_most, "been torn down", |status| status["teardown"] == "torn_down")
    }

    /// Waits until the session is as wanted.
    ///
    /// # Errors
    /// When it is not in time: what it has not done.
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
            (self.go_on)()?;
            if started.elapsed() > at_most {
                let (seconds, state) = (at_most.as_secs(), &status["state"]);
                bail!("the session has not {what} within {seconds} s; it is {state}");
            }
            std::thread::sleep(ASK_EVERY);
        }
    }
}

fn answer(
    result: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    path: &str,
) -> Result<Answer> {
    let mut response = result.with_context(|| format!("asking for {path} failed"))?;
    let bytes = response.body_mut().read_to_vec().unwrap_or_default();
    let body = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    let headers = response.headers().clone();
    Ok(Answer { status: response.status().as_u16(), headers, bytes, body })
}

pub(crate) fn text(value: &Value, field: &str) -> Result<String> {
    value[field].as_str().map(str::to_owned).with_context(|| format!("{field} is missing"))
}
