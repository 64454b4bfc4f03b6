//! Control messages and stream headers.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::evidence::{Evidence, GuestCpu};
use crate::service::ServiceSpec;
use crate::sign_in::BeginSignIn;

/// The first byte of each multiplexed stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Opened by the host once: [`HostMessage`] one way, [`GuestMessage`] the other.
    Control,
    /// Opened by the host once: see [`crate::frames`].
    Frames,
    /// Opened by the host once: [`crate::input::InputEvent`] to the guest, nothing back.
    Input,
    /// Opened by the host once a file: [`FileHeader`] message, the bytes, then [`FileOutcome`] back.
    File,
    /// Opened by the guest once a connection to its HTTP proxy: the proxy protocol as it came.
    Egress,
    /// Opened by the host once a question: [`crate::Check`], then [`crate::Checked`] back.
    Check,
    /// Opened by the host once: what the CLI writes to its terminal, from its start on, to the host;
    /// what is typed, to the guest. The terminal has [`TERMINAL_ROWS`] × [`TERMINAL_COLUMNS`].
    Terminal,
    /// Opened by the host once a client: RFB with the desktop's VNC server, both ways.
    Vnc,
}

/// Rows of the CLI's terminal.
pub const TERMINAL_ROWS: u16 = 36;
/// Columns of the CLI's terminal.
pub const TERMINAL_COLUMNS: u16 = 120;

/// A stream that starts with a byte of no known kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stream of unknown kind {0} was opened")]
pub struct UnknownStreamKind(pub u8);

impl From<StreamKind> for u8 {
    fn from(kind: StreamKind) -> Self {
        match kind {
            StreamKind::Control => 1,
            StreamKind::Frames => 2,
            StreamKind::Input => 3,
            StreamKind::File => 4,
            StreamKind::Egress => 5,
            StreamKind::Check => 6,
            StreamKind::Terminal => 7,
            StreamKind::Vnc => 8,
        }
    }
}

impl TryFrom<u8> for StreamKind {
    type Error = UnknownStreamKind;

    fn try_from(byte: u8) -> Result<Self, UnknownStreamKind> {
        Ok(match byte {
            1 => Self::Control,
            2 => Self::Frames,
            3 => Self::Input,
            4 => Self::File,
            5 => Self::Egress,
            6 => Self::Check,
            7 => Self::Terminal,
            8 => Self::Vnc,
            other => return Err(UnknownStreamKind(other)),
        })
    }
}

/// Host → guest on the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum HostMessage {
    /// First, and once: what the sandbox is; answered by [`GuestMessage::SandboxConfigured`].
    ConfigureSandbox(Box<ConfigureSandbox>),
    /// Once, in a sandbox for a sign-in: whose it is, and to what; answered by
    /// [`GuestMessage::SignInBegun`]. The files follow on their own streams.
    BeginSignIn(Box<BeginSignIn>),
    /// Once, after the services are ready and before any sign-in: stop every program, and wait for another
    /// host on the link. Answered by [`GuestMessage::Frozen`], which is the last thing that this host hears:
    /// the VM is saved then, as a template of others.
    Freeze {
        /// What the host must name that wakes one of these.
        wake_token: String,
    },
    /// First, and once, to a guest that was frozen: go on, as a sandbox of its own; answered by
    /// [`GuestMessage::SandboxConfigured`] before any program runs.
    Wake(Box<Wake>),
    /// Start the services: the desktop, and as soon as a sign-in has begun the CLI's.
    StartServices {},
    /// Start the CLI as soon as the services allow it. Once; it may be said again.
    StartTool {},
    /// Show this sign-in page in the desktop's browser, which is started if it does not run yet.
    OpenSignInPage {
        /// Its URL.
        url: String,
    },
    /// What time it is on the host, in answer to a heartbeat.
    Time {
        /// The heartbeat's `sent_ms`.
        asked_ms: u64,
        /// The host's clock, in milliseconds since the Unix epoch.
        now_unix_ms: u64,
    },
    /// This was typed into the terminal and is a secret: it must not be logged.
    Secret {
        /// The text, in UTF-8.
        text: String,
    },
    /// It is the end user's turn: what is there now is not what their sign-in leaves. Said again, it means
    /// nothing more.
    TurnBegins {},
    /// The terminal has shown that the CLI is signed in, where that was waited for.
    SignedIn {},
    /// The sealed credential is durable on the host: forget it and power off.
    AcknowledgeCredential {},
    /// Power off now.
    Shutdown {},
}

