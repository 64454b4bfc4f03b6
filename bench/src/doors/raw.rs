//! Requests as an attacker writes them: bytes on a socket.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};

use super::Outcome;

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
    /// Refused when the status is one of these.
    pub fn refused_with(&self, statuses: &[u16]) -> Outcome {
        if statuses.contains(&self.status) {
            return Outcome::Refused;
        }
        let start: String = self.text.chars().take(200).collect();
        Outcome::Passed(format!("it was answered {}: {start:?}", self.status))
    }
}

/// The host and port of an `http://` address.
pub fn host(url: &str) -> &str {
    url.trim_start_matches("http://")
}

/// Sends these bytes and reads until the other side closes.
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
pub fn ask(host: &str, method: &str, path: &str, headers: &str, body: &str) -> Result<Answer> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    exchange(host, format!("{head}{body}").as_bytes())
}

/// A GET whose answer goes on: its stream once the head is there, and the answer's status.
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

/// The same as a WebSocket.
pub fn web_socket(host: &str, path: &str, headers: &str) -> Result<(u16, TcpStream)> {
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    begin(host, path, &format!("{upgrade}{headers}"))
}

/// Whether the other side closes within `at_most`; what it still sends is thrown away.
pub fn closes(mut stream: TcpStream, since: Instant, at_most: Duration) -> Result<Outcome> {
    let mut rest = [0; 4096];
    loop {
        let left = at_most.saturating_sub(since.elapsed()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut rest) {
            // A WebSocket is closed by its own message first: the connection's end follows.
            Ok(0) => return Ok(Outcome::Refused),
            Ok(_) if since.elapsed() < at_most => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                return Ok(Outcome::Refused);
            }
            Ok(_) | Err(_) => {
                let seen = format!("it was open {} ms later", since.elapsed().as_millis());
                return Ok(Outcome::Passed(seen));
            }
        }
    }
}

/// A connection from another address of this machine.
pub fn connect_from(from: [u8; 4], host: &str) -> Result<TcpStream> {
    let to: SocketAddr = host.parse().context("the server's address is none")?;
    let (IpAddr::V4(ip), port) = (to.ip(), to.port()) else { bail!("{to} is no IPv4 address") };
    let fd: OwnedFd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let [a, b, c, d] = from;
    bind(fd.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0))?;
    connect(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(ip, port)))?;
    let stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}
