//! A connection that is not made, or not carried on, and what is said of it to whom.

use anteroom_session::{EgressVerdict, HostRefused};

use crate::hello::BadHello;
use crate::request::BadRequest;

/// A fatal TLS alert, `unrecognized_name` (RFC 6066, 3): browsers say so in words.
const WRONG_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A refusal.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// For the record.
    pub(crate) verdict: EgressVerdict,
    /// For the record: why. It may hold what a guest must not learn.
    pub(crate) detail: String,
    reply: Reply,
}

/// What the guest's program hears.
#[derive(Debug)]
enum Reply {
    /// A status line, and the refusal's detail.
    Http(&'static str),
    /// A status line, and this in place of the detail.
    HttpSaying(&'static str, &'static str),
    /// In a TLS connection.
    Alert,
    /// The connection's end.
    Nothing,
}

impl Refusal {
    /// Nothing asked for anything that could be read.
    pub(crate) fn unread(status: &'static str, detail: String) -> Self {
        Self { verdict: EgressVerdict::RefusedRequest, detail, reply: Reply::Http(status) }
    }

    /// The host is not on this sign-in's list.
    pub(crate) fn by_policy(refused: HostRefused) -> Self {
        Self {
            verdict: EgressVerdict::RefusedByPolicy,
            detail: refused.to_string(),
            reply: Reply::Http("403 Forbidden"),
        }
    }

    /// There are too many connections.
    pub(crate) fn too_many(most: usize) -> Self {
        Self {
            verdict: EgressVerdict::RefusedByLimit,
            detail: format!("the session already has {most} connections, the maximum"),
            reply: Reply::Http("503 Service Unavailable"),
        }
    }

    /// The host was not reached.
    pub(crate) fn failed(detail: String) -> Self {
        Self { verdict: EgressVerdict::Failed, detail, reply: Reply::Http("502 Bad Gateway") }
    }

    /// The name leads where no guest may go. Where that is, is nothing that a guest may learn.
    pub(crate) fn address(detail: String) -> Self {
        let reported = "its name resolves to an address that no sandbox may reach";
        Self {
            verdict: EgressVerdict::RefusedAddress,
            detail,
            reply: Reply::HttpSaying("403 Forbidden", reported),
        }
    }

    /// What was sent in a tunnel cannot be carried.
    pub(crate) fn in_tunnel(detail: String) -> Self {
        Self { verdict: EgressVerdict::RefusedRequest, detail, reply: Reply::Http("403 Forbidden") }
    }

    /// What came when something had been carried already.
    pub(crate) fn later(detail: String) -> Self {
        Self { verdict: EgressVerdict::RefusedRequest, detail, reply: Reply::Nothing }
    }

    /// What the guest's program hears; `host` is whom it asked for, if that could be read.
    pub(crate) fn reply(&self, host: &str) -> Vec<u8> {
        let (status, why) = match &self.reply {
            Reply::Http(status) => (status, self.detail.as_str()),
            Reply::HttpSaying(status, reported) => (status, *reported),
            Reply::Alert => return WRONG_NAME.to_vec(),
            Reply::Nothing => return Vec::new(),
        };
        let host = if host.is_empty() { "anywhere" } else { host };
        let body = format!("Anteroom did not connect to {host}: {why}.\n");
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

impl From<BadHello> for Refusal {
    fn from(bad: BadHello) -> Self {
        Self {
            verdict: EgressVerdict::RefusedRequest,
            detail: bad.to_string(),
            reply: Reply::Alert,
        }
    }
}

impl From<BadRequest> for Refusal {
    fn from(bad: BadRequest) -> Self {
        Self::unread("400 Bad Request", bad.to_string())
    }
}
