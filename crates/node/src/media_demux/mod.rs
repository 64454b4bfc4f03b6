//! The media demultiplexer: the one UDP port that every viewer's media goes through, both ways.
//! [`Routes`] maps a packet to its session; each session's runner decides which addresses may take part.
//! Only the controller holds the port: a runner sends through it, to addresses that it has authenticated.

mod routes;

use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::os::unix::net::UnixDatagram as StdUnixDatagram;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anteroom_runner_protocol::datagram;
use anteroom_session::SessionId;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use tokio::net::{UdpSocket, UnixDatagram};
use tokio_util::task::AbortOnDropHandle;

use crate::error::LocalNodeError;
use anteroom_guest_session::pace;
use routes::Routes;

/// Bytes a second that a session may send, several times what its encoder is held to, and how many at
/// once: its runner waits then.
const MAX_SENT: usize = 8 << 20;
const MAX_SENT_AT_ONCE: usize = 1 << 20;

/// What the least packet counts of that: sending it is work too.
const LEAST_PACKET: usize = 200;

/// Bytes that may wait between a runner and the demultiplexer each way; where the kernel allows fewer,
/// as many as it does. A key frame of a full desktop has some 300 kB.
const WAITING: usize = 2 << 20;

/// A pause after an error of the port, so that one that stays takes nobody's time.
const AFTER_ERROR: Duration = Duration::from_millis(1);

/// Shared between the receiving task and the sessions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MediaDemux {
    port: Arc<UdpSocket>,
    routes: Arc<Mutex<Routes<Runner>>>,
}

/// The demultiplexer's end of a runner's media socket, and the task that takes what the runner sends.
#[derive(Debug)]
struct Runner {
    media: Arc<UnixDatagram>,
    _taking: AbortOnDropHandle<()>,
}

impl MediaDemux {
    /// Binds the port and starts to receive.
    pub fn open(address: SocketAddr) -> Result<Self, LocalNodeError> {
        let port = StdUdpSocket::bind(address)
            .map_err(LocalNodeError::system(format!("binding UDP {address} for media")))?;
        port.set_nonblocking(true)?;
        let port = Arc::new(UdpSocket::from_std(port)?);
        let demux = Self { port, routes: Arc::default() };
        tokio::spawn(receive(demux.clone()));
        Ok(demux)
    }

    /// Where viewers send to.
    pub fn address(&self) -> Result<SocketAddr, LocalNodeError> {
        self.port.local_addr().map_err(LocalNodeError::system("asking for the media port"))
    }

    /// Takes a session in; gives the socket that its runner receives and sends media by.
    pub fn add_session(&self, session: SessionId) -> Result<StdUnixDatagram, LocalNodeError> {
        let (media, runner) = pair().map_err(LocalNodeError::system("making the media socket"))?;
        for end in [&media, &runner] {
            // Only the kernel's administrator may go past its bound; the rest get up to it.
            if setsockopt(end, sockopt::SndBufForce, &WAITING).is_err() {
                setsockopt(end, sockopt::SndBuf, &WAITING)
                    .map_err(LocalNodeError::system("setting the size of the media socket"))?;
            }
        }
        let preparing = || LocalNodeError::system("preparing the media socket");
        media.set_nonblocking(true).map_err(preparing())?;
        let media = UnixDatagram::from_std(media).map_err(preparing())?;
        let media = Arc::new(media);
        let taking = tokio::spawn(take(media.clone(), session, self.clone()));
        let runner_of = Runner { media, _taking: AbortOnDropHandle::new(taking) };
        self.with(|routes| routes.add_session(session, runner_of));
        Ok(runner)
    }

    /// Leads packets with this ICE user fragment to a session, in place of the one before; whether it
    /// can have it.
    #[must_use]
    pub fn set_fragment(&self, fragment: &str, session: SessionId) -> bool {
        self.with(|routes| routes.set_fragment(fragment, session))
    }

    /// Forgets a session.
    pub fn remove_session(&self, session: SessionId) {
        self.with(|routes| routes.remove_session(session));
    }

