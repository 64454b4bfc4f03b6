use std::time::Duration;

use anteroom_guest_protocol::input::PointerButton;
use proptest::prelude::*;

use super::*;
use crate::testing::{TestViewer, VIEWER};

const SERVER: &str = "198.51.100.1:7000";

fn config() -> PeerConfig {
    PeerConfig {
        candidates: vec![SERVER.parse().unwrap()],
        start_bitrate_bps: 5_000_000,
        max_bitrate_bps: 20_000_000,
    }
}

/// A peer and a viewer joined by a wire of 5 ms, in virtual time.
struct Net {
    peer: Peer,
    viewer: TestViewer,
    now: Instant,
    events: Vec<PeerEvent>,
    wakes: usize,
    sent: usize,
    // Arrival, whether to the viewer, bytes.
    wire: VecDeque<(Instant, bool, Vec<u8>)>,
}

impl Net {
    fn new(change_answer: impl Fn(String) -> String) -> Self {
        let now = Instant::now();
        let (mut viewer, offer) = TestViewer::new(now, VIEWER.parse().unwrap());
        let (peer, answer) = Peer::answer(&offer, &config(), now).unwrap();
        assert!(answer.contains(peer.ufrag()) && answer.contains("a=ice-lite"));
        viewer.accept(&change_answer(answer));
        Self { peer, viewer, now, events: Vec::new(), wakes: 0, sent: 0, wire: VecDeque::new() }
    }

    fn connected() -> Self {
        let mut net = Self::new(|answer| answer);
        net.run(Duration::from_secs(2));
        assert!(net.events.contains(&PeerEvent::Connected), "{:?}", net.events);
        net
    }

    fn exchange(&mut self) {
        let arrival = self.now + Duration::from_millis(5);
        for (to, bytes) in self.viewer.drain() {
            assert_eq!(to, SERVER.parse().unwrap());
            self.wire.push_back((arrival, false, bytes));
        }
        while let Some(transmit) = self.peer.poll_transmit() {
            assert_eq!(transmit.to, self.viewer.address);
            self.sent += transmit.bytes.len();
            self.wire.push_back((arrival, true, transmit.bytes));
        }
        self.events.extend(std::iter::from_fn(|| self.peer.poll_event()));
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.exchange();
            let wire = self.wire.front().map_or(end, |(at, ..)| *at);
            let step = self.now + Duration::from_micros(100);
            let next = wire.min(self.viewer.next).min(self.peer.next_timeout()).max(step);
            if next >= end {
                self.now = end;
                return;
            }
            self.now = next;
            while let Some((_, to_viewer, bytes)) = self.wire.pop_front_if(|(at, ..)| *at <= next) {
                if to_viewer {
                    self.viewer.datagram(SERVER.parse().unwrap(), &bytes, next);
                } else {
                    let from = self.viewer.address;
                    self.peer.datagram(from, SERVER.parse().unwrap(), &bytes, next);
                }
            }
            if self.viewer.next <= next {
                self.viewer.timeout(next);
            }
            if self.peer.next_timeout() <= next {
                self.wakes += 1;
                self.peer.timeout(next);
            }
        }
    }

    fn inputs(&self) -> Vec<&InputEvent> {
        self.events
            .iter()
            .filter_map(|e| if let PeerEvent::Input(i) = e { Some(i) } else { None })
            .collect()
    }
}

/// A VP9 key frame or not, as far as packetizers look.
fn frame(byte: u8, len: usize) -> EncodedFrame {
    let mut data = vec![byte; len];
    data[0] = 0x82;
    EncodedFrame { data, key: true, quantizer: 20 }
}

