//! An end user's browser, in code: from the link to a decoded picture, without the page around it. What
//! it takes is the server's time, not that of a browser which loads a page.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anteroom_media::Codec;
use anteroom_media::decoder::Decoder;
pub use anteroom_media::decoder::Picture;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, KeyframeRequestKind, MediaData, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};

use crate::api::Started;
use crate::link::Visitor;
use crate::raw;
use crate::unix_ms::unix_ms;

/// The shortest pause between two offers while the session has nobody to answer them.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// A pause is so small a part of the time that was waited: asking must not slow down what is timed, which on
/// an emulated machine it does.
const PART_OF_WAIT: u32 = 16;

/// The longest that one wait for a datagram takes: the time of the whole is looked at in between.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often is asked whether it is enough.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Longest datagram.
const DATAGRAM: usize = 2048;

/// When the viewer came how far, in milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The answer to its offer was there.
    pub answered: u64,
    /// ICE and DTLS were through.
    pub connected: u64,
    /// The first picture that shows something was decoded.
    pub first: u64,
    /// That picture.
    pub picture: Picture,
}

/// Opens the session's link and watches until the first picture that shows something: one that is one
/// colour all over is no desktop.
///
/// # Errors
/// When the link is refused, the session ends before, or nothing is seen within `patience`.
pub fn first_picture(session: &Started, patience: Duration) -> Result<Seen> {
    first_picture_until(session, patience, || Ok(true))
}

/// As [`first_picture`], and goes on watching until `enough`, which is asked now and then after it.
///
/// # Errors
/// As [`first_picture`], and those of `enough`.
pub fn first_picture_until(
    session: &Started,
    patience: Duration,
    mut enough: impl FnMut() -> Result<bool>,
) -> Result<Seen> {
    let until = Instant::now() + patience;
    let host = host_of(&session.viewer_url)?;
    let visitor = Visitor::by(host, &session.id, &session.viewer_url)?;
    let (mut connection, offer) = Connection::offering()?;
    let answer = answer(&visitor, &offer, until)?;
    let answered = unix_ms();
    connection.accept(&answer)?;
    let (mut seen, mut asked): (Option<Seen>, Option<Instant>) = (None, None);
    while Instant::now() < until {
        connection.turn()?;
        for (first, picture) in std::mem::take(&mut connection.pictures) {
            if seen.is_none() && picture.shows_something() {
                let connected = connection.connected.context("a picture came without DTLS")?;
                seen = Some(Seen { answered, connected, first, picture });
            }
        }
        if seen.is_some() && asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY) {
            if enough()? {
                break;
            }
            asked = Some(Instant::now());
        }
    }
    let (seconds, frames) = (patience.as_secs(), connection.frames);
    let how_far = match connection.connected {
        Some(_) => format!("it is connected, and {frames} frames came"),
        None => "its connection did not come up".to_owned(),
    };
    seen.with_context(|| {
        format!("the viewer saw no picture that shows something within {seconds} s: {how_far}")
    })
}

