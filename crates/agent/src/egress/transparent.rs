//! Connections of programs that know no proxy, to the host by the name that they asked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::names::Names;
use super::way_out::{WayOut, accept_each};
use crate::report::Reporter;

/// The longest answer of the host's gate, in bytes.
const MAX_ANSWER: usize = 4096;

/// Accepts connections to each of these ports, at whatever address.
pub fn serve(way_out: &WayOut, reporter: &Reporter, names: &Names, ports: &[u16]) -> Result<()> {
    for port in ports {
        let any = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
        let mut listens = false;
        for address in any {
            let Ok(listener) = listen(SocketAddr::new(address, *port)) else { continue };
            listens = true;
            let (way_out, reporter, names) = (way_out.clone(), reporter.clone(), names.clone());
            let reported = reporter.clone();
            let carried = move |connection| {
                let (way_out, reporter, names) = (way_out.clone(), reporter.clone(), names.clone());
                async move {
                    if let Err(error) = carry(connection, &way_out, &names).await {
                        reporter.note(&format!("a connection without a proxy ended: {error:#}"));
                    }
                }
            };
            tokio::task::spawn_local(accept_each(
                listener,
                "the listener for programs without a proxy",
                reported,
                carried,
            ));
        }
        if !listens {
            bail!("opening port {port} for programs without a proxy failed");
        }
    }
    Ok(())
}

/// IPv6 by itself, so that both can have the port.
fn listen(address: SocketAddr) -> Result<TcpListener> {
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt,
        socket, sockopt,
    };
    use std::os::fd::AsRawFd;
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&socket, Backlog::new(64)?)?;
    Ok(TcpListener::from_std(std::net::TcpListener::from(socket))?)
}

async fn carry(mut connection: TcpStream, way_out: &WayOut, names: &Names) -> Result<()> {
    let wanted = connection.local_addr()?;
    if wanted.ip().is_loopback() {
        // For a program of the guest itself, and none listens there.
        return Ok(());
    }
    let _ = connection.set_nodelay(true);
    let host = names.of(wanted.ip());
    let authority = format!("{host}:{}", wanted.port());
    let (mut stream, _place) = way_out.open().await?;
    let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let head = answer_head(&mut stream).await?;
    if !head.starts_with("HTTP/1.1 200") {
        // What the program would see of a host that does not answer it.
        let _ = connection.set_zero_linger();
        bail!("{authority} was refused by the host");
    }
    // An error here is the peer's reset: the host has recorded what there was.
    let _ = tokio::io::copy_bidirectional(&mut connection, &mut stream).await;
    Ok(())
}

/// The head of the gate's answer, to its empty line.
async fn answer_head(stream: &mut (impl AsyncReadExt + Unpin)) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_ANSWER {
            bail!("the gate's answer has no end");
        }
        head.push(stream.read_u8().await.context("the gate closed the connection")?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
