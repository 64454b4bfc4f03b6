//! The conversation with QEMU's monitor: one question at a time, and what comes unasked.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use anteroom_session::ShutdownCause;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, OnceCell, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::qmp::{Answer, Command, EventData, LONGEST_TERM, Line, Refusal, short};

/// Longest line that is read, in bytes; the longest known, the greeting, has some hundred.
const MAX_LINE: u64 = 64 * 1024;
/// How long QEMU may take to answer; it answers while it still loads the kernel, but on a busy
/// machine that takes.
const ANSWER: Duration = Duration::from_secs(30);
/// The longest that is quoted of QEMU's refusals, in characters.
const LONGEST_REFUSAL: usize = 400;

/// QEMU did not do what it was asked by its monitor.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// It answered that it does not do that.
    #[error("QEMU refused the command {command}: {why}")]
    Refused {
        /// What was asked.
        command: &'static str,
        /// As it says it.
        why: String,
    },
    /// It did not answer.
    #[error("QEMU did not answer the command {command} within {} s", ANSWER.as_secs())]
    Late {
        /// What was asked.
        command: &'static str,
    },
    /// It ended, or does not speak the protocol any more.
    #[error("QEMU closed its monitor before it answered the command {command}")]
    Closed {
        /// What was asked.
        command: &'static str,
    },
    /// The state of the VM's devices was not written, or not read.
    #[error("QEMU did not {what} the state of the VM's devices: {why}")]
    NotMoved {
        /// Save or load.
        what: &'static str,
        /// As it says it.
        why: String,
    },
    /// It takes too long.
    #[error("QEMU did not {what} the state of the VM's devices within {seconds} s")]
    Unfinished {
        /// Save or load.
        what: &'static str,
        /// The limit.
        seconds: u64,
    },
}

/// Asks a running QEMU, and has what came unasked.
#[derive(Clone)]
pub(crate) struct Questions {
    asked: mpsc::Sender<Question>,
    heard: Rc<Heard>,
}

/// What QEMU reports unasked.
#[derive(Default)]
struct Heard {
    shutdown: RefCell<Option<ShutdownCause>>,
    /// A step of a migration.
    migrates: Notify,
    /// Whether the conversation is open.
    open: OnceCell<()>,
}

struct Question {
    command: Command,
    /// What goes with it.
    descriptor: Option<OwnedFd>,
    reply: Reply,
}

type Reply = oneshot::Sender<Result<Answer, Refusal>>;

impl Questions {
    /// Opens the conversation behind `stream`: a task that goes on until QEMU has sent its last message.
    pub(super) fn open(stream: UnixStream) -> (Self, JoinHandle<()>) {
        let (asked, questions) = mpsc::channel(4);
        let heard = Rc::new(Heard::default());
        let (reader, writer) = stream.into_split();
        let task = tokio::task::spawn_local(follow(reader, writer, questions, heard.clone()));
        (Self { asked, heard }, task)
    }

    /// Why the guest stopped, once it has.
    pub(super) fn shutdown(&self) -> Option<ShutdownCause> {
        self.heard.shutdown.borrow().clone()
    }

    /// What QEMU answers.
    pub(crate) async fn ask(&self, command: Command) -> Result<Answer, MonitorError> {
        self.put(command, None).await
    }

    /// What QEMU answers, when it is given this descriptor too.
    pub(crate) async fn pass(
        &self,
        command: Command,
        descriptor: OwnedFd,
    ) -> Result<Answer, MonitorError> {
        self.put(command, Some(descriptor)).await
    }

    /// Waits for a step of a migration, or QEMU's end.
    pub(crate) async fn migrates(&self) {
        tokio::select! {
            () = self.heard.migrates.notified() => {}
            () = self.asked.closed() => {}
        }
    }

    async fn put(
        &self,
        command: Command,
        descriptor: Option<OwnedFd>,
    ) -> Result<Answer, MonitorError> {
        let open = async || self.send(Command::CAPABILITIES, None).await.map(drop);
        self.heard.open.get_or_try_init(open).await?;
        self.send(command, descriptor).await
    }