/// What a sandbox is, whoever signs in to what in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigureSandbox {
    /// The host's clock, in milliseconds since the Unix epoch: a guest's own may be wrong.
    pub now_unix_ms: u64,
    /// 32 random bytes, base64, credited to the guest's entropy pool.
    pub entropy_base64: String,
    /// Address of the guest's dummy interface: with only `lo`, `navigator.onLine` is false.
    pub browser_ip: Ipv4Addr,
    /// Desktop size.
    pub screen: ScreenSize,
    /// What the sandbox is for.
    pub purpose: Purpose,
    /// TCP ports that programs may reach without a proxy; where they get is the host's to decide.
    pub egress_ports: Vec<u16>,
    /// PEM of extra certificate authorities for Chromium and the CLI; empty for none.
    pub extra_ca_pem: String,
    /// What else is to run, as the image's recipe declares it.
    pub services: Vec<ServiceSpec>,
}

/// What makes a clone of a frozen guest a sandbox of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wake {
    /// As [`HostMessage::Freeze`] had it: a host that has another restored something else.
    pub wake_token: String,
    /// As in [`ConfigureSandbox`].
    pub now_unix_ms: u64,
    /// As in [`ConfigureSandbox`].
    pub entropy_base64: String,
    /// As in [`ConfigureSandbox`].
    pub browser_ip: Ipv4Addr,
}

/// What a sandbox is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "purpose", rename_all = "snake_case", deny_unknown_fields)]
pub enum Purpose {
    /// An end user signs in to a CLI, which [`HostMessage::BeginSignIn`] names.
    SignIn {
        /// Whether its browser is started with the desktop.
        desktop: Desktop,
    },
    /// It is frozen once its desktop is ready, and sign-ins start from clones of it.
    Template {},
    /// The image is verified: everything runs but a CLI, and the host asks [`crate::Check`]s.
    Verification {},
}

/// Whether the end user signs in on the desktop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Desktop {
    /// In its browser, which is started with everything else.
    Used,
    /// Elsewhere; the browser is started when a page is to be opened in it.
    OnDemand,
}

/// Desktop size in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScreenSize {
    /// 320 to 3840, even.
    pub width: u16,
    /// 240 to 2160, even.
    pub height: u16,
}

/// Guest → host on the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum GuestMessage {
    /// First, before [`HostMessage::ConfigureSandbox`] is read.
    Hello {
        /// The agent's version.
        agent_version: String,
        /// `uname -r` of the guest.
        kernel: String,
        /// `/proc/sys/kernel/random/boot_id`: differs in every VM.
        boot_id: String,
        /// Whether it was frozen before: a clone of a template.
        is_clone: bool,
        /// What its processor says of itself.
        cpu: GuestCpu,
    },
    /// The guest is set up as [`HostMessage::ConfigureSandbox`] or [`HostMessage::Wake`] says.
    SandboxConfigured {},
    /// No program runs but the agent.
    Frozen {},
    /// The sign-in has begun as [`HostMessage::BeginSignIn`] says; files may come.
    SignInBegun {},
    /// Sent every [`crate::HEARTBEAT_INTERVAL_MS`], also between other messages.
    Heartbeat {
        /// The guest's monotonic clock as it was sent, in milliseconds; comes back in
        /// [`HostMessage::Time`].
        sent_ms: u64,
    },
    /// A supervised service changed.
    Service {
        /// `x`, `window-manager`, `browser`, `cli`.
        name: String,
        /// What changed.
        event: ServiceEvent,
    },
    /// A line that a service printed.
    Log {
        /// The service, or `agent`.
        service: String,
        /// Which stream.
        stream: LogStream,
        /// The line without its end, terminal escapes removed, at most 4 KiB.
        line: String,
    },
    /// The CLI starts a browser with this URL.
    SignInUrl {
        /// The URL.
        url: String,
    },
    /// The browser was asked to show the sign-in URL and fetched the redirect to it.
    SignInPageOpened {},
    /// The browser's window has another title: that of the page it shows.
    PageTitle {
        /// At most 512 characters.
        title: String,
    },
    /// A script of a page called a port of this machine, and Chromium refused it.
    PageCallRefused {
        /// The page's origin.
        page: String,
        /// What it called: `127.0.0.1:1455`.
        address: String,
    },
    /// A program sent something past every way out, and it was refused. Reported once for each destination.
    ConnectionBlocked {
        /// The name that it was for, or the address.
        host: String,
        /// The port.
        port: u16,
        /// By what.
        transport: Transport,
    },
    /// The pointer's shape changed.
    Cursor(CursorImage),
    /// The credential file is complete and stable; the CLI is frozen or gone.
    CredentialFound {
        /// Bytes that the CLI has written to the terminal's stream: what they show may say that it
        /// failed all the same.
        #[serde(default)]
        terminal_bytes: u64,
    },
    /// The CLI says by its exit status, which follows, that it failed; its complete credential file is
    /// not taken.
    CredentialLeft {},
    /// Asked of a home that holds the credential alone, the CLI says that it is signed in.
    CredentialVerified {
        /// The line that says so.
        said: String,
    },
    /// The credential, sealed to the recipient.
    CredentialSealed {
        /// The age file, base64.
        ciphertext_base64: String,
    },
    /// There is a credential file and it cannot be taken.
    CredentialRefused {
        /// Why, one sentence.
        cause: String,
    },
    /// The guest cannot go on.
    Fatal {
        /// Why, one sentence.
        cause: String,
    },
}

