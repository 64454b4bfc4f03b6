//! What programs try to send past every way out: the kernel refuses it, since nobody listens there,
//! and here it is seen, so that it can be reported.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use anteroom_guest_protocol::{GuestMessage, Transport};
use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};
use tokio::io::Interest;

use super::names::Names;
use crate::report::Reporter;

/// Addresses that are reported in a session.
const MAX_REPORTED: usize = 200;

/// Bytes of a packet that are read: the longest IPv4 head, and the ports.
const HEAD: u8 = 64;

/// Watches what is sent to other ports than `ports` (TCP), and to anything but DNS (UDP).
pub fn report(reporter: &Reporter, names: Names, ports: &[u16]) -> Result<()> {
    let mut watched = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp] {
        watched.push((transport, raw_socket(transport)?));
    }
    for (transport, socket) in watched {
        let (reporter, names, ports) = (reporter.clone(), names.clone(), ports.to_vec());
        tokio::task::spawn_local(async move {
            if let Err(error) = watch(socket, transport, &reporter, &names, &ports).await {
                reporter.note(&format!("refused packets can no longer be seen: {error:#}"));
            }
        });
    }
    Ok(())
}

/// A socket that gets a copy of each packet of a kind that is for others than loopback (raw(7)); for
/// TCP only of the first one of a connection.
fn raw_socket(transport: Transport) -> Result<OwnedFd> {
    let protocol = match transport {
        Transport::Tcp => SockProtocol::Tcp,
        Transport::Udp => SockProtocol::Udp,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet, SockType::Raw, flags, protocol)
        .context("opening a socket for refused packets failed")?;
    filter(&socket, transport).context("filtering packets failed")?;
    Ok(socket)
}

/// The kernel's filter (packet(7), linux/filter.h): without it every byte between a browser and its
/// proxy would wake us.
fn filter(socket: &OwnedFd, transport: Transport) -> io::Result<()> {
    const LOAD_BYTE: u16 = 0x30;
    const LOAD_BYTE_INDEXED: u16 = 0x50;
    const LOAD_HEAD_LENGTH: u16 = 0xb1;
    const AND: u16 = 0x54;
    const JUMP_EQUAL: u16 = 0x15;
    const JUMP_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let accept = u32::from(HEAD);
    let mut program = match transport {
        // SYN without ACK.
        Transport::Tcp => vec![
            step(LOAD_BYTE, 0, 0, 16),
            step(JUMP_EQUAL, 6, 0, 127),
            step(JUMP_AT_LEAST, 5, 0, 224),
            step(LOAD_HEAD_LENGTH, 0, 0, 0),
            step(LOAD_BYTE_INDEXED, 0, 0, 13),
            step(AND, 0, 0, 0x12),
            step(JUMP_EQUAL, 0, 1, 0x02),
            step(RETURN, 0, 0, accept),
            step(RETURN, 0, 0, 0),
        ],
        // Neither for loopback nor for a group (RFC 5771).
        Transport::Udp => vec![
            step(LOAD_BYTE, 0, 0, 16),
            step(JUMP_EQUAL, 2, 0, 127),
            step(JUMP_AT_LEAST, 1, 0, 224),
            step(RETURN, 0, 0, accept),
            step(RETURN, 0, 0, 0),
        ],
    };
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_mut_ptr(),
    };
    let length = libc::socklen_t::try_from(size_of_val(&program)).map_err(io::Error::other)?;
    // SAFETY: the kernel copies `len` steps from `filter`, which live through the call.
    #[expect(unsafe_code, reason = "nix has no wrapper for SO_ATTACH_FILTER")]
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&program).cast(),
            length,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

async fn watch(
    socket: OwnedFd,
    transport: Transport,
    reporter: &Reporter,
    names: &Names,
    ports: &[u16],
) -> Result<()> {
    // A datagram socket of another name: polled and read alike.
    let socket = tokio::net::UdpSocket::from_std(std::net::UdpSocket::from(socket))?;
    let mut reported = HashSet::new();
    loop {
        socket.readable().await?;
        let mut packet = [0; HEAD as usize];
        let read = socket.try_io(Interest::READABLE, || {
            recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()).map_err(io::Error::from)
        });
        let length = match read {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error).context("reading a packet failed"),
        };
        let Some((address, port)) = destination(&packet[..length]) else { continue };
        let is_served = match transport {
            Transport::Tcp => ports.contains(&port),
            Transport::Udp => port == 53,
        };
        if is_served || reported.len() == MAX_REPORTED || !reported.insert((address, port)) {
            continue;
        }
        let host = names.of(IpAddr::V4(address));
        reporter.report(GuestMessage::ConnectionBlocked { host, port, transport }).await;
    }
}

/// Address and port that an IPv4 packet with TCP or UDP is for (RFC 791, 3.1).
fn destination(packet: &[u8]) -> Option<(Ipv4Addr, u16)> {
    let head = usize::from(packet.first()? & 0xf) * 4;
    let address: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    let port: [u8; 2] = packet.get(head + 2..head + 4)?.try_into().ok()?;
    Some((address.into(), u16::from_be_bytes(port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_shows_its_destination() {
        let mut packet = vec![0x46; 28];
        packet[16..20].copy_from_slice(&[192, 0, 2, 1]);
        packet[24..28].copy_from_slice(&[0x12, 0x34, 0x01, 0xbb]);
        assert_eq!(destination(&packet), Some((Ipv4Addr::new(192, 0, 2, 1), 443)));
        for length in 0..28 {
            assert_eq!(destination(&packet[..length]), None);
        }
    }
}
