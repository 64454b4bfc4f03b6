//! The front door: the one UDP port by which every viewer's media comes in. [`Routes`] says which
//! session a packet is for; which addresses it may go by, each session's runner says.

use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::os::unix::net::UnixDatagram as StdUnixDatagram;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anteroom_session::SessionId;
use anyhow::{Context, Result};
use tokio::net::{UdpSocket, UnixDatagram};
use tokio::task::JoinHandle;

use super::routes::Routes;
use crate::runner_protocol::datagram;

/// Shared between the receiving task and the sessions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FrontDoor {
    socket: Arc<StdUdpSocket>,
    routes: Arc<Mutex<Routes<Runner>>>,
}

/// A runner's end of the media socket, and the task that hears which addresses it has authenticated.
#[derive(Debug)]
struct Runner {
    media: Arc<UnixDatagram>,
    hearing: JoinHandle<()>,
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.hearing.abort();
    }
}

impl FrontDoor {
    /// Binds the port and starts to receive.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let socket = StdUdpSocket::bind(address)
            .with_context(|| format!("binding UDP {address} for media failed"))?;
        socket.set_nonblocking(true)?;
        let receiving = UdpSocket::from_std(socket.try_clone()?)?;
        let door = Self { socket: Arc::new(socket), routes: Arc::default() };
        tokio::spawn(receive(receiving, door.clone()));
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

    /// Leads a session's packets to its runner, by this (non-blocking) socket.
    pub fn add_session(&self, session: SessionId, media: StdUnixDatagram) -> Result<()> {
        let media = UnixDatagram::from_std(media).context("preparing the media socket failed")?;
        let media = Arc::new(media);
        let hearing = tokio::spawn(hear(media.clone(), session, self.clone()));
        self.with(|routes| routes.add_session(session, Runner { media, hearing }));
        Ok(())
    }

    /// Leads packets with this ICE user fragment to a session, in place of the one before.
    pub fn set_fragment(&self, fragment: &str, session: SessionId) {
        self.with(|routes| routes.set_fragment(fragment, session));
    }

    /// Forgets a session.
    pub fn remove_session(&self, session: SessionId) {
        self.with(|routes| routes.remove_session(session));
    }

