//! One viewer's WebRTC connection, without sockets or clock.

mod cursor;
mod estimate;
mod input;
mod offer;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anteroom_guest_protocol::input::InputEvent;
use str0m::bwe::{Bitrate, BweKind};
use str0m::channel::{ChannelData, ChannelId};
use str0m::media::{MediaTime, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::Extension;
use str0m::{
    Candidate, Event, IceConnectionState, Input, Output, PacerReason, Reason, Rtc, RtcConfig,
    RtcError,
};

pub use cursor::{CursorError, MAX_CURSOR_EDGE, cursor_message};
pub use input::{BURST, EVENTS_PER_SECOND, InputRefused, read_input};
pub use offer::{MAX_CANDIDATES, MAX_OFFER, OfferError};

use crate::encoder::EncodedFrame;
use crate::vpx::Codec;
use estimate::EstimateGuard;
use input::InputGate;

/// Chromium's usual number for the playout delay extension; the offer's own number wins.
const PLAYOUT_DELAY_ID: u8 = 5;
/// A pointer message waits while the viewer has more than this unread, in bytes.
const CURSOR_BACKLOG: usize = 32 * 1024;
/// The least time between two datagrams of padding.
const PADDING_STEP: Duration = Duration::from_millis(40);
/// The same while nothing moves.
const RESTING_STEP: Duration = Duration::from_millis(250);

/// What a peer has to know.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// The addresses at which viewers reach the media demultiplexer.
    pub candidates: Vec<SocketAddr>,
    /// Bits a second to start with.
    pub start_bitrate_bps: u64,
    /// Bits a second never to exceed.
    pub max_bitrate_bps: u64,
}

/// One viewer's WebRTC connection. Sans-IO: after each call that takes `&mut self`, send what
/// [`Peer::poll_transmit`] gives, look at [`Peer::poll_event`], and call [`Peer::timeout`] at
/// [`Peer::next_timeout`].
pub struct Peer {
    rtc: Rtc,
    ufrag: String,
    video: Video,
    input: Option<ChannelId>,
    cursor: Option<ChannelId>,
    gate: InputGate,
    // The newest only: an older shape is of no use.
    waiting_cursor: Option<String>,
    dropped_inputs: u64,
    transmits: VecDeque<Transmit>,
    events: VecDeque<PeerEvent>,
    next_timeout: Instant,
    started: Instant,
    probing: Probing,
    guard: EstimateGuard,
    estimate_bps: u64,
}

/// Whether the network is tried for more than it carries now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probing {
    On,
    // A still desktop has nothing to send, and probes would be all its traffic.
    Off,
}

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// The datagram, as it goes on the wire.
    pub bytes: Vec<u8>,
}

/// What happened on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// Media can flow.
    Connected,
    /// The viewer is gone; nothing more happens.
    Disconnected,
    /// The viewer needs a key frame.
    KeyframeRequested,
    /// What the network carries, in bits a second, at most the configured maximum.
    BitrateEstimate(u64),
    /// The end user did something.
    Input(InputEvent),
    /// The viewer takes pointer shapes now.
    CursorChannelOpen,
    /// A request from this address was authentic: by its message integrity (RFC 8445, 7.3).
    Authenticated(SocketAddr),
}

struct Video {
    mid: Mid,
    pt: Pt,
    codec: Codec,
    start_bitrate_bps: u64,
    max_bitrate_bps: u64,
}

impl Peer {
    /// Answers a viewer's offer. Gives the peer and the answer's SDP.
    ///
    /// # Errors
    /// When the offer is too large, is no SDP, or asks for no video that we have.
    pub fn answer(
        offer_sdp: &str,
        config: &PeerConfig,
        now: Instant,
    ) -> Result<(Self, String), OfferError> {
        let offer = offer::parse(offer_sdp)?;
        let mut rtc = rtc_config(config).build(now);
        for address in &config.candidates {
            let candidate = Candidate::host(*address, Protocol::Udp)
                .map_err(|source| OfferError::Candidate { address: *address, source })?;
            rtc.add_local_candidate(candidate);
        }
        let answer = rtc
            .sdp_api()
            .accept_offer(offer)
            .map_err(|source| OfferError::Unanswerable { source })?;
        rtc.bwe().set_desired_bitrate(config.max_bitrate_bps.into());
        let ufrag = rtc.direct_api().local_ice_credentials().ufrag;

        let answer_sdp = answer.to_sdp_string();
        let (mid, pt, codec) = video_mids(&answer_sdp)
            .into_iter()
            .find_map(|mid| video_of(&mut rtc, mid))
            .ok_or(OfferError::NoVideo)?;
        let PeerConfig { start_bitrate_bps, max_bitrate_bps, .. } = *config;
        let video = Video { mid, pt, codec, start_bitrate_bps, max_bitrate_bps };
        let mut peer = Self {
            rtc,
            ufrag,
            video,
            input: None,
            cursor: None,
            gate: InputGate::new(),
            waiting_cursor: None,
            dropped_inputs: 0,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            next_timeout: now,
            started: now,
            probing: Probing::On,
            guard: EstimateGuard::new(now, config.start_bitrate_bps),
            estimate_bps: config.start_bitrate_bps,
        };
        peer.timeout(now);
        Ok((peer, answer_sdp))
    }

