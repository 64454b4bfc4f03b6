//! QEMU's monitor: what runs the guest's code, whether it runs, and why it stopped.
//!
//! The protocol is QMP (QEMU, docs/interop/qmp-spec.rst): a greeting, then one JSON object a line.
//! Four commands and a few events are needed, from a process that a guest may have taken over, so
//! lines are bounded here; the `qapi` crate would read any length and bring types for all of QEMU.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anteroom_session::{Accelerator, RunState, ShutdownCause};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::{Inspect, Inspected};

/// Longest line that is read, in bytes; the longest known, the greeting, has some hundred.
const MAX_LINE: u64 = 64 * 1024;
/// How long QEMU may take to answer; it answers while it still loads the kernel, but on a busy
/// machine that takes.
const ANSWER: Duration = Duration::from_secs(30);

/// The connection to a running QEMU's monitor.
pub(crate) struct Monitor {
    asked: mpsc::Sender<(Question, oneshot::Sender<Answer>)>,
    shutdown: Rc<RefCell<Option<ShutdownCause>>>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Capabilities,
    Kvm,
    Status,
    Registers,
}

/// The parts of QEMU's answers that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct Answer {
    /// `query-kvm`: whether KVM executes the guest.
    #[serde(default)]
    enabled: Option<bool>,
    /// `query-status`: `running`, `paused`, `internal-error`, ….
    #[serde(default)]
    status: Option<String>,
    /// Of the human monitor (HMP).
    #[serde(skip)]
    text: Option<String>,
}

impl From<Return> for Answer {
    fn from(answer: Return) -> Self {
        match answer {
            Return::Text(text) => Self { text: Some(text), ..Self::default() },
            Return::Fields(fields) => fields,
        }
    }
}

/// Most answers are objects; those of the human monitor are text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Return {
    Text(String),
    Fields(Answer),
}

/// One line of the monitor.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Answer {
        #[serde(rename = "return")]
        answer: Return,
    },
    Refusal {
        error: Refusal,
    },
    Event {
        event: String,
        #[serde(default)]
        data: EventData,
    },
    Greeting {
        #[serde(rename = "QMP")]
        _greeting: serde::de::IgnoredAny,
    },
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Refusal {
    desc: String,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
struct EventData {
    #[serde(default)]
    reason: Option<String>,
}

impl Question {
    fn command(self) -> &'static [u8] {
        match self {
            Self::Capabilities => b"{\"execute\":\"qmp_capabilities\"}\n",
            Self::Kvm => b"{\"execute\":\"query-kvm\"}\n",
            Self::Status => b"{\"execute\":\"query-status\"}\n",
            // QMP itself has no command for it.
            Self::Registers => b"{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"info registers -a\"}}\n",
        }
    }
}

impl Monitor {
    /// Watches the monitor behind `stream` from now on.
    pub(crate) fn watch(stream: UnixStream) -> Self {
        let (asked, questions) = mpsc::channel(4);
        let shutdown = Rc::new(RefCell::new(None));
        let (reader, writer) = stream.into_split();
        let task = tokio::task::spawn_local(follow(reader, writer, questions, shutdown.clone()));
        Self { asked, shutdown, task }
    }

    /// Opens the conversation and asks whether KVM executes the guest. None when QEMU does not say.
    pub(crate) async fn uses_kvm(&self) -> Option<bool> {
        self.ask(Question::Capabilities).await?;
        self.ask(Question::Kvm).await?.enabled
    }

    /// Whether the guest runs. None when QEMU does not say.
    pub(crate) async fn status(&self) -> Option<RunState> {
        self.ask(Question::Status).await?.status.map(|status| run_state(&status))
    }

    /// Where each of the guest's processors stands, as QEMU prints it. None when QEMU does not say.
    pub(crate) async fn registers(&self) -> Option<String> {
        self.ask(Question::Registers).await?.text
    }

    /// Why the guest stopped, once it has.
    pub(crate) fn shutdown(&self) -> Option<ShutdownCause> {
        self.shutdown.borrow().clone()
    }

    /// Waits until QEMU has sent its last message; may be dropped and called again.
    pub(crate) async fn silent(&mut self) {
        if !self.task.is_finished() {
            let _ = (&mut self.task).await;
        }
    }

    async fn ask(&self, question: Question) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        self.asked.send((question, reply)).await.ok()?;
        tokio::time::timeout(ANSWER, answer).await.ok()?.ok()
    }
}

impl Inspect for Monitor {
    fn accelerator(&self) -> Inspected<'_, Accelerator> {
        Box::pin(async {
            let uses_kvm = self.uses_kvm().await?;
            Some(if uses_kvm { Accelerator::Kvm } else { Accelerator::Tcg })
        })
    }

    fn run_state(&self) -> Inspected<'_, RunState> {
        Box::pin(self.status())
    }

    fn registers(&self) -> Inspected<'_, String> {
        Box::pin(Self::registers(self))
    }

    fn shutdown_cause(&self) -> Option<ShutdownCause> {
        self.shutdown()
    }

    fn drained(&mut self) -> Inspected<'_, ()> {
        Box::pin(async {
            self.silent().await;
            Some(())
        })
    }
}

