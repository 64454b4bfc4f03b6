//! What is carried on a connection that was made: TLS with the host's name in its hello, or one plain
//! HTTP request to it. Nothing else: what names no host cannot be held to one.

use std::io;
use std::time::Duration;

use leaky_bucket::RateLimiter;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt,
};
use tokio::time::{Instant, timeout_at};

use crate::body::BadBody;
use crate::hello::{BadHello, Hellos, Next, RECORD_HEADER, is_tls, record_length};
use crate::refusal::Refusal;
use crate::request::{
    BadRequest, Exchange, Form, MAX_HEAD, ProxyRequest, head_end, in_tunnel, to_proxy,
};

/// What is carried at once, in bytes.
pub(crate) const CHUNK: usize = 16 * 1024;

/// How long the first that a connection says may take: a request's head, or a hello.
pub(crate) const FIRST_BYTES: Duration = Duration::from_secs(30);

/// Where nothing but TLS is spoken.
const HTTPS: u16 = 443;

/// Why carrying ended before both sides were through.
pub(crate) enum Stop {
    /// One side went away.
    Gone,
    /// The guest said what it may not.
    Refused(Refusal),
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<BadHello> for Stop {
    fn from(bad: BadHello) -> Self {
        Self::Refused(bad.into())
    }
}

impl From<BadRequest> for Stop {
    fn from(bad: BadRequest) -> Self {
        Self::Refused(bad.into())
    }
}

impl From<BadBody> for Stop {
    fn from(bad: BadBody) -> Self {
        Self::Refused(Refusal::later(bad.to_string()))
    }
}

/// Whom a connection is for.
pub(crate) struct Destination<'a> {
    /// Normalised host.
    pub(crate) host: &'a str,
    /// Port.
    pub(crate) port: u16,
    /// How requests on it look.
    pub(crate) requests: Requests,
}

/// The two forms of requests.
#[derive(Clone, Copy)]
pub(crate) enum Requests {
    /// As a proxy gets them.
    ToProxy,
    /// As the host does.
    InTunnel,
}

impl Destination<'_> {
    /// Reads a request's head, which must be for it.
    fn request(&self, head: &[u8]) -> Result<Exchange, BadRequest> {
        if let Requests::InTunnel = self.requests {
            return in_tunnel(head, self.host, self.port);
        }
        match to_proxy(head)? {
            ProxyRequest { host, port, form: Form::Plain(exchange) }
                if (host.as_str(), port) == (self.host, self.port) =>
            {
                Ok(exchange)
            }
            ProxyRequest { host, .. } => Err(BadRequest::OtherHost(host)),
        }
    }
}

/// Writes to the server, at the session's pace, and counts.
pub(crate) struct Up<'a, W> {
    pub(crate) server: W,
    pub(crate) pace: &'a RateLimiter,
    pub(crate) carried: &'a mut u64,
}

impl<W: AsyncWrite + Unpin> Up<'_, W> {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(CHUNK) {
            self.pace.acquire(piece.len()).await;
            self.server.write_all(piece).await?;
            *self.carried += piece.len() as u64;
        }
        self.server.flush().await
    }
}

/// What the guest's first words in a tunnel are.
pub(crate) enum Speaks {
    /// The records of a hello that names the host.
    Tls(Hellos, Vec<u8>),
    /// A request to the host.
    Http(Exchange),
    /// It closed the connection.
    Nothing,
}

/// Reads what the guest says first in a tunnel to `to`.
pub(crate) async fn first_bytes<R>(guest: &mut R, to: &Destination<'_>) -> Result<Speaks, Stop>
where
    R: AsyncBufRead + Unpin,
{
    let by = Instant::now() + FIRST_BYTES;
    let late = || Refusal::in_tunnel("no data was sent on it within 30 s".to_owned());
    let first = match timeout_at(by, guest.fill_buf()).await {
        Err(_) => return Err(late().into()),
        Ok(buffer) => buffer?.first().copied(),
    };
    match first {
        None => Ok(Speaks::Nothing),
        Some(first) if is_tls(first) => {
            let (mut hellos, mut held) = (Hellos::new(to.host), Vec::new());
            let hello = async {
                loop {
                    let Some(record) = read_record(guest).await? else {
                        return Err(BadHello::Unreadable("it is not complete".to_owned()).into());
                    };
                    let next = hellos.record(&record)?;
                    held.extend_from_slice(&record);
                    if next == Next::Pass {
                        return Ok::<(), Stop>(());
                    }
                }
            };
            timeout_at(by, hello).await.map_err(|_| late())??;
            Ok(Speaks::Tls(hellos, held))
        }
        Some(_) if to.port == HTTPS => {
            let sentence = "the data is not TLS, and only TLS is allowed to port 443";
            Err(Refusal::in_tunnel(sentence.to_owned()).into())
        }
        Some(_) => {
            let head = read_head(guest, by).await?;
            Ok(Speaks::Http(to.request(&head)?))
        }
    }
}

/// Carries a TLS connection's records to the server until the guest ends it.
pub(crate) async fn tls<R, W>(
    guest: &mut R,
    mut hellos: Hellos,
    mut held: Vec<u8>,
    mut up: Up<'_, W>,
) -> Result<(), Stop>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    up.write(&held).await?;
    held.clear();
    while let Some(record) = read_record(guest).await? {
        let next = hellos.record(&record).map_err(|bad| Refusal::later(bad.to_string()))?;
        match next {
            Next::Hold => held.extend_from_slice(&record),
            Next::Pass if held.is_empty() => up.write(&record).await?,
            Next::Pass => {
                held.extend_from_slice(&record);
                up.write(&held).await?;
                held.clear();
            }
        }
    }
    up.server.shutdown().await?;
    Ok(())
}

