//! What the agent reports to the host, in order, through one queue.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

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
    standing: Arc<Mutex<Standing>>,
}

/// What holds until something else is said: another host has to hear it too.
#[derive(Default)]
struct Standing {
    /// By the service: what became of it last, and its start before that.
    services: BTreeMap<String, Vec<ServiceEvent>>,
    cursor: Option<GuestMessage>,
}

impl Standing {
    fn keep(&mut self, message: &GuestMessage) {
        match message {
            GuestMessage::Service { name, event: event @ ServiceEvent::Started { .. } } => {
                self.services.insert(name.clone(), vec![event.clone()]);
            }
            GuestMessage::Service { name, event: event @ ServiceEvent::Ready {} } => {
                self.services.entry(name.clone()).or_default().push(event.clone());
            }
            GuestMessage::Service {
                name,
                event: ServiceEvent::Exited { .. } | ServiceEvent::Failed { .. },
            } => {
                self.services.remove(name);
            }
            GuestMessage::Cursor(_) => self.cursor = Some(message.clone()),
            _ => {}
        }
    }

    fn messages(&self) -> Vec<GuestMessage> {
        let service = |(name, events): (&String, &Vec<ServiceEvent>)| {
            let of = |event: &ServiceEvent| GuestMessage::Service {
                name: name.clone(),
                event: event.clone(),
            };
            events.iter().map(of).collect::<Vec<_>>()
        };
        self.services.iter().flat_map(service).chain(self.cursor.clone()).collect()
    }
}

/// A reporter, and the queue that the control stream's writer drains.
pub fn channel() -> (Reporter, mpsc::Receiver<GuestMessage>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Reporter { queue: sender, secrets: Secrets::default(), standing: Arc::default() }, receiver)
}

impl Reporter {
    /// What is kept out of all logs and reports.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Reports to the host; waits while the queue is full. When the link is gone the message is dropped.
    pub async fn report(&self, message: GuestMessage) {
        self.standing().keep(&message);
        let _ = self.queue.send(self.clean(message)).await;
    }

    /// From a thread of its own. Drops the message when the queue is full.
    pub fn offer(&self, message: GuestMessage) {
        self.standing().keep(&message);
        let _ = self.queue.try_send(self.clean(message));
    }

    /// Says what runs and what is ready once more, to a host that has not heard it.
    pub async fn say_again(&self) {
        let messages = self.standing().messages();
        for message in messages {
            self.report(message).await;
        }
    }

    fn standing(&self) -> std::sync::MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
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
