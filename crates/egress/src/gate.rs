//! Connections: checked, carried, recorded.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anteroom_session::{EgressVerdict, HostPort, HostRefused};
use leaky_bucket::RateLimiter;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::carry::{self, CHUNK, Destination, FIRST_BYTES, Requests, Speaks, Stop, Up};
use crate::networks::HostNetworks;
use crate::policy::{Decision, Policy};
use crate::refusal::Refusal;
use crate::request::{Form, ProxyRequest, to_proxy};

const RESOLVE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(10);

/// Connections of one session at a time.
const MAX_CONNECTIONS: usize = 256;

/// Bytes of one session's connections together, both ways, for long, a second, and at once: a page of
/// many parts comes at full speed, a guest that copies away all it can does not.
pub const BYTES_PER_SECOND: usize = 8 * 1024 * 1024;
/// See [`BYTES_PER_SECOND`].
pub const BYTE_BURST: usize = 8 * BYTES_PER_SECOND;

/// Finds the addresses of a host name, and this machine's own.
pub trait Resolve {
    /// All addresses, in the order to try.
    fn resolve(&self, host: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>>;

    /// The networks that this machine is in, now: they change.
    ///
    /// # Errors
    /// When the system does not report them.
    fn host_networks(&self) -> io::Result<HostNetworks> {
        HostNetworks::read()
    }
}

/// The host's own resolver.
#[derive(Clone, Debug, Default)]
pub struct SystemResolver {
    /// Addresses by which others reach this machine, whatever its interfaces say: a router before it
    /// may lead them here.
    pub own: Vec<IpAddr>,
}

impl Resolve for SystemResolver {
    fn host_networks(&self) -> io::Result<HostNetworks> {
        HostNetworks::read().map(|networks| networks.with_own(&self.own))
    }

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
    policy: Mutex<Policy>,
    resolver: R,
    places: Semaphore,
    pace: RateLimiter,
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
        Self { policy: Mutex::new(policy), resolver, places: Semaphore::new(MAX_CONNECTIONS), pace }
    }

    /// Allows this host from now on.
    ///
    /// # Errors
    /// Where it is none that can be.
    pub fn allow(&self, destination: &HostPort) -> Result<(), HostRefused> {
        self.policy().allow(destination)
    }

    fn policy(&self) -> MutexGuard<'_, Policy> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one connection of the guest to its end; `on_open` hears of it when it is made, and what
    /// it said first may be carried.
    pub async fn serve<S>(
        &self,
        guest: S,
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
        let (from_guest, mut to_guest) = tokio::io::split(guest);
        let mut from_guest = BufReader::with_capacity(CHUNK, from_guest);
        let carried = self.carry(&mut from_guest, &mut to_guest, &mut record, on_open).await;
        if let Err(Stop::Refused(refusal)) = carried {
            // A guest that does not wait for the answer needs none.
            let _ = to_guest.write_all(&refusal.reply(&record.host)).await;
            let _ = to_guest.shutdown().await;
            record.verdict = refusal.verdict;
            record.detail = Some(refusal.detail);
        }
        record.ended_ms = unix_ms();
        record
    }

    async fn carry<G, W>(
        &self,
        from_guest: &mut G,
        to_guest: &mut W,
        record: &mut ConnectionRecord,
        on_open: impl FnOnce(&ConnectionRecord),
    ) -> Result<(), Stop>
    where
        G: AsyncBufRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let head = carry::read_head(from_guest, Instant::now() + FIRST_BYTES).await?;
        let ProxyRequest { host, port, form } = to_proxy(&head)?;
        record.host.clone_from(&host);
        record.port = port;
        let decision = self.policy().decide(&host, port);
        let mapped = match decision {
            Decision::Refused(refused) => return Err(Refusal::by_policy(refused).into()),
            Decision::Mapped(to) => Some(to),
            Decision::Resolve => None,
        };
        let _place = self.places.try_acquire().map_err(|_| Refusal::too_many(MAX_CONNECTIONS))?;
        let mut server = self.connect(&host, port, mapped).await?;
        record.address = server.peer_addr().ok();
        record.verdict = EgressVerdict::Allowed;
        let requests = match form {
            Form::Plain(_) => Requests::ToProxy,
            Form::Tunnel => Requests::InTunnel,
        };
        let to = Destination { host: &host, port, requests };
        let speaks = match form {
            Form::Plain(exchange) => Speaks::Http(exchange),
            Form::Tunnel => {
                to_guest.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
                to_guest.flush().await?;
                carry::first_bytes(from_guest, &to).await?
            }
        };
        on_open(record);
        let ConnectionRecord { bytes_up, bytes_down, .. } = record;
        let (mut from_server, server) = server.split();
        let up = Up { server, pace: &self.pace, carried: bytes_up };
        let down = carry::down(&mut from_server, to_guest, &self.pace, bytes_down);
        match speaks {
            Speaks::Nothing => Ok(()),
            Speaks::Tls(hellos, held) => {
                tokio::try_join!(carry::tls(from_guest, hellos, held, up), down).map(|_| ())
            }
            Speaks::Http(exchange) => {
                let up = async {
                    carry::http(from_guest, exchange, &to, up).await?;
                    // The answer's end is the connection's.
                    std::future::pending().await
                };
                tokio::select! { stopped = up => stopped, answered = down => answered }
            }
        }
    }

    /// To where the name is mapped, or to the first of its addresses that answers.
    async fn connect(
        &self,
        host: &str,
        port: u16,
        mapped: Option<SocketAddr>,
    ) -> Result<TcpStream, Refusal> {
        let addresses = match mapped {
            Some(to) => vec![to],
            None => self.addresses(host, port).await?,
        };
        let mut last = "its name has no address".to_owned();
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
        Err(Refusal::failed(last))
    }

    /// All addresses of a name. One refused among several is reason enough to refuse them all: a name
    /// that leads inside at all is not to be trusted with the choice.
    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Refusal> {
        let found = timeout(RESOLVE, self.resolver.resolve(host, port)).await;
        let found =
            found.map_err(|_| Refusal::failed("resolving its name took too long".to_owned()))?;
        let found = found
            .map_err(|error| Refusal::failed(format!("resolving its name failed: {error}")))?;
        let networks = self.resolver.host_networks().map_err(|error| {
            Refusal::failed(format!("reading the addresses of this machine failed: {error}"))
        })?;
        for address in &found {
            let allowed = networks.allow(address.ip());
            allowed.map_err(|refused| Refusal::address(refused.to_string()))?;
        }
        Ok(found)
    }
}

fn unix_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
