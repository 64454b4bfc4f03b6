//! What the machine takes, and what it wants done.

use anteroom_guest_protocol::{CursorImage, GuestMessage, HostMessage, LogStream};
use anteroom_session::{CodeTaken, EgressVerdict, EndReason, HostPort, Observation};

use crate::CodeRefused;

/// Something that a sign-in goes on by.
#[derive(Clone, Debug)]
pub enum Input {
    /// The guest sent a message.
    Guest(GuestMessage),
    /// The CLI wrote to its terminal.
    Terminal(Vec<u8>),
    /// Nothing more comes from the terminal.
    TerminalClosed,
    /// A viewer of the terminal typed.
    Typed(String),
    /// The controller wants something.
    Command(Command),
    /// A program of the guest connected to a host, or did not.
    Contact(Contact),
    /// A deadline may be over.
    Time,
}

/// What the controller may want of a sign-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Start the CLI, which waited for the end user.
    StartTool,
    /// Lead the desktop's browser to the sign-in page again.
    OpenSignInPage,
    /// Type the end user's code; answered by [`Output::CodeAnswered`].
    EnterCode {
        /// Comes back in the answer.
        request: u64,
        /// As the end user gave it.
        code: String,
    },
    /// Let connections to a refused host out; answered by [`Output::HostAnswered`].
    AllowHost {
        /// Comes back in the answer.
        request: u64,
        /// As the operator wrote it.
        host: String,
    },
    /// The sealed credential is durable.
    AcknowledgeCredential,
    /// End now.
    Shutdown,
}

/// A connection of the guest's, as the egress gate reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The host asked for; empty when it could not be read.
    pub host: String,
    /// The port asked for.
    pub port: u16,
    /// What was decided.
    pub verdict: EgressVerdict,
    /// How many connections this is: none when it was reported before.
    pub connections: u64,
    /// Bytes from the guest.
    pub bytes_up: u64,
    /// Bytes to the guest.
    pub bytes_down: u64,
    /// Why it was refused or failed.
    pub detail: Option<String>,
}

/// Something to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to the guest.
    Say(HostMessage),
    /// Report this to the controller.
    Report(Observation),
    /// Type this into the terminal.
    Type(Keys),
    /// Write this line of a service into the session's log.
    Log {
        /// The service, as the guest calls it.
        service: String,
        /// Where it printed the line.
        stream: LogStream,
        /// The line, as the guest sent it.
        line: String,
    },
    /// Show viewers of the desktop this pointer.
    ShowCursor(CursorImage),
    /// Let connections to this host out from now on.
    Allow(HostPort),
    /// Let no connection out from now on.
    CloseEgress,
    /// The answer to [`Command::EnterCode`].
    CodeAnswered {
        /// The command's.
        request: u64,
        /// What became of the code.
        result: Result<CodeTaken, CodeRefused>,
    },
    /// The answer to [`Command::AllowHost`].
    HostAnswered {
        /// The command's.
        request: u64,
        /// What is let out from now on, or why it is not, one sentence.
        result: Result<HostPort, String>,
    },
    /// It is over. Nothing comes after it.
    End(End),
}

/// What is typed into a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// As it comes: a viewer's own keys, or a terminal's answers.
    AtOnce(String),
    /// With a pause behind it: a CLI that gets a code and Enter at once takes both for one paste.
    Paced(String),
}

/// How a sign-in ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It failed.
    Failed(EndReason),
    /// The credential is stored, and the guest may power off.
    Done,
    /// By the controller.
    Ordered,
}

impl From<EndReason> for End {
    fn from(reason: EndReason) -> Self {
        Self::Failed(reason)
    }
}