    /// Our ICE user fragment: the media demultiplexer finds the session of a first STUN packet by it.
    #[must_use]
    pub fn ufrag(&self) -> &str {
        &self.ufrag
    }

    /// What was agreed on.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.video.codec
    }

    /// Input messages that were dropped: too long, too many, or not of the protocol.
    #[must_use]
    pub fn dropped_inputs(&self) -> u64 {
        self.dropped_inputs
    }

    /// Takes a datagram that came from `from` to our address `to`. One that is not of this
    /// connection is ignored.
    pub fn datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8], now: Instant) {
        let Ok(receive) = Receive::new(Protocol::Udp, from, to, bytes) else { return };
        let input = Input::Receive(now, receive);
        if !self.rtc.accepts(&input) {
            return;
        }
        // One that is accepted was checked, now or, where media goes to its sender, before.
        if is_binding_request(bytes) {
            self.events.push_back(PeerEvent::Authenticated(from));
        }
        // Anyone can send a datagram with a viewer's address on it: a bad one must not end the
        // connection.
        if let Err(error) = self.rtc.handle_input(input) {
            tracing::debug!(%from, %error, "a datagram was refused");
        }
        self.drain(now);
    }

    /// Has to be called at [`Peer::next_timeout`]; may be called at any time.
    pub fn timeout(&mut self, now: Instant) {
        let result = self.rtc.handle_input(Input::Timeout(now));
        self.end_on(result);
        self.drain(now);
    }

    /// When [`Peer::timeout`] has to be called.
    #[must_use]
    pub fn next_timeout(&self) -> Instant {
        self.next_timeout
    }

    /// Sends a frame whose pixels are of `captured`. Before the connection is up it is dropped.
    pub fn frame(&mut self, frame: EncodedFrame, captured: Instant, now: Instant) {
        let time = captured.saturating_duration_since(self.started);
        let time =
            MediaTime::from_90khz(u64::try_from(time.as_micros() * 9 / 100).unwrap_or(u64::MAX));
        let Some(writer) = self.rtc.writer(self.video.mid) else { return };
        let result = writer.playout_delay(MediaTime::ZERO, MediaTime::ZERO).write(
            self.video.pt,
            captured,
            time,
            frame.data,
        );
        self.end_on(result);
        // The packets are cut in the next timeout's work.
        self.timeout(now);
    }

    /// Nothing has moved for a while: until [`Peer::resume`] the network is not probed.
    pub fn rest(&mut self) {
        if self.probing == Probing::On {
            self.probing = Probing::Off;
            self.rtc.bwe().set_desired_bitrate(Bitrate::from(1));
        }
    }

    /// Something moves again.
    pub fn resume(&mut self) {
        if self.probing == Probing::Off {
            self.probing = Probing::On;
            // Sparse padding leaves the estimator with stale delays, which it takes for congestion:
            // it starts again from what it knew. Probes would be a burst of padding before the
            // first frame, so they stay off where the estimate is enough for a desktop.
            self.rtc.bwe().reset(self.estimate_bps.into());
            if self.estimate_bps < self.video.start_bitrate_bps / 2 {
                self.rtc.bwe().set_desired_bitrate(self.video.max_bitrate_bps.into());
            }
        }
    }

    /// Sends a pointer message (see [`cursor_message`]), now or once the channel takes it.
    pub fn cursor(&mut self, message: String, now: Instant) {
        self.waiting_cursor = Some(message);
        self.drain(now);
    }

    /// Says goodbye; what is left to send has to be polled.
    pub fn close(&mut self, now: Instant) {
        let result = self.rtc.close();
        self.end_on(result);
        self.drain(now);
        self.rtc.disconnect();
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<PeerEvent> {
        self.events.pop_front()
    }

    fn drain(&mut self, now: Instant) {
        self.send_waiting_cursor();
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.next_timeout = self.coalesced(at, now);
                    return;
                }
                Ok(Output::Transmit(transmit)) => {
                    let bytes: Vec<u8> = transmit.contents.into();
                    self.guard.sent(now, bytes.len());
                    self.transmits.push_back(Transmit { to: transmit.destination, bytes });
                }
                Ok(Output::Event(event)) => self.on_event(event, now),
                Err(error) => return self.end_on(Err(error)),
            }
        }
    }

    /// str0m would fill the line with padding, a small datagram every 5 ms, also while nothing
    /// moves. Waking seldom for it makes it seldom; probes and all else keep their time.
    fn coalesced(&self, at: Instant, now: Instant) -> Instant {
        let is_padding = matches!(
            self.rtc.last_timeout_reason(),
            Reason::Pacer(PacerReason::Padding | PacerReason::Handle)
        );
        match self.probing {
            _ if !is_padding => at,
            Probing::On => at.max(now + PADDING_STEP),
            Probing::Off => at.max(now + RESTING_STEP),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "str0m's events are non-exhaustive")]
    fn on_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Connected => self.events.push_back(PeerEvent::Connected),
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) | Event::Closed => {
                self.events.push_back(PeerEvent::Disconnected);
            }
            Event::KeyframeRequest(_) => self.events.push_back(PeerEvent::KeyframeRequested),
            Event::EgressBitrateEstimate(
                BweKind::Twcc { estimate, .. } | BweKind::Remb { estimate, .. },
            ) => {
                let bps = estimate.as_u64().min(self.video.max_bitrate_bps);
                self.estimate_bps = bps;
                if let Some(restart_bps) = self.guard.estimated(now, bps) {
                    self.rtc.bwe().reset(restart_bps.into());
                }
                self.events.push_back(PeerEvent::BitrateEstimate(bps));
            }
            Event::ChannelOpen(id, label) if label == "input" => self.input = Some(id),
            Event::ChannelOpen(id, label) if label == "cursor" => {
                self.cursor = Some(id);
                self.events.push_back(PeerEvent::CursorChannelOpen);
            }
            Event::ChannelClose(id) => {
                self.input = self.input.filter(|input| *input != id);
                self.cursor = self.cursor.filter(|cursor| *cursor != id);
            }
            Event::ChannelData(data) => self.on_message(&data, now),
            _ => {}
        }
    }

    fn on_message(&mut self, message: &ChannelData, now: Instant) {
        if self.input != Some(message.id) {
            return;
        }
        match self.gate.take(now, &message.data) {
            Ok(event) => self.events.push_back(PeerEvent::Input(event)),
            Err(error) => {
                self.dropped_inputs += 1;
                // What the end user typed may be in the cause: it does not belong in a log.
                tracing::debug!(%error, "an input message was dropped");
            }
        }
    }

    fn send_waiting_cursor(&mut self) {
        let Some(mut channel) = self.cursor.and_then(|id| self.rtc.channel(id)) else { return };
        if channel.buffered_amount() > CURSOR_BACKLOG {
            return;
        }
        if let Some(message) = self.waiting_cursor.take()
            && !matches!(channel.write(false, message.as_bytes()), Ok(true))
        {
            self.waiting_cursor = Some(message);
        }
    }

    fn end_on(&mut self, result: Result<(), RtcError>) {
        if let Err(error) = result {
            tracing::warn!(%error, "the viewer's connection failed");
            self.rtc.disconnect();
            self.events.push_back(PeerEvent::Disconnected);
        }
    }
}

