//! From the first byte of a link to a guest whose services are starting: handshake, hello, what the
//! sandbox is, whose sign-in it is. Each step has a deadline; what comes out of order ends the
//! conversation.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anteroom_crash::agent_failed;
use anteroom_guest_link::{
    Incoming, LinkError, Opener, SharedStream, Side, connect, start_handshake,
};
use anteroom_guest_protocol::{
    BeginSignIn, ConfigureSandbox, GuestCpu, GuestMessage, HostMessage, LogStream, Wake, printable,
};
use anteroom_session::EndReason;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::control::{GuestMessages, GuestSender, open_control};
use crate::failure::{broken, kind, link_failed, violation};
use crate::paced_link::PacedLink;

/// How long a guest may take from power-on to the agent's first byte. Emulation on a busy machine
/// has been seen to take 20 s.
const BOOT: Duration = Duration::from_secs(120);

/// How long it may take to set itself up, and then to begin a sign-in, in seconds each.
const SET_UP_SECONDS: u64 = 60;

/// A guest that has said hello.
pub struct Conversation {
    /// Opens streams to the guest.
    pub opener: Opener,
    /// Streams that the guest opens.
    pub incoming: Incoming,
    /// What the guest says.
    pub messages: GuestMessages,
    /// Sends to the guest.
    pub sender: GuestSender,
    /// The multiplexer's task.
    pub link: LinkTask,
}

/// The guest's first message.
#[derive(Debug)]
pub struct Hello {
    /// The agent's version, printable.
    pub agent_version: String,
    /// The guest's kernel release, printable.
    pub kernel: String,
    /// The processor that the guest says it has, as it sent it.
    pub cpu: GuestCpu,
    /// Whether it is a clone of a frozen guest.
    pub is_clone: bool,
}

impl Conversation {
    /// Answers a guest that boots at the other end of `link`, and takes its hello. On a `LocalSet`.
    ///
    /// # Errors
    /// When the guest is silent for too long, says something else, or its link fails.
    pub async fn begin<S>(link: S) -> Result<(Self, Hello), EndReason>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        Self::begin_on(SharedStream::new(PacedLink::new(link))).await
    }

    pub(crate) async fn begin_on<S>(
        mut link: SharedStream<PacedLink<S>>,
    ) -> Result<(Self, Hello), EndReason>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        start_handshake(&mut link, rand::random(), BOOT).await.map_err(|error| match error {
            LinkError::Silent { what: "a boot", .. } => EndReason::AgentSilent {
                waited_ms: BOOT.as_secs() * 1000,
                run_state: None,
                console_tail: Vec::new(),
            },
            error => link_failed(error),
        })?;
        let (opener, incoming, drive) = connect(link, Side::Host);
        let link = LinkTask(Rc::new(RefCell::new(Some(tokio::task::spawn_local(drive)))));
        let begun = async {
            let (mut messages, sender) = open_control(&opener).await?;
            let hello = hello(&mut messages).await?;
            Ok((messages, sender, hello))
        };
        match begun.await {
            Ok((messages, sender, hello)) => {
                Ok((Self { opener, incoming, messages, sender, link }, hello))
            }
            Err(reason) => Err(link.cause_of(reason).await),
        }
    }

    /// Configures the sandbox and waits until the guest has set itself up; `log` takes what its services
    /// print meanwhile: service, stream, line, all as they came.
    ///
    /// # Errors
    /// When it fails, is late, or says something else.
    pub async fn configure(
        &mut self,
        sandbox: ConfigureSandbox,
        log: impl FnMut(&str, LogStream, &str),
    ) -> Result<(), EndReason> {
        self.sender.say(&HostMessage::ConfigureSandbox(Box::new(sandbox))).await?;
        self.acknowledged(&SET_UP, log).await
    }

    /// Wakes a guest that is a clone of a frozen one, and waits until its programs go on; `log` as of
    /// [`Self::configure`].
    ///
    /// # Errors
    /// When it fails, is late, or says something else.
    pub async fn wake(
        &mut self,
        wake: Wake,
        log: impl FnMut(&str, LogStream, &str),
    ) -> Result<(), EndReason> {
        self.sender.say(&HostMessage::Wake(Box::new(wake))).await?;
        self.acknowledged(&SET_UP, log).await
    }

    /// Has the guest take a sign-in, and waits until it has; `log` as of [`Self::configure`].
    ///
    /// # Errors
    /// When it fails, is late, or says something else.
    pub async fn begin_sign_in(
        &mut self,
        sign_in: BeginSignIn,
        log: impl FnMut(&str, LogStream, &str),
    ) -> Result<(), EndReason> {
        self.sender.say(&HostMessage::BeginSignIn(Box::new(sign_in))).await?;
        self.acknowledged(&SIGN_IN, log).await
    }

    async fn acknowledged(
        &mut self,
        step: &Step,
        log: impl FnMut(&str, LogStream, &str),
    ) -> Result<(), EndReason> {
        let late =
            |_| broken(&format!("the guest did not {} within {SET_UP_SECONDS} s", step.does));
        let acknowledged = acknowledged(&mut self.messages, step, log);
        timeout(Duration::from_secs(SET_UP_SECONDS), acknowledged).await.map_err(late)?
    }

    /// Has the guest start its services.
    ///
    /// # Errors
    /// As [`GuestSender::say`].
    pub async fn start_services(&mut self) -> Result<(), EndReason> {
        self.sender.say(&HostMessage::StartServices {}).await
    }
}