/// Makes the offer until it is answered: where the sandbox is still booting, nobody can.
fn answer(visitor: &Visitor, offer: &str, until: Instant) -> Result<String> {
    let path = format!("/api/webrtc/session/{}/offer", visitor.id);
    let headers = format!("{}Content-Type: application/json\r\n", visitor.headers());
    let body = json!({ "type": "offer", "sdp": offer }).to_string();
    let began = Instant::now();
    loop {
        let answer = raw::ask(&visitor.host, "POST", &path, &headers, &body)?;
        let said = answer.body();
        if answer.status == 200 {
            return Ok(said["sdp"].as_str().context("the answer has no SDP")?.to_owned());
        }
        let is_early = ["wrong_state", "too_slow"].map(Value::from).contains(&said["code"]);
        ensure!(is_early, "the offer was answered {}: {said}", answer.status);
        let view = visitor.view()?.body();
        ensure!(
            view["state"] != "ended",
            "the session ended before a viewer was connected: {view}"
        );
        ensure!(Instant::now() < until, "the offer was not answered in time: {said}");
        let pause = began.elapsed() / PART_OF_WAIT;
        std::thread::sleep(pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
    }
}

/// Host and port of a link.
fn host_of(link: &str) -> Result<&str> {
    // The secret is no part of the message.
    let address = link.split('#').next().unwrap_or_default();
    let host = address.strip_prefix("http://").and_then(|rest| rest.split('/').next());
    host.with_context(|| {
        format!("opening the link {address} failed: it does not begin with http://")
    })
}

/// The viewer's end of the connection.
struct Connection {
    rtc: Rtc,
    socket: UdpSocket,
    address: SocketAddr,
    video: Mid,
    pending: Option<SdpPendingOffer>,
    decoder: Option<(Codec, Decoder)>,
    connected: Option<u64>,
    frames: usize,
    /// Decoded, and not looked at yet.
    pictures: Vec<(u64, Picture)>,
}

impl Connection {
    /// One that is not answered yet, and its offer.
    fn offering() -> Result<(Self, String)> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("opening a port failed")?;
        let address = socket.local_addr()?;
        loop {
            let mut rtc = Rtc::builder()
                .clear_codecs()
                .enable_vp9(true)
                .enable_vp8(true)
                .build(Instant::now());
            rtc.add_local_candidate(Candidate::host(address, Protocol::Udp)?);
            let mut change = rtc.sdp_api();
            let video = change.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
            change.add_channel("input".into());
            change.add_channel("cursor".into());
            let (offer, pending) = change.apply().context("the offer is empty")?;
            let offer = offer.to_sdp_string();
            // str0m draws the names of an offer's two sections by lot, and seldom the same for both: then
            // no answer could be taken.
            let mids: Vec<_> = offer.lines().filter(|line| line.starts_with("a=mid:")).collect();
            if mids.first() == mids.last() {
                continue;
            }
            let connection = Self {
                rtc,
                socket,
                address,
                video,
                pending: Some(pending),
                decoder: None,
                connected: None,
                frames: 0,
                pictures: Vec::new(),
            };
            return Ok((connection, offer));
        }
    }

    fn accept(&mut self, answer: &str) -> Result<()> {
        let answer = SdpAnswer::from_sdp_string(answer).context("reading the answer failed")?;
        let pending = self.pending.take().context("the offer was answered twice")?;
        self.rtc.sdp_api().accept_answer(pending, answer).context("taking the answer failed")
    }

    /// Sends what there is to send, and takes the datagrams that come until the next thing is to be done.
    fn turn(&mut self) -> Result<()> {
        let next = self.drain()?;
        let wait = next.saturating_duration_since(Instant::now()).min(LOOK_EVERY);
        if !wait.is_zero() {
            self.socket.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
            let mut bytes = [0; DATAGRAM];
            // Whatever the error: if it was more than the end of the wait, the connection does not come up.
            if let Ok((length, from)) = self.socket.recv_from(&mut bytes) {
                let datagram = Receive::new(Protocol::Udp, from, self.address, &bytes[..length]);
                let datagram = datagram.context("a datagram is not of WebRTC")?;
                self.rtc.handle_input(Input::Receive(Instant::now(), datagram))?;
            }
        }
        self.rtc.handle_input(Input::Timeout(Instant::now()))?;
        Ok(())
    }

    /// When the next thing is to be done.
    fn drain(&mut self) -> Result<Instant> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => return Ok(at),
                Output::Transmit(transmit) => {
                    self.socket.send_to(&transmit.contents, transmit.destination)?;
                }
                Output::Event(Event::Connected) => self.connected = Some(unix_ms()),
                Output::Event(Event::MediaData(media)) => self.frame(&media)?,
                Output::Event(Event::Closed) => {
                    bail!("the session closed the viewer's connection after {} frames", self.frames)
                }
                Output::Event(_) => {}
            }
        }
    }

    fn frame(&mut self, media: &MediaData) -> Result<()> {
        self.frames += 1;
        let codec = match media.params.spec().codec {
            str0m::format::Codec::Vp9 => Codec::Vp9,
            str0m::format::Codec::Vp8 => Codec::Vp8,
            other => bail!("a frame came by a codec that was not offered: {other:?}"),
        };
        let decoder = match &mut self.decoder {
            Some((known, decoder)) if *known == codec => decoder,
            other => &mut other.insert((codec, Decoder::new(codec)?)).1,
        };
        match decoder.decode(&media.data) {
            Ok(Some(picture)) if media.contiguous => self.pictures.push((unix_ms(), picture)),
            // Something before it was lost.
            _ => {
                let mut writer = self.rtc.writer(self.video).context("there is no video")?;
                writer.request_keyframe(None, KeyframeRequestKind::Pli)?;
            }
        }
        Ok(())
    }
}
