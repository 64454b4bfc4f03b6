//! The control stream: one task reads, one writes, a heartbeat runs.

use std::time::Duration;

use anteroom_guest_link::{LinkError, LinkStream, read_message, write_message};
use anteroom_guest_protocol::{
    GuestMessage, HEARTBEAT_INTERVAL_MS, HostMessage, MAX_CONTROL_MESSAGE,
};
use tokio::io::{AsyncRead, AsyncWriteExt, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::clock;

/// How long the last messages may take to leave.
const FLUSH: Duration = Duration::from_secs(3);

/// The writing task; of one that said [`GuestMessage::Frozen`], what comes after that.
pub struct Control(JoinHandle<Option<mpsc::Receiver<GuestMessage>>>);

/// Starts reading and writing; the channel ends with the stream.
pub fn start(
    stream: LinkStream,
    messages: mpsc::Receiver<GuestMessage>,
) -> (Control, mpsc::Receiver<Result<HostMessage, LinkError>>) {
    let (reader, writer) = tokio::io::split(stream);
    let (sender, from_host) = mpsc::channel(8);
    tokio::task::spawn_local(read(reader, sender));
    (Control(tokio::task::spawn_local(write(writer, messages))), from_host)
}

impl Control {
    /// Waits until everything said so far has left, or it is clear that it will not.
    pub async fn flush(&mut self) {
        let _ = tokio::time::timeout(FLUSH, &mut self.0).await;
    }

    /// Waits until the guest has said that it is frozen: the messages that come after that. None where the
    /// link failed first.
    pub async fn until_frozen(&mut self) -> Option<mpsc::Receiver<GuestMessage>> {
        tokio::time::timeout(FLUSH, &mut self.0).await.ok()?.ok()?
    }
}

async fn read(
    mut reader: impl AsyncRead + Unpin,
    sender: mpsc::Sender<Result<HostMessage, LinkError>>,
) {
    loop {
        let message = match read_message(&mut reader, MAX_CONTROL_MESSAGE).await {
            // The link is gone, and so is the session.
            Ok(None) | Err(LinkError::Io(_)) => return,
            Ok(Some(message)) => Ok(message),
            Err(error) => Err(error),
        };
        let is_last = message.is_err();
        if sender.send(message).await.is_err() || is_last {
            return;
        }
    }
}

async fn write(
    mut writer: WriteHalf<LinkStream>,
    mut messages: mpsc::Receiver<GuestMessage>,
) -> Option<mpsc::Receiver<GuestMessage>> {
    let mut heartbeat = tokio::time::interval(Duration::from_millis(HEARTBEAT_INTERVAL_MS));
    // After a time in which nothing ran one is enough.
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once; the guest says hello first.
    heartbeat.reset();
    loop {
        let message = tokio::select! {
            message = messages.recv() => match message {
                Some(message) => message,
                None => break,
            },
            _ = heartbeat.tick() => GuestMessage::Heartbeat { sent_ms: clock::monotonic_ms() },
        };
        if write_message(&mut writer, &message, MAX_CONTROL_MESSAGE).await.is_err() {
            return None;
        }
        if message == (GuestMessage::Frozen {}) {
            return Some(messages);
        }
    }
    let _ = writer.shutdown().await;
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_host_should_not_have_said_is_reported_and_the_end_is_not() {
        let (mut host, reader) = tokio::io::duplex(1024);
        let (sender, mut from_host) = mpsc::channel(8);
        let reading = tokio::spawn(read(reader, sender));
        write_message(&mut host, &HostMessage::SignedIn {}, MAX_CONTROL_MESSAGE).await.unwrap();
        let unknown = serde_json::json!({ "type": "of_a_later_version" });
        write_message(&mut host, &unknown, MAX_CONTROL_MESSAGE).await.unwrap();
        assert!(matches!(from_host.recv().await, Some(Ok(HostMessage::SignedIn {}))));
        assert!(matches!(from_host.recv().await, Some(Err(LinkError::Message(_)))));
        assert!(from_host.recv().await.is_none());
        reading.await.unwrap();

        let (host, reader) = tokio::io::duplex(1024);
        let (sender, mut from_host) = mpsc::channel(8);
        drop(host);
        read(reader, sender).await;
        assert!(from_host.recv().await.is_none());
    }
}