type LinkHandle = JoinHandle<Result<(), LinkError>>;

/// The task that carries the link; it ends with the link.
#[derive(Clone)]
pub struct LinkTask(Rc<RefCell<Option<LinkHandle>>>);

impl LinkTask {
    /// Waits until the link has ended.
    pub(crate) async fn ended(&self) {
        let task = self.0.borrow_mut().take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }

    /// Why the link failed: the multiplexer's own error, if it has one, says more than the ends of its
    /// streams. Any other reason is returned as it is.
    pub async fn cause_of(&self, seen: EndReason) -> EndReason {
        if !matches!(seen, EndReason::GuestLinkFailed { .. }) {
            return seen;
        }
        let finished = self.0.borrow_mut().take_if(|task| task.is_finished());
        match finished {
            Some(task) => match task.await {
                Ok(Err(error @ LinkError::Mux(_))) => link_failed(error),
                _ => seen,
            },
            None => seen,
        }
    }
}

/// Random bytes for a guest's own generator.
#[must_use]
pub fn entropy_base64() -> String {
    let entropy: [u8; 32] = rand::random();
    STANDARD.encode(entropy)
}

async fn hello(messages: &mut GuestMessages) -> Result<Hello, EndReason> {
    match messages.next().await? {
        GuestMessage::Hello { agent_version, kernel, boot_id: _, is_clone, cpu } => Ok(Hello {
            agent_version: printable(&agent_version),
            kernel: printable(&kernel),
            cpu,
            is_clone,
        }),
        GuestMessage::Fatal { cause } => Err(agent_failed(&cause)),
        other => Err(violation(&format!("the guest sent {} before its hello", kind(&other)))),
    }
}

/// What the guest does and then acknowledges, in words.
struct Step {
    acknowledgement: GuestMessage,
    /// As in "did not …".
    does: &'static str,
    /// As in "before it …".
    has_done: &'static str,
}

const SET_UP: Step = Step {
    acknowledgement: GuestMessage::SandboxConfigured {},
    does: "finish its set-up",
    has_done: "was configured",
};

const SIGN_IN: Step = Step {
    acknowledgement: GuestMessage::SignInBegun {},
    does: "begin the sign-in",
    has_done: "had begun the sign-in",
};

async fn acknowledged(
    messages: &mut GuestMessages,
    step: &Step,
    mut log: impl FnMut(&str, LogStream, &str),
) -> Result<(), EndReason> {
    loop {
        match messages.next().await? {
            message if message == step.acknowledgement => return Ok(()),
            GuestMessage::Log { service, stream, line } => log(&service, stream, &line),
            // Its clock is being set.
            GuestMessage::Heartbeat { .. } => {}
            GuestMessage::Fatal { cause } => return Err(agent_failed(&cause)),
            other => {
                return Err(violation(&format!(
                    "the guest sent {} before it {}",
                    kind(&other),
                    step.has_done
                )));
            }
        }
    }
}

#[cfg(test)]
mod tests;
