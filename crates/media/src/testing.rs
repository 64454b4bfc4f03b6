//! A viewer in code, for tests: another str0m, as offerer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::channel::ChannelId;
use str0m::media::{Direction, KeyframeRequestKind, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};

/// Where the viewer is.
pub(crate) const VIEWER: &str = "203.0.113.9:4000";

pub(crate) struct TestViewer {
    pub(crate) rtc: Rtc,
    pub(crate) address: SocketAddr,
    pub(crate) video: Mid,
    pub(crate) input: ChannelId,
    pub(crate) frames: Vec<Vec<u8>>,
    pub(crate) cursors: Vec<String>,
    pub(crate) channels: Vec<String>,
    pub(crate) next: Instant,
    pending: Option<SdpPendingOffer>,
}

impl TestViewer {
    /// A viewer and its offer.
    pub(crate) fn new(now: Instant, address: SocketAddr) -> (Self, String) {
        let mut rtc = Rtc::builder().build(now);
        rtc.add_local_candidate(Candidate::host(address, Protocol::Udp).unwrap());
        let mut change = rtc.sdp_api();
        let video = change.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        let input = change.add_channel("input".into());
        change.add_channel("cursor".into());
        let (offer, pending) = change.apply().unwrap();
        let offer = offer.to_sdp_string();
        // str0m draws the names of an offer's two sections by lot, and seldom the same for both: then
        // no answer could be taken.
        let mids: Vec<_> = offer.lines().filter(|line| line.starts_with("a=mid:")).collect();
        if mids[0] == mids[1] {
            return Self::new(now, address);
        }
        let viewer = Self {
            rtc,
            address,
            video,
            input,
            frames: Vec::new(),
            cursors: Vec::new(),
            channels: Vec::new(),
            next: now,
            pending: Some(pending),
        };
        (viewer, offer)
    }

    pub(crate) fn accept(&mut self, answer: &str) {
        let answer = SdpAnswer::from_sdp_string(answer).unwrap();
        self.rtc.sdp_api().accept_answer(self.pending.take().unwrap(), answer).unwrap();
    }

    pub(crate) fn timeout(&mut self, now: Instant) {
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
    }

    pub(crate) fn datagram(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) {
        let receive = Receive::new(Protocol::Udp, from, self.address, bytes).unwrap();
        // A viewer whose handshake fails has an error here: that is the point of a test.
        let _ = self.rtc.handle_input(Input::Receive(now, receive));
    }

    pub(crate) fn send_input(&mut self, json: &str) {
        assert!(self.rtc.channel(self.input).unwrap().write(false, json.as_bytes()).unwrap());
    }

    pub(crate) fn ask_for_key_frame(&mut self) {
        self.rtc
            .writer(self.video)
            .unwrap()
            .request_keyframe(None, KeyframeRequestKind::Pli)
            .unwrap();
    }

    /// What the viewer has to send.
    pub(crate) fn drain(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut out = Vec::new();
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.next = at;
                    return out;
                }
                Ok(Output::Transmit(transmit)) => {
                    out.push((transmit.destination, transmit.contents.to_vec()));
                }
                Ok(Output::Event(Event::MediaData(media))) => self.frames.push(media.data.to_vec()),
                Ok(Output::Event(Event::ChannelOpen(_, label))) => self.channels.push(label),
                Ok(Output::Event(Event::ChannelData(data))) => {
                    self.cursors.push(String::from_utf8(data.data).unwrap());
                }
                Ok(Output::Event(_)) => {}
                Err(_) => {
                    self.next = self.next.max(Instant::now()) + Duration::from_secs(3600);
                    return out;
                }
            }
        }
    }
}
