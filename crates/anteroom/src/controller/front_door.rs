//! The front door: the one UDP port by which every viewer's media comes in.
//!
//! The first packets of a viewer are STUN binding requests whose user name starts with the ICE user
//! fragment that its answer gave out: they lead to the session, and from then on the address does.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, PoisonError};

use anteroom_session::SessionId;
use anyhow::{Context, Result};
use tokio::net::UdpSocket;

use crate::runner_protocol::datagram;

/// Addresses remembered; a flood from forged ones must not grow without bound.
const MAX_ADDRESSES: usize = 4096;

/// Shared between the receiving task and the sessions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FrontDoor {
    socket: Arc<StdUdpSocket>,
    routes: Arc<Mutex<Routes>>,
}

#[derive(Debug, Default)]
struct Routes {
    runners: HashMap<SessionId, Arc<UnixDatagram>>,
    fragments: HashMap<String, SessionId>,
    addresses: HashMap<SocketAddr, SessionId>,
}

impl FrontDoor {
    /// Binds the port and starts to receive.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let socket = StdUdpSocket::bind(address)
            .with_context(|| format!("binding UDP {address} for media failed"))?;
        socket.set_nonblocking(true)?;
        let receiving = UdpSocket::from_std(socket.try_clone()?)?;
        let door = Self { socket: Arc::new(socket), routes: Arc::default() };
        tokio::spawn(receive(receiving, door.routes.clone()));
        Ok(door)
    }

    /// Where viewers send to.
    pub fn address(&self) -> Result<SocketAddr> {
        self.socket.local_addr().context("asking for the media port failed")
    }

    /// A duplicate of the socket, for a runner to send by.
    pub fn duplicate(&self) -> Result<StdUdpSocket> {
        self.socket.try_clone().context("duplicating the media socket failed")
    }

    /// Leads a session's packets to its runner.
    pub fn add_session(&self, session: SessionId, runner: UnixDatagram) {
        self.with(|routes| routes.runners.insert(session, Arc::new(runner)));
    }

    /// Leads packets with this ICE user fragment to a session.
    pub fn add_fragment(&self, fragment: &str, session: SessionId) {
        self.with(|routes| routes.fragments.insert(fragment.to_owned(), session));
    }

    /// Forgets a session.
    pub fn remove_session(&self, session: SessionId) {
        self.with(|routes| {
            routes.runners.remove(&session);
            routes.fragments.retain(|_, of| *of != session);
            routes.addresses.retain(|_, of| *of != session);
        });
    }

    fn with<T>(&self, change: impl FnOnce(&mut Routes) -> T) -> T {
        change(&mut self.routes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn receive(socket: UdpSocket, routes: Arc<Mutex<Routes>>) {
    let mut buffer = vec![0; 2048];
    loop {
        // An error here is an ICMP answer to something a runner sent; the port itself goes on.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let packet = &buffer[..length];
        let runner = routes.lock().unwrap_or_else(PoisonError::into_inner).route(packet, from);
        if let Some(runner) = runner {
            // A runner that does not keep up loses packets, as on any full link.
            let _ = runner.send(&datagram::encode(from, packet));
        }
    }
}

impl Routes {
    fn route(&mut self, packet: &[u8], from: SocketAddr) -> Option<Arc<UnixDatagram>> {
        let by_fragment =
            stun_fragment(packet).and_then(|fragment| self.fragments.get(fragment)).copied();
        let session = match by_fragment {
            Some(session) => {
                if self.addresses.len() >= MAX_ADDRESSES {
                    self.addresses.clear();
                }
                self.addresses.insert(from, session);
                session
            }
            None => *self.addresses.get(&from)?,
        };
        self.runners.get(&session).cloned()
    }
}

/// The receiver's user fragment in a STUN binding request (RFC 8489; RFC 8445, 7.2.2: the user name
/// is `receiver:sender`).
fn stun_fragment(packet: &[u8]) -> Option<&str> {
    const BINDING_REQUEST: [u8; 2] = [0, 1];
    const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
    const USERNAME: u16 = 6;
    let (header, mut attributes) = packet.split_at_checked(20)?;
    if header[..2] != BINDING_REQUEST || header[4..8] != COOKIE {
        return None;
    }
    while let Some((head, rest)) = attributes.split_at_checked(4) {
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = rest.get(..length)?;
        if kind == USERNAME {
            return std::str::from_utf8(value).ok()?.split(':').next();
        }
        attributes = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding_request(user: &str) -> Vec<u8> {
        let mut packet = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        packet.extend([0; 12]);
        packet.extend([0x80, 0x22, 0, 3, b'a', b'b', b'c', 0]);
        packet.extend([0, 6]);
        packet.extend(u16::try_from(user.len()).unwrap().to_be_bytes());
        packet.extend(user.as_bytes());
        packet
    }

    #[test]
    fn packets_follow_the_fragment_and_then_the_address() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let session = SessionId::generate();
        let mut routes = Routes::default();
        routes.runners.insert(session, Arc::new(ours));
        routes.fragments.insert("room".into(), session);
        let from: SocketAddr = "192.0.2.1:5000".parse().unwrap();
        assert!(routes.route(b"media", from).is_none());
        assert!(routes.route(&binding_request("other:x"), from).is_none());
        assert!(routes.route(&binding_request("room:x"), from).is_some());
        assert!(routes.route(b"media", from).is_some());
        drop(theirs);
    }

    #[test]
    fn broken_packets_lead_nowhere() {
        let whole = binding_request("room:x");
        assert_eq!(stun_fragment(&whole), Some("room"));
        for length in 0..whole.len() {
            assert_eq!(stun_fragment(&whole[..length]), None);
        }
    }
}
