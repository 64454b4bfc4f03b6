//! What holds for whoever comes through the front.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
// Not held to semantic versions by ureq; the lock file holds it.
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::{Front, NAME};
use crate::server::Server;
use anteroom_testkit::Started;
use anteroom_testkit::end_user::Way;

/// How long an answer may take; the last of the events is as late as the desktop.
const PATIENCE: Duration = Duration::from_secs(60);

/// Above what Anteroom takes, below where the proxies stop.
const TOO_MUCH: usize = 13 * 1024 * 1024;

impl Front {
    /// Asks through the proxy what a browser would not.
    pub fn check(&self, anteroom: &Path, server: &Server, session: &Started) -> Result<()> {
        let asked = self
            .leads_from_http_to_https()
            .and_then(|()| self.gives_links_to_itself(session))
            .and_then(|()| self.keeps_browsers_on_https())
            .and_then(|()| self.lets_no_foreign_page_call(session))
            .and_then(|()| self.lets_anteroom_refuse_what_is_too_long(server))
            .and_then(|()| self.refuses_other_names(anteroom, server))
            .and_then(|()| self.passes_events_on_when_they_happen(server, session));
        asked.map_err(|error| anyhow!("{error:#}; {} said: {}", self.proxy, self.said()))
    }

    fn leads_from_http_to_https(&self) -> Result<()> {
        let answer = self.client()?.get(format!("http://{NAME}:{}/v/x?y", self.http)).call()?;
        let status = answer.status().as_u16();
        let location = answer.headers().get("location").and_then(|value| value.to_str().ok());
        let wanted = format!("{}/v/x?y", self.proxy.leads_to(&self.origin(), NAME));
        ensure!(
            [301, 308].contains(&status) && location == Some(&wanted),
            "http was answered with {status} to {location:?} instead of being led to {wanted}"
        );
        Ok(())
    }

    fn gives_links_to_itself(&self, session: &Started) -> Result<()> {
        let wanted = format!("{}/v/{}#", self.origin(), session.id);
        let link = &session.viewer_url;
        ensure!(link.starts_with(&wanted), "the viewer's link is {link} and not one to {wanted}");
        Ok(())
    }

    fn keeps_browsers_on_https(&self) -> Result<()> {
        let answer = self.client()?.get(format!("{}/health", self.origin())).call()?;
        ensure!(answer.status() == 200, "/health was answered with {}", answer.status());
        ensure!(
            answer.headers().contains_key("strict-transport-security"),
            "the answer to /health lets browsers come by http the next time"
        );
        Ok(())
    }

    fn lets_no_foreign_page_call(&self, session: &Started) -> Result<()> {
        let (_, secret) = session.viewer_url.split_once('#').context("the link has no secret")?;
        let mut answer = self
            .client()?
            .post(format!("{}/api/viewer/exchange", self.origin()))
            .header("Origin", "https://evil.example")
            .send_json(serde_json::json!({ "sessionId": session.id, "secret": secret }))?;
        self.is_problem(&mut answer, 403, "foreign_origin")
    }

    fn lets_anteroom_refuse_what_is_too_long(&self, server: &Server) -> Result<()> {
        let mut answer = self
            .client()?
            .post(format!("{}/api/auth/start", self.origin()))
            .header("Authorization", format!("Bearer {}", server.key()))
            .send(vec![b' '; TOO_MUCH])?;
        self.is_problem(&mut answer, 413, "body_too_large")
    }

    /// The command line's way here, too: it checks the certificate against the machine's authorities.
    fn refuses_other_names(&self, anteroom: &Path, server: &Server) -> Result<()> {
        let authority = self.folder.path().join("authority.pem");
        let called = Command::new(anteroom)
            .args(["sessions", "--json", "--api-key", server.key()])
            .args(["--url", &format!("https://{}:{}", Ipv4Addr::LOCALHOST, self.https)])
            .env("SSL_CERT_FILE", authority)
            .output()?;
        let said = String::from_utf8_lossy(&called.stderr);
        let refusal = self.proxy.refusal();
        ensure!(
            !called.status.success() && said.contains(refusal),
            "called by its number, it was not refused with {refusal} but said {said:?}"
        );
        Ok(())
    }

    /// One stream, from now until the desktop waits for its end user: nothing in between asks anew.
    fn passes_events_on_when_they_happen(&self, server: &Server, session: &Started) -> Result<()> {
        let answer = self
            .client()?
            .get(format!("{}/api/auth/session/{}/events", self.origin(), session.id))
            .header("Authorization", format!("Bearer {}", server.key()))
            .call()
            .context("the stream of events did not begin")?;
        let mut last = String::from("nothing");
        for line in BufReader::new(answer.into_body().into_reader()).lines() {
            let line = line.with_context(|| format!("events stopped; the last said {last}"))?;
            let Some(data) = line.strip_prefix("data:") else { continue };
            let session: Value =
                serde_json::from_str(data).context("an event is not valid JSON")?;
            last = format!("{} {}", session["state"], session["reason"]["message"]);
            match session["state"].as_str() {
                Some("awaiting_user") => return Ok(()),
                Some("ended") => break,
                _ => {}
            }
        }
        bail!("no event said that the session waits for its end user; the last said {last}")
    }

    /// By which way the end user's browser came.
    pub fn check_way(&self, way: &Way) -> Result<()> {
        let advertised = self.media.address()?.to_string();
        let media =
            format!("{}:{}", way.media["address"].as_str().unwrap_or("?"), way.media["port"]);
        ensure!(
            media == advertised && way.media["candidateType"] == "host",
            "the picture comes from {} and not from {advertised}, which was advertised",
            way.media
        );
        let cookie = &way.cookie;
        let is_kept_close = cookie["secure"] == true
            && cookie["httpOnly"] == true
            && cookie["sameSite"] == "Strict"
            && cookie["path"] == "/"
            && cookie["domain"] == NAME;
        ensure!(is_kept_close, "the viewer's cookie is open to others: {cookie}");
        Ok(())
    }

    fn is_problem(
        &self,
        answer: &mut ureq::http::Response<ureq::Body>,
        status: u16,
        code: &str,
    ) -> Result<()> {
        let was = answer.status().as_u16();
        let body = answer.body_mut().read_to_string()?;
        let problem: Value = serde_json::from_str(&body).unwrap_or_default();
        ensure!(
            was == status && problem["code"] == code,
            "{} answered {was} {body} instead of Anteroom's {status} {code}",
            self.proxy
        );
        Ok(())
    }

    /// Knows the name and the authority, and follows no redirect.
    fn client(&self) -> Result<ureq::Agent> {
        let authority = ureq::tls::Certificate::from_pem(self.authority_pem.as_bytes())?;
        let roots = ureq::tls::RootCerts::new_with_certs(&[authority]);
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(PATIENCE))
            .tls_config(ureq::tls::TlsConfig::builder().root_certs(roots).build())
            .build();
        Ok(ureq::Agent::with_parts(config, DefaultConnector::new(), ToLoopback))
    }
}

/// Every name is here.
#[derive(Debug)]
struct ToLoopback;

impl Resolver for ToLoopback {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let port = uri.port_u16().ok_or(ureq::Error::HostNotFound)?;
        let mut found = self.empty();
        found.push(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Ok(found)
    }
}