/// What carries a program's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// A connection.
    Tcp,
    /// Datagrams.
    Udp,
}

/// What happened to a supervised service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case", deny_unknown_fields)]
pub enum ServiceEvent {
    /// Its process runs; it is not ready yet.
    Started {
        /// Process id in the guest.
        pid: u32,
    },
    /// Its readiness check succeeded.
    Ready {},
    /// Its process ended.
    Exited {
        /// Its wait status.
        exit: ProcessExit,
        /// How long it lived, in milliseconds of the guest's clock.
        lived_ms: u64,
        /// Its last lines of output.
        last_lines: Vec<String>,
        /// What else was seen.
        evidence: Box<Evidence>,
        /// How often it has died in this session.
        deaths: u32,
        /// What the supervisor does about it.
        then: Then,
    },
    /// It was given up: it could not be started or did not become ready.
    Failed {
        /// Why, one sentence.
        cause: String,
        /// Its last lines of output.
        last_lines: Vec<String>,
        /// What else was seen.
        evidence: Box<Evidence>,
        /// How its process ended, if it had one that did.
        exit: Option<ProcessExit>,
        /// How long that lived, in milliseconds of the guest's clock.
        lived_ms: u64,
    },
    /// A process that a service started died of a fault, or was killed by the kernel for want of memory.
    ChildDied {
        /// The child's name: its program's, without folders, or the one that the kernel has.
        child: String,
        /// What was seen: its core dump, or what the kernel said.
        evidence: Box<Evidence>,
    },
}

/// What a supervisor does about a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case", deny_unknown_fields)]
pub enum Then {
    /// Starts it again.
    Restart {
        /// After so many milliseconds.
        after_ms: u64,
    },
    /// Leaves it, since starting it again cannot change anything.
    Useless {},
    /// Leaves it, since it died too often.
    TooOften {},
    /// Leaves it: nobody asked for more.
    Nothing {},
}

/// A wait status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case", deny_unknown_fields)]
pub enum ProcessExit {
    /// By itself.
    Exited {
        /// Exit code.
        code: i32,
    },
    /// By a signal.
    Signalled {
        /// Signal number.
        signal: i32,
    },
}

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output, or the terminal of the CLI.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The pointer's shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CursorImage {
    /// Pixels, 0 (hidden) to 128.
    pub width: u16,
    /// Pixels, 0 (hidden) to 128.
    pub height: u16,
    /// The point that clicks, in pixels from the left.
    pub hot_x: u16,
    /// The point that clicks, in pixels from the top.
    pub hot_y: u16,
    /// `width × height` RGBA pixels, not premultiplied, base64.
    pub rgba_base64: String,
}

/// First message of a file stream; `size` bytes follow, then the guest answers [`FileOutcome`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileHeader {
    /// Absolute path, or `~/…` for the guest user's home.
    pub path: String,
    /// `root` or the guest user's name.
    pub owner: String,
    /// Permission bits, at most `0o777`.
    pub mode: u32,
    /// Bytes, at most [`crate::MAX_INJECTED_FILE`].
    pub size: u64,
}

/// What became of an injected file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case", deny_unknown_fields)]
pub enum FileOutcome {
    /// In place; the hash is of what the guest read back from the file.
    Written {
        /// Lower-case hexadecimal SHA-256.
        sha256: String,
    },
    /// Not in place.
    Refused {
        /// Why, one sentence.
        cause: String,
    },
}