/// Whether a datagram is a STUN binding request (RFC 8489, 5).
fn is_binding_request(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0, 1]) && bytes.get(4..8) == Some(&[0x21, 0x12, 0xa4, 0x42])
}

fn rtc_config(config: &PeerConfig) -> RtcConfig {
    RtcConfig::new()
        .set_ice_lite(true)
        .clear_codecs()
        .enable_vp9(true)
        .enable_vp8(true)
        .set_extension(PLAYOUT_DELAY_ID, Extension::PlayoutDelay)
        .enable_bwe(Some(Bitrate::from(config.start_bitrate_bps)))
}

/// The names of the video sections of our answer. str0m reports them in an event, but only once the
/// connection is up.
fn video_mids(answer_sdp: &str) -> Vec<Mid> {
    let mut is_video = false;
    let mut mids = Vec::new();
    for line in answer_sdp.lines() {
        if line.starts_with("m=") {
            is_video = line.starts_with("m=video ");
        } else if let Some(mid) = line.strip_prefix("a=mid:").filter(|_| is_video) {
            mids.push(Mid::from(mid));
        }
    }
    mids
}

/// How to send on a media section, if it is to receive video of ours.
fn video_of(rtc: &mut Rtc, mid: Mid) -> Option<(Mid, Pt, Codec)> {
    if !rtc.media(mid)?.direction().is_sending() {
        return None;
    }
    let writer = rtc.writer(mid)?;
    let params: Vec<_> = writer.payload_params().collect();
    let pt_of = |codec: str0m::format::Codec| {
        let profile_0 = |profile: Option<u32>| profile.unwrap_or(0) == 0;
        params
            .iter()
            .find(|p| p.spec().codec == codec && profile_0(p.spec().format.profile_id))
            .map(|p| p.pt())
    };
    let vp9 = pt_of(str0m::format::Codec::Vp9).map(|pt| (mid, pt, Codec::Vp9));
    vp9.or_else(|| pt_of(str0m::format::Codec::Vp8).map(|pt| (mid, pt, Codec::Vp8)))
}