#[test]
fn media_input_pointer_and_key_frame_requests_pass() {
    let mut net = Net::connected();
    assert_eq!(net.peer.codec(), Codec::Vp9);
    for n in 0..10 {
        net.peer.frame(frame(n, 3000), net.now, net.now);
        net.run(Duration::from_millis(17));
    }
    net.viewer.send_input(r#"{"type":"pointer_button","button":"left","pressed":true}"#);
    net.viewer.send_input("{}");
    net.peer.cursor(r#"{"type":"cursor_hidden"}"#.into(), net.now);
    net.run(Duration::from_secs(1));
    assert!(net.viewer.frames.len() >= 9, "{} frames came", net.viewer.frames.len());
    assert!(net.viewer.frames.iter().all(|frame| frame.len() == 3000));
    let pressed = InputEvent::PointerButton { button: PointerButton::Left, pressed: true };
    assert_eq!(net.inputs(), [&pressed]);
    assert_eq!(net.peer.dropped_inputs(), 1);
    assert_eq!(net.viewer.cursors, [r#"{"type":"cursor_hidden"}"#]);
    assert!(net.events.contains(&PeerEvent::CursorChannelOpen));
    assert!(net.events.iter().any(|event| matches!(event, PeerEvent::BitrateEstimate(_))));

    net.viewer.ask_for_key_frame();
    net.run(Duration::from_secs(1));
    assert!(net.events.contains(&PeerEvent::KeyframeRequested));
}

#[test]
fn a_viewer_that_leaves_is_noticed() {
    let mut net = Net::connected();
    net.viewer.rtc.close().unwrap();
    net.run(Duration::from_secs(1));
    assert!(net.events.contains(&PeerEvent::Disconnected));
    // And one that vanishes.
    let mut net = Net::connected();
    net.viewer.rtc.disconnect();
    net.run(Duration::from_secs(60));
    assert!(net.events.contains(&PeerEvent::Disconnected));
}

#[test]
fn a_wrong_fingerprint_never_connects() {
    // The viewer expects another certificate of us.
    let mut net = Net::new(|answer| with_other_fingerprint(&answer));
    net.run(Duration::from_secs(5));
    net.peer.frame(frame(1, 500), net.now, net.now);
    net.run(Duration::from_secs(5));
    assert!(net.viewer.frames.is_empty());

    // We expect another certificate of the viewer.
    let now = Instant::now();
    let (mut viewer, offer) = TestViewer::new(now, VIEWER.parse().unwrap());
    let (peer, answer) = Peer::answer(&with_other_fingerprint(&offer), &config(), now).unwrap();
    viewer.accept(&answer);
    let mut net =
        Net { peer, viewer, now, events: Vec::new(), wakes: 0, sent: 0, wire: VecDeque::new() };
    net.run(Duration::from_secs(5));
    net.peer.frame(frame(1, 500), net.now, net.now);
    net.run(Duration::from_secs(5));
    assert!(!net.events.contains(&PeerEvent::Connected), "{:?}", net.events);
    assert!(net.viewer.frames.is_empty() && net.inputs().is_empty());
}

fn with_other_fingerprint(sdp: &str) -> String {
    sdp.lines()
        .map(|line| match line.split_once("a=fingerprint:sha-256 ") {
            Some((_, hex)) => {
                let other: String = hex
                    .chars()
                    .map(|c| {
                        if c == '0' {
                            '1'
                        } else if c == ':' {
                            ':'
                        } else {
                            '0'
                        }
                    })
                    .collect();
                format!("a=fingerprint:sha-256 {other}\r\n")
            }
            None => format!("{line}\r\n"),
        })
        .collect()
}

#[test]
fn strangers_datagrams_are_ignored() {
    let mut net = Net::connected();
    let stranger = "192.0.2.66:99".parse().unwrap();
    for bytes in [&b""[..], &[0; 3], &[22; 200], &[128; 1200], &[0xff; 1500]] {
        net.peer.datagram(stranger, SERVER.parse().unwrap(), bytes, net.now);
        // Also with the viewer's address forged on it.
        net.peer.datagram(net.viewer.address, SERVER.parse().unwrap(), bytes, net.now);
    }
    net.peer.frame(frame(1, 900), net.now, net.now);
    net.run(Duration::from_secs(1));
    assert!(!net.events.contains(&PeerEvent::Disconnected));
    net.peer.frame(frame(1, 900), net.now, net.now);
    net.run(Duration::from_secs(1));
    assert!(!net.viewer.frames.is_empty());
}

fn refused(offer: &str) -> OfferError {
    match Peer::answer(offer, &config(), Instant::now()) {
        Ok(_) => panic!("the offer was answered"),
        Err(error) => error,
    }
}

#[test]
fn offers_that_are_too_much_or_no_offers_are_refused() {
    let (_, offer) = TestViewer::new(Instant::now(), VIEWER.parse().unwrap());
    assert!(matches!(refused(&"v".repeat(1 << 20)), OfferError::TooLong { bytes: 1_048_576 }));
    let candidate = "a=candidate:1 1 udp 2130706431 203.0.113.9 4000 typ host\r\n";
    let many = format!("{offer}{}", candidate.repeat(65));
    assert!(matches!(refused(&many), OfferError::TooManyCandidates { count: 65.. }));
    assert!(matches!(refused("hello"), OfferError::Unreadable { .. }));
    assert!(matches!(refused(""), OfferError::Unreadable { .. }));
    let only_h264 = offer.replace("VP9/", "VP7/").replace("VP8/", "VP7/");
    assert!(matches!(refused(&only_h264), OfferError::NoVideo));
    let sending = offer.replace("a=recvonly", "a=sendonly");
    assert!(matches!(refused(&sending), OfferError::NoVideo));
}

#[test]
fn vp8_serves_a_viewer_without_vp9() {
    let now = Instant::now();
    let (_, offer) = TestViewer::new(now, VIEWER.parse().unwrap());
    let (peer, _) = Peer::answer(&offer.replace("VP9/", "VP7/"), &config(), now).unwrap();
    assert_eq!(peer.codec(), Codec::Vp8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_mangled_offer_never_panics(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let (_, offer) = TestViewer::new(Instant::now(), VIEWER.parse().unwrap());
        let mut lines: Vec<String> = offer.lines().map(str::to_owned).collect();
        for (index, edit) in edits {
            let at = index.index(lines.len());
            match edit % 4 {
                0 => { lines.remove(at); }
                1 => lines.swap(at, 0),
                2 => lines[at] = lines[at].chars().take(usize::from(edit / 4)).collect(),
                _ => lines[at].push(char::from(edit)),
            }
            if lines.is_empty() { break; }
        }
        let _ = Peer::answer(&lines.join("\r\n"), &config(), Instant::now());
    }
}

#[test]
fn a_resting_connection_wakes_and_sends_little() {
    let mut net = Net::connected();
    net.peer.frame(frame(1, 900), net.now, net.now);
    net.run(Duration::from_secs(5));
    net.peer.rest();
    net.run(Duration::from_secs(2));
    (net.wakes, net.sent) = (0, 0);
    net.run(Duration::from_secs(10));
    println!("{} wakes and {} bytes in 10 s", net.wakes, net.sent);
    assert!(
        net.wakes < 200 && net.sent < 20_000,
        "{} wakes, {} bytes in 10 s",
        net.wakes,
        net.sent
    );
    // And it is none the worse for it.
    net.peer.frame(frame(1, 900), net.now, net.now);
    net.run(Duration::from_secs(1));
    assert!(net.viewer.frames.len() >= 2);
}