    fn with<T>(&self, change: impl FnOnce(&mut Routes<Runner>) -> T) -> T {
        change(&mut self.routes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How many receipts without a packet there may be before a pause, and how long that is: short, since
/// anybody can send empty packets.
const EMPTY_IN_A_ROW: u32 = 64;
const EMPTY_PAUSE: Duration = Duration::from_millis(1);

async fn receive(socket: UdpSocket, door: FrontDoor) {
    let mut buffer = vec![0; 2048];
    let mut empty = 0;
    loop {
        // Each runner has the port's socket to send by, and can shut it down: then this is at once, for
        // ever, and must not take the controller along.
        if empty >= EMPTY_IN_A_ROW {
            empty = 0;
            tokio::time::sleep(EMPTY_PAUSE).await;
        }
        // Not `recv_from`, which on a socket that was shut down tries again in itself, for ever.
        let received = match socket.readable().await {
            Ok(()) => socket.try_recv_from(&mut buffer),
            Err(error) => Err(error),
        };
        let (length, from) = match received {
            Ok((length, from)) if length > 0 => (length, from),
            // An error is an ICMP answer to something a runner sent; the port itself goes on.
            Ok(_) | Err(_) => {
                empty += 1;
                continue;
            }
        };
        empty = 0;
        let packet = &buffer[..length];
        let now = Instant::now();
        let runner =
            door.with(|routes| routes.route(packet, from, now).map(|runner| runner.media.clone()));
        if let Some(runner) = runner {
            // A runner that does not keep up loses packets, as on any full link.
            let _ = runner.try_send(&datagram::encode(from, packet));
        }
    }
}

/// Hears which addresses a runner has authenticated, until its session is forgotten.
async fn hear(media: Arc<UnixDatagram>, session: SessionId, door: FrontDoor) {
    let mut buffer = [0; datagram::HEADER_LEN + 1];
    while let Ok(length) = media.recv(&mut buffer).await {
        if let Some((address, [])) = datagram::decode(&buffer[..length]) {
            door.with(|routes| routes.authenticated(session, address, Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::routes::binding_request;
    use super::*;

    /// A session whose runner is the test; its end of the media socket.
    fn session(door: &FrontDoor, fragment: &str) -> (SessionId, UnixDatagram) {
        let (ours, theirs) = StdUnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let id = SessionId::generate();
        door.add_session(id, ours).unwrap();
        door.set_fragment(fragment, id);
        (id, UnixDatagram::from_std(theirs).unwrap())
    }

    async fn heard(runner: &UnixDatagram) -> (SocketAddr, Vec<u8>) {
        let mut buffer = [0; datagram::MAX_LEN];
        let length = runner.recv(&mut buffer).await.unwrap();
        let (from, packet) = datagram::decode(&buffer[..length]).unwrap();
        (from, packet.to_vec())
    }

    async fn viewer(door: &FrontDoor) -> UdpSocket {
        let viewer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        viewer.connect(door.address().unwrap()).await.unwrap();
        viewer
    }

    #[tokio::test]
    async fn a_port_that_a_runner_has_shut_down_takes_nobody_along() {
        let door = FrontDoor::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let theirs = door.duplicate().unwrap();
        // It says that nobody is connected, and does it.
        let _ = nix::sys::socket::shutdown(
            std::os::fd::AsRawFd::as_raw_fd(&theirs),
            nix::sys::socket::Shutdown::Both,
        );
        // One thread: a task that never waits would keep this from coming back.
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// As its runner does with an authentic request.
    async fn joins(viewer: &UdpSocket, fragment: &str, runner: &UnixDatagram, door: &FrontDoor) {
        viewer.send(&binding_request(&format!("{fragment}:x"))).await.unwrap();
        let (from, _) = heard(runner).await;
        assert_eq!(from, viewer.local_addr().unwrap());
        runner.send(&datagram::encode(from, &[])).await.unwrap();
        let is_known = || door.with(|routes| routes.route(b"x", from, Instant::now()).is_some());
        while !is_known() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_viewer_s_thousands_of_ports_cut_nobody_else_off() {
        let door = FrontDoor::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let ((_, room), (hostile_id, hostile_room)) = (session(&door, "a"), session(&door, "b"));
        let person = viewer(&door).await;
        joins(&person, "a", &room, &door).await;
        // A hostile viewer and a hostile runner: every one of its addresses is called authentic.
        let (mut buffer, request) = ([0; datagram::MAX_LEN], binding_request("b:x"));
        for _ in 0..4200 {
            let hostile = viewer(&door).await;
            hostile.send(&request).await.unwrap();
            while let Ok(length) = hostile_room.try_recv(&mut buffer) {
                let (from, _) = datagram::decode(&buffer[..length]).unwrap();
                let _ = hostile_room.try_send(&datagram::encode(from, &[]));
            }
        }
        // It claims the person's address too.
        let theirs = datagram::encode(person.local_addr().unwrap(), &[]);
        let _ = hostile_room.try_send(&theirs);
        person.send(b"media").await.unwrap();
        assert_eq!(heard(&room).await, (person.local_addr().unwrap(), b"media".to_vec()));
        door.remove_session(hostile_id);
    }

    #[tokio::test]
    async fn what_no_runner_has_authenticated_leads_nowhere() {
        let door = FrontDoor::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let (_, room) = session(&door, "a");
        let (stranger, person) = (viewer(&door).await, viewer(&door).await);
        stranger.send(&binding_request("a:x")).await.unwrap();
        assert_eq!(heard(&room).await.0, stranger.local_addr().unwrap());
        stranger.send(b"not media").await.unwrap();
        joins(&person, "a", &room, &door).await;
        person.send(b"media").await.unwrap();
        assert_eq!(heard(&room).await.1, b"media");
    }
}
