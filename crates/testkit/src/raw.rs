//! Requests as an attacker writes them: bytes on a socket.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use serde_json::Value;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer, whole.
pub struct Answer {
    /// Of the last response in it; 0 when there is none.
    pub status: u16,
    /// All that came.
    pub text: String,
}

impl Answer {
    /// Its body as JSON; null where it is none.
    #[must_use]
    pub fn body(&self) -> Value {
        let body = self.text.rsplit_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).unwrap_or_default()
    }
}

/// The host and port of an `http://` address.
#[must_use]
pub fn host(url: &str) -> &str {
    url.trim_start_matches("http://")
}

/// Sends these bytes and reads until the other side closes.
///
/// # Errors
/// When nobody answers.
pub fn exchange(host: &str, bytes: &[u8]) -> Result<Answer> {
    let mut stream = TcpStream::connect(host).context("connecting failed")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // One that is refused at once may be closed already.
    let _ = stream.write_all(bytes);
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut statuses = text.lines().filter_map(|line| line.strip_prefix("HTTP/1."));
    let status = statuses.next_back().and_then(|line| line.get(2..5)?.parse().ok()).unwrap_or(0);
    Ok(Answer { status, text })
}

/// A request with these headers (each with its line end) and body.
///
/// # Errors
/// When nobody answers.
pub fn ask(host: &str, method: &str, path: &str, headers: &str, body: &str) -> Result<Answer> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    exchange(host, format!("{head}{body}").as_bytes())
}

/// A GET whose answer goes on: its stream once the head is there, and the answer's status.
///
/// # Errors
/// When nobody answers.
pub fn open(host: &str, path: &str, headers: &str) -> Result<(u16, TcpStream)> {
    begin(host, path, &format!("Connection: close\r\n{headers}"))
}

fn begin(host: &str, path: &str, headers: &str) -> Result<(u16, TcpStream)> {
    let mut stream = TcpStream::connect(host).context("connecting failed")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n")?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            bail!("{path} was answered {:?}", String::from_utf8_lossy(&head));
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let status = head.get(9..12).and_then(|status| status.parse().ok());
    Ok((status.with_context(|| format!("{path} was answered {head:?}"))?, stream))
}

/// The same as a WebSocket, as a page of that host opens it.
///
/// # Errors
/// When nobody answers.
pub fn web_socket(host: &str, path: &str, headers: &str) -> Result<(u16, TcpStream)> {
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    begin(host, path, &format!("{upgrade}Origin: http://{host}\r\n{headers}"))
}

/// A connection from another address of this machine.
///
/// # Errors
/// When nobody answers.
pub fn connect_from(from: [u8; 4], host: &str) -> Result<TcpStream> {
    let to: SocketAddr =
        host.parse().context("the server's address is not an IP address and a port")?;
    let (IpAddr::V4(ip), port) = (to.ip(), to.port()) else { bail!("{to} is not an IPv4 address") };
    let fd: OwnedFd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let [a, b, c, d] = from;
    bind(fd.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0))?;
    connect(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(ip, port)))?;
    let stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Asks for `/health` on a connection: the whole answer, empty where it was closed.
pub fn asks_health(mut stream: &TcpStream, host: &str) -> String {
    let _ = write!(stream, "GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}
