//! The control stream: one task reads, one writes, a heartbeat runs.

use std::time::Duration;

use anteroom_guest_link::{LinkStream, read_message, write_message};
use anteroom_guest_protocol::{
    GuestMessage, HEARTBEAT_INTERVAL_MS, HostMessage, MAX_CONTROL_MESSAGE,
};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long the last words may take to leave.
const FLUSH: Duration = Duration::from_secs(3);

/// The writing task.
pub struct Control(JoinHandle<()>);

/// Starts reading and writing; the channel ends with the stream.
pub fn start(
    stream: LinkStream,
    messages: mpsc::Receiver<GuestMessage>,
) -> (Control, mpsc::Receiver<HostMessage>) {
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
}

async fn read(mut reader: ReadHalf<LinkStream>, sender: mpsc::Sender<HostMessage>) {
    // The host is trusted; an error means that the link is gone, and so is the session.
    while let Ok(Some(message)) = read_message(&mut reader, MAX_CONTROL_MESSAGE).await {
        if sender.send(message).await.is_err() {
            return;
        }
    }
}

async fn write(mut writer: WriteHalf<LinkStream>, mut messages: mpsc::Receiver<GuestMessage>) {
    let heartbeat = Duration::from_millis(HEARTBEAT_INTERVAL_MS);
    loop {
        let message = match tokio::time::timeout(heartbeat, messages.recv()).await {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(_) => GuestMessage::Heartbeat {},
        };
        if write_message(&mut writer, &message, MAX_CONTROL_MESSAGE).await.is_err() {
            return;
        }
    }
    let _ = writer.shutdown().await;
}