    async fn send(
        &self,
        command: Command,
        descriptor: Option<OwnedFd>,
    ) -> Result<Answer, MonitorError> {
        let (reply, answer) = oneshot::channel();
        let question = Question { command, descriptor, reply };
        let command = command.name;
        let answered = async {
            self.asked.send(question).await.ok()?;
            answer.await.ok()
        };
        match timeout(ANSWER, answered).await {
            Err(_) => Err(MonitorError::Late { command }),
            Ok(None) => Err(MonitorError::Closed { command }),
            Ok(Some(Err(Refusal { desc }))) => {
                Err(MonitorError::Refused { command, why: short(&desc, LONGEST_REFUSAL) })
            }
            Ok(Some(Ok(answer))) => Ok(answer),
        }
    }
}

/// Carries questions one at a time, and notes what comes unasked, until QEMU closes or breaks the
/// protocol.
async fn follow(
    reader: OwnedReadHalf,
    mut writer: OwnedWriteHalf,
    mut questions: mpsc::Receiver<Question>,
    heard: Rc<Heard>,
) {
    let (sender, mut lines) = mpsc::channel(16);
    // A task of its own: half a line must survive that its reader is interrupted.
    tokio::task::spawn_local(read_lines(reader, sender));
    let mut waiting: Option<Reply> = None;
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                None => return,
                Some(Line::Answer { answer }) => {
                    if let Some(reply) = waiting.take() {
                        let _ = reply.send(Ok(answer.into()));
                    }
                }
                Some(Line::Refusal { error }) => {
                    tracing::warn!(answer = error.desc, "QEMU's monitor refused a command");
                    if let Some(reply) = waiting.take() {
                        let _ = reply.send(Err(error));
                    }
                }
                Some(Line::Event { event, data }) => note(&event, data, &heard),
                Some(Line::Greeting { .. }) => {}
            },
            Some(Question { command, descriptor, reply }) = questions.recv(), if waiting.is_none() => {
                waiting = Some(reply);
                let line = command.line();
                if write(&mut writer, line.as_bytes(), descriptor).await.is_err() {
                    // Reading goes on to the end: the last events are the evidence.
                    waiting = None;
                }
            }
        }
    }
}

/// Writes a line; a descriptor goes with its first byte (unix(7), `SCM_RIGHTS`).
async fn write(
    writer: &mut OwnedWriteHalf,
    line: &[u8],
    descriptor: Option<OwnedFd>,
) -> io::Result<()> {
    let sent = match descriptor {
        None => 0,
        Some(descriptor) => {
            let stream: &UnixStream = (*writer).as_ref();
            let send = || {
                let descriptors = [descriptor.as_raw_fd()];
                let rights = [ControlMessage::ScmRights(&descriptors)];
                let text = [IoSlice::new(line)];
                let flags = MsgFlags::MSG_NOSIGNAL;
                Ok(sendmsg::<()>(stream.as_raw_fd(), &text, &rights, flags, None)?)
            };
            stream.async_io(Interest::WRITABLE, send).await?
        }
    };
    writer.write_all(&line[sent..]).await
}

fn note(event: &str, data: EventData, heard: &Heard) {
    match event {
        "SHUTDOWN" => {
            // A panic is reported first and is the better reason.
            let mut shutdown = heard.shutdown.borrow_mut();
            if shutdown.is_none() {
                *shutdown = Some(cause(data.reason.as_deref().unwrap_or("unknown")));
            }
        }
        "GUEST_PANICKED" => *heard.shutdown.borrow_mut() = Some(ShutdownCause::GuestPanic),
        "MIGRATION" => heard.migrates.notify_one(),
        _ => {}
    }
}

/// QEMU's `ShutdownCause` (qapi/run-state.json) in the drivers' terms.
fn cause(reason: &str) -> ShutdownCause {
    match reason {
        "guest-reset" => ShutdownCause::GuestReset,
        "guest-shutdown" => ShutdownCause::GuestShutdown,
        "guest-panic" => ShutdownCause::GuestPanic,
        "host-signal" => ShutdownCause::HostSignal,
        other => ShutdownCause::Other(short(other, LONGEST_TERM)),
    }
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
