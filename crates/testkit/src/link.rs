//! Somebody with a viewer link.

use std::net::TcpStream;

use anyhow::{Context, Result};
use serde_json::json;

use crate::raw::{Answer, ask, web_socket};

/// Whoever opened a link of a session.
pub struct Visitor {
    /// Host and port of the controller.
    pub host: String,
    /// The session.
    pub id: String,
    /// Name and value of the cookie that they got for it.
    pub cookie: String,
}

impl Visitor {
    /// Opens a link.
    ///
    /// # Errors
    /// When it is refused.
    pub fn by(host: &str, id: &str, link: &str) -> Result<Self> {
        let answer = exchange(host, id, secret(link)?)?;
        let cookie = answer.text.lines().find_map(|line| line.strip_prefix("set-cookie: "));
        let cookie = cookie.and_then(|cookie| cookie.split(';').next());
        let cookie = cookie.with_context(|| format!("no cookie in {}", answer.text))?;
        Ok(Self { host: host.to_owned(), id: id.to_owned(), cookie: cookie.to_owned() })
    }

    /// The header that has their cookie, with its line end.
    #[must_use]
    pub fn headers(&self) -> String {
        format!("Cookie: {}\r\n", self.cookie)
    }

    /// Asks for the tool's terminal: the status, and the stream.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn terminal(&self) -> Result<(u16, TcpStream)> {
        let path = format!("/api/viewer/session/{}/terminal", self.id);
        web_socket(&self.host, &path, &self.headers())
    }

    /// Asks for the desktop by VNC: the status, and the stream.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn vnc(&self) -> Result<(u16, TcpStream)> {
        let path = format!("/api/auth/session/{}/vnc", self.id);
        web_socket(&self.host, &path, &self.headers())
    }

    /// The session as they see it.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn view(&self) -> Result<Answer> {
        let path = format!("/api/viewer/session/{}", self.id);
        ask(&self.host, "GET", &path, &self.headers(), "")
    }
}

/// A link's secret.
///
/// # Errors
/// When it has none.
pub fn secret(link: &str) -> Result<&str> {
    Ok(link.split_once('#').context("the link has no secret")?.1)
}

/// Exchanges a link's secret for a cookie.
///
/// # Errors
/// When nobody answers.
pub fn exchange(host: &str, id: &str, secret: &str) -> Result<Answer> {
    let body = json!({ "sessionId": id, "secret": secret }).to_string();
    ask(host, "POST", "/api/viewer/exchange", "", &body)
}
