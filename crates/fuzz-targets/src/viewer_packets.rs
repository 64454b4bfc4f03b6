//! Datagrams to a peer with a viewer: from that viewer, whose handshake is done, from a stranger, and
//! from one that forges the viewer's address. None makes the peer panic or spin, and none ends a
//! connection that is up.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anteroom_media::peer::{Peer, PeerConfig, PeerEvent};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::channel::ChannelId;
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Input, Output, Rtc};

const SERVER: ([u8; 4], u16) = ([198, 51, 100, 1], 7000);
const VIEWER: ([u8; 4], u16) = ([203, 0, 113, 9], 4000);
const STRANGER: ([u8; 4], u16) = ([192, 0, 2, 66], 99);

/// The most datagrams that are taken at one moment for what one input says.
const AT_MOST: usize = 2000;

/// Panics where the reader does not hold what is written above.
pub fn run(bytes: &[u8]) {
    // The first byte says whether the viewer gets as far as a connection, which takes a while.
    let Some((first, mut rest)) = bytes.split_first() else { return };
    let mut net = Net::new();
    if first % 2 == 1 {
        net.connect();
    }
    // Then one byte that says what comes, two of its length, and as many bytes.
    while let Some(([kind, high, low], after)) = rest.split_first_chunk() {
        let length = u16::from_be_bytes([*high, *low]);
        let (datagram, after) = after.split_at(usize::from(length).min(after.len()));
        rest = after;
        match kind % 4 {
            0 => net.send_to_peer(VIEWER.into(), datagram),
            1 => net.send_to_peer(STRANGER.into(), datagram),
            2 => net.send_input(datagram),
            _ => net.run(Duration::from_millis(u64::from(length % 512))),
        }
    }
    net.run(Duration::from_millis(100));
    if first % 2 == 1 && net.viewer_alive {
        assert!(!net.disconnected, "datagrams ended a connection that was up");
    }
}

/// A peer and a viewer, in virtual time and with no time on the wire.
struct Net {
    peer: Peer,
    viewer: Rtc,
    input: ChannelId,
    viewer_alive: bool,
    channels_open: bool,
    disconnected: bool,
    next: Instant,
    now: Instant,
}

impl Net {
    fn new() -> Self {
        let now = Instant::now();
        let (mut viewer, offer, pending, input) = new_viewer(now);
        let config = PeerConfig {
            candidates: vec![SERVER.into()],
            start_bitrate_bps: 1_000_000,
            max_bitrate_bps: 4_000_000,
        };
        let (peer, answer) = Peer::answer(&offer, &config, now).expect("a good offer is answered");
        let answer = SdpAnswer::from_sdp_string(&answer).expect("the answer is SDP");
        viewer.sdp_api().accept_answer(pending, answer).expect("the viewer takes the answer");
        Self {
            peer,
            viewer,
            input,
            viewer_alive: true,
            channels_open: false,
            disconnected: false,
            next: now,
            now,
        }
    }

    fn connect(&mut self) {
        for _ in 0..100 {
            self.run(Duration::from_millis(20));
            if self.channels_open {
                return;
            }
        }
        panic!("the viewer got no connection");
    }

    fn send_to_peer(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.peer.datagram(from, SERVER.into(), datagram, self.now);
        self.exchange();
    }

    fn send_input(&mut self, message: &[u8]) {
        if let Some(mut channel) = self.viewer.channel(self.input) {
            let _ = channel.write(false, message);
        }
        self.exchange();
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.exchange();
        loop {
            // Never the same moment twice: a peer that asks for it would hold up time itself.
            let soon = self.now + Duration::from_millis(1);
            self.now = self.next.min(self.peer.next_timeout()).max(soon);
            if self.now >= end {
                self.now = end;
                return;
            }
            self.peer.timeout(self.now);
            let _ = self.viewer.handle_input(Input::Timeout(self.now));
            self.exchange();
        }
    }

    /// Carries datagrams until neither has any.
    fn exchange(&mut self) {
        let mut carried = 0;
        loop {
            let before = carried;
            for datagram in self.sent_by_viewer() {
                self.peer.datagram(VIEWER.into(), SERVER.into(), &datagram, self.now);
                carried += 1;
            }
            while let Some(transmit) = self.peer.poll_transmit() {
                carried += 1;
                if transmit.to != VIEWER.into() {
                    continue;
                }
                if let Ok(receive) =
                    Receive::new(Protocol::Udp, SERVER.into(), VIEWER.into(), &transmit.bytes)
                {
                    let _ = self.viewer.handle_input(Input::Receive(self.now, receive));
                }
            }
            while let Some(event) = self.peer.poll_event() {
                self.channels_open |= event == PeerEvent::CursorChannelOpen;
                self.disconnected |= event == PeerEvent::Disconnected;
            }
            if carried == before {
                return;
            }
            assert!(carried < AT_MOST, "one input is answered by datagrams without end");
        }
    }

    fn sent_by_viewer(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        loop {
            match self.viewer.poll_output() {
                Ok(Output::Transmit(transmit)) => sent.push(transmit.contents.to_vec()),
                Ok(Output::Event(_)) => {}
                Ok(Output::Timeout(at)) => {
                    self.next = at;
                    return sent;
                }
                // The viewer is of no use any more; the peer goes on.
                Err(_) => {
                    self.viewer_alive = false;
                    self.next = self.now + Duration::from_secs(3600);
                    return sent;
                }
            }
        }
    }
}

fn new_viewer(now: Instant) -> (Rtc, String, SdpPendingOffer, ChannelId) {
    let mut viewer = Rtc::builder().build(now);
    let host = Candidate::host(VIEWER.into(), Protocol::Udp).expect("the address is one");
    viewer.add_local_candidate(host);
    let mut change = viewer.sdp_api();
    change.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
    let input = change.add_channel("input".into());
    change.add_channel("cursor".into());
    let (offer, pending) = change.apply().expect("there is something to offer");
    let offer = offer.to_sdp_string();
    // str0m draws the names of an offer's two sections by lot, and seldom the same for both: then no
    // answer could be taken.
    let mids: Vec<_> = offer.lines().filter(|line| line.starts_with("a=mid:")).collect();
    if mids[0] == mids[1] { new_viewer(now) } else { (viewer, offer, pending, input) }
}
