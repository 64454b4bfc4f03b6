//! Connections: checked, carried, recorded.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anteroom_session::EgressVerdict;
use leaky_bucket::RateLimiter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::address::address_allowed;
use crate::policy::{Decision, Policy};
use crate::request::{Form, MAX_HEAD, ProxyRequest, head_end, parse};

/// What is carried at once, in bytes.
const CHUNK: usize = 16 * 1024;

const HEAD: Duration = Duration::from_secs(30);
const RESOLVE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(10);

/// Connections of one session at a time.
const MAX_CONNECTIONS: usize = 256;

/// Bytes of one session's connections together, both ways, for long, a second, and at once: a page of
/// many parts comes at full speed, a guest that copies away all it can does not.
pub const BYTES_PER_SECOND: usize = 8 * 1024 * 1024;
/// See [`BYTES_PER_SECOND`].
pub const BYTE_BURST: usize = 8 * BYTES_PER_SECOND;

/// Finds the addresses of a host name.
pub trait Resolve {
    /// All addresses, in the order to try.
    fn resolve(&self, host: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>>;
}

/// The host's own resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        // An IPv6 address stands in brackets in a URL (RFC 3986, 3.2.2), and nowhere else.
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        Ok(tokio::net::lookup_host((bare, port)).await?.collect())
    }
}

/// What became of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionRecord {
    /// The host the guest asked for; empty when it asked for none that could be read.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What was decided.
    pub verdict: EgressVerdict,
    /// Where it went.
    pub address: Option<SocketAddr>,
    /// Bytes guest → host.
    pub bytes_up: u64,
    /// Bytes host → guest.
    pub bytes_down: u64,
    /// Milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Milliseconds since the Unix epoch.
    pub ended_ms: u64,
    /// Why it was refused or failed.
    pub detail: Option<String>,
}

/// The gate of one session.
#[derive(Debug)]
pub struct Gate<R> {
    policy: Policy,
    resolver: R,
    places: Semaphore,
    pace: RateLimiter,
}

/// A connection that was not made, and how to say so.
struct Refusal {
    verdict: EgressVerdict,
    status: &'static str,
    detail: String,
}

impl<R: Resolve> Gate<R> {
    /// A gate with this policy.
    pub fn new(policy: Policy, resolver: R) -> Self {
        let pace = RateLimiter::builder()
            .interval(Duration::from_millis(100))
            .refill(BYTES_PER_SECOND / 10)
            .max(BYTE_BURST)
            .initial(BYTE_BURST)
            .build();
        Self { policy, resolver, places: Semaphore::new(MAX_CONNECTIONS), pace }
    }

    /// Serves one connection of the guest to its end; `on_open` hears of it when it is made.
    pub async fn serve<S>(
        &self,
        mut guest: S,
        on_open: impl FnOnce(&ConnectionRecord),
    ) -> ConnectionRecord
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut record = ConnectionRecord {
            host: String::new(),
            port: 0,
            verdict: EgressVerdict::Failed,
            address: None,
            bytes_up: 0,
            bytes_down: 0,
            started_ms: unix_ms(),
            ended_ms: 0,
            detail: None,
        };
        if let Err(refusal) = self.carry(&mut guest, &mut record, on_open).await {
            answer(&mut guest, &record.host, &refusal).await;
            record.verdict = refusal.verdict;
            record.detail = Some(refusal.detail);
        }
        record.ended_ms = unix_ms();
        record
    }

    async fn carry<S>(
        &self,
        guest: &mut S,
        record: &mut ConnectionRecord,
        on_open: impl FnOnce(&ConnectionRecord),
    ) -> Result<(), Refusal>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (request, rest) = read_request(guest).await?;
        record.host.clone_from(&request.host);
        record.port = request.port;
        let mapped = match self.policy.decide(&request.host, request.port) {
            Decision::Refused => {
                return Err(Refusal {
                    verdict: EgressVerdict::RefusedByPolicy,
                    status: "403 Forbidden",
                    detail: "it is not among the hosts of this sign-in".to_owned(),
                });
            }
            Decision::Mapped(to) => Some(to),
            Decision::Resolve => None,
        };
        let _place = self.places.try_acquire().map_err(|_| Refusal {
            verdict: EgressVerdict::RefusedByLimit,
            status: "503 Service Unavailable",
            detail: format!("the session has {MAX_CONNECTIONS} connections already"),
        })?;
        let mut server = self.connect(&request, mapped).await?;
        record.address = server.peer_addr().ok();
        record.verdict = EgressVerdict::Allowed;
        on_open(record);
        let opened = match request.form {
            Form::Tunnel => guest.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await,
            Form::Plain { head } => server.write_all(&head).await,
        };
        if opened.is_err() || server.write_all(&rest).await.is_err() {
            return Ok(());
        }
        record.bytes_up = rest.len() as u64;
        let (mut from_guest, mut to_guest) = tokio::io::split(guest);
        let (mut from_server, mut to_server) = server.split();
        // A reset ends both ways; what was carried until then is counted.
        let _ = tokio::try_join!(
            copy(&mut from_guest, &mut to_server, &self.pace, &mut record.bytes_up),
            copy(&mut from_server, &mut to_guest, &self.pace, &mut record.bytes_down),
        );
        Ok(())
    }

    /// To where the name is mapped, or to the first of its addresses that answers.
    async fn connect(
        &self,
        request: &ProxyRequest,
        mapped: Option<SocketAddr>,
    ) -> Result<TcpStream, Refusal> {
        let ProxyRequest { host, port, .. } = request;
        let failed = |detail: String| Refusal {
            verdict: EgressVerdict::Failed,
            status: "502 Bad Gateway",
            detail,
        };
        let addresses = match mapped {
            Some(to) => vec![to],
            None => {
                let found = timeout(RESOLVE, self.resolver.resolve(host, *port)).await;
                let found =
                    found.map_err(|_| failed("resolving its name took too long".to_owned()))?;
                let found =
                    found.map_err(|error| failed(format!("resolving its name failed: {error}")))?;
                check_all(&found)?;
                found
            }
        };
        let mut last = "it has no address".to_owned();
        for address in addresses {
            // To the checked address itself: a second resolution could give another.
            match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(server)) => {
                    let _ = server.set_nodelay(true);
                    return Ok(server);
                }
                Ok(Err(error)) => last = format!("connecting failed: {error}"),
                Err(_) => last = "connecting took too long".to_owned(),
            }
        }
        Err(failed(last))
    }
}