/// Carries questions one at a time, and notes what comes unasked, until QEMU closes or breaks the
/// protocol.
async fn follow(
    reader: OwnedReadHalf,
    mut writer: OwnedWriteHalf,
    mut questions: mpsc::Receiver<(Question, oneshot::Sender<Answer>)>,
    shutdown: Rc<RefCell<Option<ShutdownCause>>>,
) {
    let (sender, mut lines) = mpsc::channel(16);
    // A task of its own: half a line must survive that its reader is interrupted.
    tokio::task::spawn_local(read_lines(reader, sender));
    let mut waiting: Option<oneshot::Sender<Answer>> = None;
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                None => return,
                Some(Line::Answer { answer }) => {
                    if let Some(reply) = waiting.take() {
                        let _ = reply.send(answer.into());
                    }
                }
                Some(Line::Refusal { error: Refusal { desc } }) => {
                    tracing::warn!(answer = desc, "QEMU's monitor refused a command");
                    waiting = None;
                }
                Some(Line::Event { event, data }) => note(&event, data, &shutdown),
                Some(Line::Greeting { .. }) => {}
            },
            Some((question, reply)) = questions.recv(), if waiting.is_none() => {
                waiting = Some(reply);
                if writer.write_all(question.command()).await.is_err() {
                    // Reading goes on to the end: the last events are the evidence.
                    waiting = None;
                }
            }
        }
    }
}

fn note(event: &str, data: EventData, shutdown: &RefCell<Option<ShutdownCause>>) {
    match event {
        "SHUTDOWN" => {
            // A panic is reported first and is the better reason.
            let mut shutdown = shutdown.borrow_mut();
            if shutdown.is_none() {
                *shutdown = Some(cause(data.reason.as_deref().unwrap_or("unknown")));
            }
        }
        "GUEST_PANICKED" => *shutdown.borrow_mut() = Some(ShutdownCause::GuestPanic),
        _ => {}
    }
}

/// QEMU's `RunState` (qapi/run-state.json) in the drivers' terms.
fn run_state(status: &str) -> RunState {
    match status {
        "running" => RunState::Running,
        "paused" => RunState::Paused,
        other => RunState::Other(short(other)),
    }
}

/// QEMU's `ShutdownCause` (qapi/run-state.json) in the drivers' terms.
fn cause(reason: &str) -> ShutdownCause {
    match reason {
        "guest-reset" => ShutdownCause::GuestReset,
        "guest-shutdown" => ShutdownCause::GuestShutdown,
        "guest-panic" => ShutdownCause::GuestPanic,
        "host-signal" => ShutdownCause::HostSignal,
        other => ShutdownCause::Other(short(other)),
    }
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

async fn read_lines(reader: OwnedReadHalf, sender: mpsc::Sender<Line>) {
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match (&mut reader).take(MAX_LINE).read_until(b'\n', &mut bytes).await {
            Ok(1..) if bytes.ends_with(b"\n") => {}
            _ => return,
        }
        // What is not known is not needed.
        if let Ok(line) = serde_json::from_slice(&bytes)
            && sender.send(line).await.is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;

    /// QEMU's side of a conversation, recorded from QEMU 7.2.
    const GREETING: &str = "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 19, \"minor\": 2, \"major\": 7}, \"package\": \"Debian 1:7.2+dfsg-7+deb12u13\"}, \"capabilities\": [\"oob\"]}}\r\n";
    const SHUTDOWN: &str = "{\"timestamp\": {\"seconds\": 1795442195, \"microseconds\": 1}, \"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-reset\"}}\r\n";

    #[tokio::test]
    async fn questions_are_answered_between_events_and_the_end_is_reported() {
        LocalSet::new()
            .run_until(async {
                let (ours, theirs) = UnixStream::pair().unwrap();
                let mut monitor = Monitor::watch(ours);
                let (reader, mut writer) = theirs.into_split();
                let qemu = tokio::task::spawn_local(async move {
                    writer.write_all(GREETING.as_bytes()).await.unwrap();
                    let mut asked = BufReader::new(reader).lines();
                    for answer in [
                        "{\"return\": {}}\r\n",
                        "{\"timestamp\": {}, \"event\": \"RESUME\"}\r\n{\"return\": {\"enabled\": false, \"present\": true}}\r\n",
                        "{\"return\": {\"status\": \"running\", \"singlestep\": false, \"running\": true}}\r\n",
                        "{\"return\": \"\\r\\nCPU#0\\r\\nRAX=0000000000000000\\r\\n\"}\r\n",
                    ] {
                        asked.next_line().await.unwrap().unwrap();
                        writer.write_all(answer.as_bytes()).await.unwrap();
                    }
                    writer.write_all(SHUTDOWN.as_bytes()).await.unwrap();
                });
                assert_eq!(monitor.uses_kvm().await, Some(false));
                assert_eq!(monitor.status().await, Some(RunState::Running));
                assert!(monitor.registers().await.unwrap().contains("CPU#0"));
                qemu.await.unwrap();
                monitor.silent().await;
                assert_eq!(monitor.shutdown(), Some(ShutdownCause::GuestReset));
                assert_eq!(monitor.status().await, None);
            })
            .await;
    }

    #[tokio::test]
    async fn an_endless_line_ends_the_conversation() {
        LocalSet::new()
            .run_until(async {
                let (ours, mut theirs) = UnixStream::pair().unwrap();
                let mut monitor = Monitor::watch(ours);
                let spam = tokio::task::spawn_local(async move {
                    while theirs.write_all(&[b'x'; 4096]).await.is_ok() {}
                });
                monitor.silent().await;
                assert_eq!(monitor.uses_kvm().await, None);
                drop(monitor);
                spam.await.unwrap();
            })
            .await;
    }
}
