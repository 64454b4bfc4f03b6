//! The control stream: the guest's messages, no faster than an honest guest sends them and none later
//! than its deadline, and what it is sent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anteroom_guest_link::{LinkStream, Opener, read_message, write_message};
use anteroom_guest_protocol::{
    GuestMessage, HEARTBEAT_DEADLINE_MS, HEARTBEAT_INTERVAL_MS, HostMessage, MAX_CONTROL_MESSAGE,
    StreamKind,
};
use anteroom_session::EndReason;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::io::InspectReader;

use crate::failure::{broken, link_failed};
use crate::pace::pace;

/// How long the guest may take to read a message, in seconds.
const SAY_SECONDS: u64 = 10;

/// How long a guest that was silent for too long may still take, in case that was not its fault: more
/// than it lets pass between two heartbeats.
const AWAKE_AGAIN: Duration = Duration::from_millis(2 * HEARTBEAT_INTERVAL_MS);

/// Messages that a guest may send for long, a second, and at once: a browser's log has bursts.
const MESSAGES_PER_SECOND: usize = 200;
const MESSAGE_BURST: usize = 2000;

/// Their bytes likewise.
const BYTES_PER_SECOND: usize = 1024 * 1024;
const BYTE_BURST: usize = 8 * BYTES_PER_SECOND;

/// What the guest says, in order. The first failure is the last thing that comes.
pub struct GuestMessages(mpsc::Receiver<Result<GuestMessage, EndReason>>);

/// Sends messages to the guest.
pub struct GuestSender(WriteHalf<LinkStream>);

/// Opens the control stream.
///
/// # Errors
/// When the link is gone.
pub async fn open_control(opener: &Opener) -> Result<(GuestMessages, GuestSender), EndReason> {
    let stream = opener.open(StreamKind::Control).await.map_err(link_failed)?;
    let (reader, writer) = tokio::io::split(stream);
    let (sender, messages) = mpsc::channel(64);
    // A task of its own: half a message must survive that its reader is interrupted.
    tokio::task::spawn_local(read(reader, sender));
    Ok((GuestMessages(messages), GuestSender(writer)))
}

async fn read(reader: ReadHalf<LinkStream>, sender: mpsc::Sender<Result<GuestMessage, EndReason>>) {
    let deadline = Duration::from_millis(HEARTBEAT_DEADLINE_MS);
    let messages = pace(MESSAGES_PER_SECOND, MESSAGE_BURST);
    let bytes = pace(BYTES_PER_SECOND, BYTE_BURST);
    let read = std::cell::Cell::new(0);
    let mut reader = InspectReader::new(reader, |part| read.set(read.get() + part.len()));
    loop {
        messages.acquire_one().await;
        bytes.acquire(read.take()).await;
        let mut next = std::pin::pin!(read_message(&mut reader, MAX_CONTROL_MESSAGE));
        let heard = match timeout(deadline, &mut next).await {
            // A machine that slept meanwhile: the guest did too, and speaks as soon as it can.
            Err(_) => timeout(AWAKE_AGAIN, &mut next).await,
            heard => heard,
        };
        let message = match heard {
            Ok(Ok(Some(message))) => Ok(message),
            Ok(Ok(None)) => Err(broken("the agent closed the link")),
            Ok(Err(error)) => Err(link_failed(error)),
            // What the machine was at is added by who has it.
            Err(_) => Err(EndReason::AgentSilent {
                waited_ms: HEARTBEAT_DEADLINE_MS + 2 * HEARTBEAT_INTERVAL_MS,
                run_state: None,
                console_tail: Vec::new(),
            }),
        };
        let last = message.is_err();
        if sender.send(message).await.is_err() || last {
            return;
        }
    }
}

impl GuestMessages {
    /// The next message; may be dropped and called again.
    ///
    /// # Errors
    /// When the guest broke the protocol, is silent for too long, or its link is gone.
    pub async fn next(&mut self) -> Result<GuestMessage, EndReason> {
        self.0.recv().await.unwrap_or_else(|| Err(broken("the guest link is closed")))
    }
}

impl GuestSender {
    /// Reports the time to a guest that sent its heartbeat.
    ///
    /// # Errors
    /// As [`Self::say`].
    pub async fn answer_heartbeat(&mut self, heard: &GuestMessage) -> Result<(), EndReason> {
        let GuestMessage::Heartbeat { sent_ms } = *heard else { return Ok(()) };
        self.say(&HostMessage::Time { asked_ms: sent_ms, now_unix_ms: unix_ms() }).await
    }

    /// Says nothing more.
    ///
    /// # Errors
    /// As [`Self::say`].
    pub async fn close(mut self) -> Result<(), EndReason> {
        self.0.shutdown().await.map_err(|error| link_failed(error.into()))
    }

    /// Sends one message.
    ///
    /// # Errors
    /// When the guest does not read it in time, or its link is gone.
    pub async fn say(&mut self, message: &HostMessage) -> Result<(), EndReason> {
        let said = write_message(&mut self.0, message, MAX_CONTROL_MESSAGE);
        match timeout(Duration::from_secs(SAY_SECONDS), said).await {
            Ok(said) => said.map_err(link_failed),
            Err(_) => Err(EndReason::GuestStalled {
                what: "read its messages".to_owned(),
                allowed_seconds: SAY_SECONDS,
            }),
        }
    }
}

/// Milliseconds since the Unix epoch by the wall clock as it stands, stepped or not: what a guest's is
/// held to.
#[must_use]
pub fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