/// Carries one way until its end, at the session's pace.
async fn copy<R, W>(
    from: &mut R,
    to: &mut W,
    pace: &RateLimiter,
    carried: &mut u64,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        pace.acquire(length).await;
        to.write_all(&buffer[..length]).await?;
        to.flush().await?;
        *carried += length as u64;
    }
}

/// One refused address among several is reason enough: a name that leads inside at all is not to be
/// trusted with the choice.
fn check_all(addresses: &[SocketAddr]) -> Result<(), Refusal> {
    for address in addresses {
        address_allowed(address.ip()).map_err(|refused| Refusal {
            verdict: EgressVerdict::RefusedAddress,
            status: "403 Forbidden",
            detail: refused.to_string(),
        })?;
    }
    Ok(())
}

/// The request, and what came behind its head.
async fn read_request<S: AsyncRead + Unpin>(
    guest: &mut S,
) -> Result<(ProxyRequest, Vec<u8>), Refusal> {
    let bad = |status, detail: String| Refusal {
        verdict: EgressVerdict::RefusedByPolicy,
        status,
        detail,
    };
    let mut bytes = Vec::with_capacity(1024);
    let head = async {
        loop {
            if let Some(end) = head_end(&bytes) {
                return Ok(end);
            }
            if bytes.len() >= MAX_HEAD {
                return Err(bad(
                    "431 Request Header Fields Too Large",
                    "the request's head is too long".to_owned(),
                ));
            }
            let room = MAX_HEAD - bytes.len();
            let read = (&mut *guest).take(room as u64).read_buf(&mut bytes).await;
            if !matches!(read, Ok(1..)) {
                return Err(bad(
                    "400 Bad Request",
                    "the connection ended within the request's head".to_owned(),
                ));
            }
        }
    };
    let end = timeout(HEAD, head).await.map_err(|_| {
        bad("408 Request Timeout", "the request's head did not come within 30 s".to_owned())
    })??;
    let rest = bytes.split_off(end);
    let request = parse(&bytes).map_err(|detail| bad("400 Bad Request", detail))?;
    Ok((request, rest))
}

async fn answer<S: AsyncWrite + Unpin>(guest: &mut S, host: &str, refusal: &Refusal) {
    let host = if host.is_empty() { "anywhere" } else { host };
    let body = format!("Anteroom did not connect to {host}: {}.\n", refusal.detail);
    let response = format!(
        "HTTP/1.1 {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        refusal.status,
        body.len()
    );
    // A guest that does not wait for the answer needs none.
    let _ = guest.write_all(response.as_bytes()).await;
    let _ = guest.shutdown().await;
}

fn unix_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