    fn with<T>(&self, change: impl FnOnce(&mut Routes<Runner>) -> T) -> T {
        change(&mut self.routes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Two sockets that send packets to each other and to nobody else: other datagram sockets may be
/// connected anew, to any that has a path or a name (unix(7)).
fn pair() -> nix::Result<(StdUnixDatagram, StdUnixDatagram)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    Ok((one.into(), other.into()))
}

async fn receive(demux: MediaDemux) {
    let mut buffer = vec![0; 2048];
    loop {
        let Ok((length, from)) = demux.port.recv_from(&mut buffer).await else {
            tokio::time::sleep(AFTER_ERROR).await;
            continue;
        };
        let packet = &buffer[..length];
        let now = Instant::now();
        let runner =
            demux.with(|routes| routes.route(packet, from, now).map(|runner| runner.media.clone()));
        if let Some(runner) = runner {
            // A runner that does not keep up loses packets, as on any full link.
            let _ = runner.try_send(&datagram::encode(from, packet));
        }
    }
}

/// Takes what a runner sends, until its session is forgotten: packets for its viewers, and which
/// addresses are theirs.
async fn take(media: Arc<UnixDatagram>, session: SessionId, demux: MediaDemux) {
    let mut buffer = vec![0; datagram::MAX_LEN];
    let pace = pace(MAX_SENT, MAX_SENT_AT_ONCE);
    while let Ok(length) = media.recv(&mut buffer).await {
        if length == 0 {
            // Its end: a runner of ours sends nothing that is empty.
            return;
        }
        pace.acquire(length.max(LEAST_PACKET)).await;
        match datagram::decode(&buffer[..length]) {
            Some((from, [])) => {
                demux.with(|routes| routes.authenticated(session, from, Instant::now()));
            }
            Some((to, packet)) if demux.with(|routes| routes.leads(to, session)) => {
                // What the network does not take is lost, as anywhere on the way.
                let _ = demux.port.send_to(packet, to).await;
            }
            // No viewer of this session is there. A runner of ours sends none of these.
            Some(_) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::routes::binding_request;
    use super::*;

    /// A session whose runner is the test; its end of the media socket.
    fn session(demux: &MediaDemux, fragment: &str) -> (SessionId, UnixDatagram) {
        let id = SessionId::generate();
        let runner = demux.add_session(id).unwrap();
        runner.set_nonblocking(true).unwrap();
        assert!(demux.set_fragment(fragment, id));
        (id, UnixDatagram::from_std(runner).unwrap())
    }

    async fn heard(runner: &UnixDatagram) -> (SocketAddr, Vec<u8>) {
        let mut buffer = [0; datagram::MAX_LEN];
        let length = runner.recv(&mut buffer).await.unwrap();
        let (from, packet) = datagram::decode(&buffer[..length]).unwrap();
        (from, packet.to_vec())
    }

    async fn viewer(demux: &MediaDemux) -> UdpSocket {
        let viewer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        viewer.connect(demux.address().unwrap()).await.unwrap();
        viewer
    }

    /// As its runner does with an authentic request.
    async fn joins(viewer: &UdpSocket, fragment: &str, runner: &UnixDatagram, demux: &MediaDemux) {
        viewer.send(&binding_request(&format!("{fragment}:x"))).await.unwrap();
        let (from, _) = heard(runner).await;
        assert_eq!(from, viewer.local_addr().unwrap());
        runner.send(&datagram::encode(from, &[])).await.unwrap();
        let is_known = || demux.with(|routes| routes.route(b"x", from, Instant::now()).is_some());
        while !is_known() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_viewer_s_thousands_of_ports_cut_nobody_else_off() {
        let demux = MediaDemux::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let ((_, sandbox), (hostile_id, hostile_guest)) =
            (session(&demux, "a"), session(&demux, "b"));
        let end_user = viewer(&demux).await;
        joins(&end_user, "a", &sandbox, &demux).await;
        // A hostile viewer and a hostile runner: every one of its addresses is called authentic.
        let (mut buffer, request) = ([0; datagram::MAX_LEN], binding_request("b:x"));
        for _ in 0..4200 {
            let hostile = viewer(&demux).await;
            hostile.send(&request).await.unwrap();
            while let Ok(length) = hostile_guest.try_recv(&mut buffer) {
                let (from, _) = datagram::decode(&buffer[..length]).unwrap();
                let _ = hostile_guest.try_send(&datagram::encode(from, &[]));
            }
        }
        // It claims the end user's address too.
        let theirs = datagram::encode(end_user.local_addr().unwrap(), &[]);
        let _ = hostile_guest.try_send(&theirs);
        end_user.send(b"media").await.unwrap();
        assert_eq!(heard(&sandbox).await, (end_user.local_addr().unwrap(), b"media".to_vec()));
        demux.remove_session(hostile_id);
    }

    #[tokio::test]
    async fn a_picture_s_worth_of_packets_waits_for_the_demultiplexer() {
        let demux = MediaDemux::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let (_, sandbox) = session(&demux, "a");
        let end_user = viewer(&demux).await;
        joins(&end_user, "a", &sandbox, &demux).await;
        // One thread: the demultiplexer takes nothing before this waits. More than 10, which is what a
        // Unix datagram socket takes whose other end is not its own pair.
        let packet = datagram::encode(end_user.local_addr().unwrap(), &[7; 1200]);
        for _ in 0..60 {
            sandbox.try_send(&packet).unwrap();
        }
        let mut buffer = [0; 2048];
        for _ in 0..60 {
            assert_eq!(end_user.recv(&mut buffer).await.unwrap(), 1200);
        }
    }

    #[tokio::test]
    async fn a_runner_reaches_only_its_own_viewers() {
        let demux = MediaDemux::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let ((_, sandbox), (_, hostile)) = (session(&demux, "a"), session(&demux, "b"));
        let (end_user, accomplice) = (viewer(&demux).await, viewer(&demux).await);
        joins(&end_user, "a", &sandbox, &demux).await;
        joins(&accomplice, "b", &hostile, &demux).await;
        let stranger = StdUdpSocket::bind("127.0.0.1:0").unwrap();
        stranger.set_nonblocking(true).unwrap();
        for address in [end_user.local_addr(), stranger.local_addr(), demux.port.local_addr()] {
            hostile.send(&datagram::encode(address.unwrap(), b"hostile")).await.unwrap();
        }
        // What is not an address at all.
        hostile.send(&[9; 40]).await.unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let elsewhere = elsewhere.path().join("log");
        let log = StdUnixDatagram::bind(&elsewhere).unwrap();
        log.set_nonblocking(true).unwrap();
        assert!(hostile.connect(&elsewhere).is_err());
        let _ = hostile.send_to(b"hostile", &elsewhere).await;
        assert!(log.recv(&mut [0; 64]).is_err());
        // All these were taken once this is there.
        hostile.send(&datagram::encode(accomplice.local_addr().unwrap(), b"own")).await.unwrap();
        let mut buffer = [0; 64];
        let length = accomplice.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"own");
        hostile.shutdown(std::net::Shutdown::Both).unwrap();
        sandbox.send(&datagram::encode(end_user.local_addr().unwrap(), b"media")).await.unwrap();
        let length = end_user.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"media");
        assert!(stranger.recv(&mut buffer).is_err());
    }

    #[tokio::test]
    async fn what_no_runner_has_authenticated_leads_nowhere() {
        let demux = MediaDemux::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let (_, sandbox) = session(&demux, "a");
        let (stranger, end_user) = (viewer(&demux).await, viewer(&demux).await);
        stranger.send(&binding_request("a:x")).await.unwrap();
        assert_eq!(heard(&sandbox).await.0, stranger.local_addr().unwrap());
        stranger.send(b"not media").await.unwrap();
        joins(&end_user, "a", &sandbox, &demux).await;
        end_user.send(b"media").await.unwrap();
        assert_eq!(heard(&sandbox).await.1, b"media");
    }
}
