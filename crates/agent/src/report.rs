//! What the agent reports to the host, in order, through one queue.

use anteroom_guest_protocol::{GuestMessage, LogStream, ServiceEvent};
use tokio::sync::mpsc;

use crate::redact::Secrets;

/// Messages that may wait for the link. Log lines are dropped beyond it, the rest waits.
const QUEUE: usize = 512;

/// The longest log line, in bytes.
const MAX_LINE: usize = 4096;

/// Queues messages for the control stream, without what is secret in their text. Cheap to clone.
#[derive(Clone)]
pub struct Reporter {
    queue: mpsc::Sender<GuestMessage>,
    secrets: Secrets,
}

/// A reporter, and the queue that the control stream's writer drains.
pub fn channel() -> (Reporter, mpsc::Receiver<GuestMessage>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Reporter { queue: sender, secrets: Secrets::default() }, receiver)
}

impl Reporter {
    /// What is kept out of all logs and reports.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Reports to the host; waits while the queue is full. When the link is gone the message is dropped.
    pub async fn report(&self, message: GuestMessage) {
        let _ = self.queue.send(self.clean(message)).await;
    }

    /// From a thread of its own. Drops the message when the queue is full.
    pub fn offer(&self, message: GuestMessage) {
        let _ = self.queue.try_send(self.clean(message));
    }

    /// A change of a service.
    pub async fn service(&self, name: &str, event: ServiceEvent) {
        self.report(GuestMessage::Service { name: name.to_owned(), event }).await;
    }

    /// A line of output. A service that prints faster than the link carries loses lines, never
    /// slows the rest.
    pub fn log(&self, service: &str, stream: LogStream, line: &str) {
        let mut line = line.to_owned();
        if line.len() > MAX_LINE {
            let cut = (0..=MAX_LINE).rev().find(|&i| line.is_char_boundary(i)).unwrap_or(0);
            line.truncate(cut);
        }
        self.offer(GuestMessage::Log { service: service.to_owned(), stream, line });
    }

    /// The message without secrets where it quotes programs.
    fn clean(&self, mut message: GuestMessage) -> GuestMessage {
        let clean = |text: &mut String| *text = self.secrets.redact(text);
        match &mut message {
            GuestMessage::Log { line: text, .. }
            | GuestMessage::CredentialVerified { said: text }
            | GuestMessage::CredentialRefused { cause: text }
            | GuestMessage::Fatal { cause: text } => clean(text),
            GuestMessage::Service { event: ServiceEvent::Exited { last_lines, .. }, .. } => {
                last_lines.iter_mut().for_each(clean);
            }
            GuestMessage::Service {
                event: ServiceEvent::Failed { cause, last_lines, .. }, ..
            } => {
                clean(cause);
                last_lines.iter_mut().for_each(clean);
            }
            _ => {}
        }
        message
    }

    /// A line of the agent itself.
    pub fn note(&self, line: &str) {
        self.log("agent", LogStream::Stdout, line);
    }
}