/// Carries requests to the server, each when the one before is whole. Each says that the connection
/// closes after it; a server or a program that goes on all the same may, for the same host.
pub(crate) async fn http<R, W>(
    guest: &mut R,
    mut exchange: Exchange,
    to: &Destination<'_>,
    mut up: Up<'_, W>,
) -> Result<(), Stop>
where
    R: AsyncBufRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        let Exchange { head, mut body } = exchange;
        up.write(&head).await?;
        while !body.is_done() {
            let buffer = guest.fill_buf().await?;
            if buffer.is_empty() {
                return Ok(up.server.shutdown().await?);
            }
            let taken = body.take(buffer)?;
            up.write(&buffer[..taken]).await?;
            guest.consume(taken);
        }
        if !more_follows(guest).await? {
            return Ok(up.server.shutdown().await?);
        }
        exchange = match read_head(guest, Instant::now() + FIRST_BYTES).await {
            Ok(head) => to.request(&head).map_err(|bad| later(&bad.to_string()))?,
            Err(Stop::Refused(refusal)) => return Err(later(&refusal.detail)),
            Err(Stop::Gone) => return Err(Stop::Gone),
        };
    }
}

/// Whether there is more than the empty line with which some programs end a body (RFC 9112, 2.2).
async fn more_follows<R: AsyncBufRead + Unpin>(guest: &mut R) -> io::Result<bool> {
    loop {
        let buffer = guest.fill_buf().await?;
        let empty = buffer.iter().take_while(|byte| b"\r\n".contains(byte)).count();
        match buffer.len() {
            0 => return Ok(false),
            length if empty < length => {
                guest.consume(empty);
                return Ok(true);
            }
            _ => guest.consume(empty),
        }
    }
}

fn later(cause: &str) -> Stop {
    Refusal::later(format!("after a request, more was sent on the same connection: {cause}")).into()
}

/// Carries the server's answers to the guest until their end.
pub(crate) async fn down<R, W>(
    server: &mut R,
    guest: &mut W,
    pace: &RateLimiter,
    carried: &mut u64,
) -> Result<(), Stop>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = server.read(&mut buffer).await?;
        if length == 0 {
            return Ok(guest.shutdown().await?);
        }
        pace.acquire(length).await;
        guest.write_all(&buffer[..length]).await?;
        guest.flush().await?;
        *carried += length as u64;
    }
}

/// A request's head, to its empty line; what follows it is not taken.
pub(crate) async fn read_head<R>(guest: &mut R, by: Instant) -> Result<Vec<u8>, Stop>
where
    R: AsyncBufRead + Unpin,
{
    let mut head = Vec::with_capacity(1024);
    let read = async {
        loop {
            let buffer = guest.fill_buf().await?;
            if buffer.is_empty() {
                let sentence = "the connection ended within the request's head".to_owned();
                return Err(match head.is_empty() {
                    true => Stop::Gone,
                    false => Refusal::unread("400 Bad Request", sentence).into(),
                });
            }
            let before = head.len();
            head.extend_from_slice(&buffer[..buffer.len().min(MAX_HEAD - before)]);
            let end = head_end(&head);
            head.truncate(end.unwrap_or(head.len()));
            guest.consume(head.len() - before);
            if end.is_some() {
                return Ok(());
            }
            if head.len() == MAX_HEAD {
                let status = "431 Request Header Fields Too Large";
                let sentence = "the request's head is too long".to_owned();
                return Err(Refusal::unread(status, sentence).into());
            }
        }
    };
    timeout_at(by, read).await.map_err(|_| {
        let sentence = "the request's head did not come within 30 s".to_owned();
        Refusal::unread("408 Request Timeout", sentence)
    })??;
    Ok(head)
}

/// The next whole TLS record; none at the end.
async fn read_record<R: AsyncRead + Unpin>(guest: &mut R) -> Result<Option<Vec<u8>>, Stop> {
    let mut header = [0; RECORD_HEADER];
    if guest.read(&mut header[..1]).await? == 0 {
        return Ok(None);
    }
    guest.read_exact(&mut header[1..]).await?;
    let length = record_length(header).map_err(|bad| Refusal::later(bad.to_string()))?;
    let mut record = vec![0; RECORD_HEADER + length];
    record[..RECORD_HEADER].copy_from_slice(&header);
    guest.read_exact(&mut record[RECORD_HEADER..]).await?;
    Ok(Some(record))
}
