//! What host and guest say to each other, and how it is framed. Pure: no I/O, no clock.
//!
//! The link is one reliable byte stream (virtio-serial, vsock or a Unix socket):
//!
//! 1. the host writes a [`Preamble`] with a fresh nonce, the guest answers with the same nonce;
//!    whatever either side finds before that is left over from an earlier life of the VM;
//! 2. a yamux session follows, the host as client. Each stream starts with one [`StreamKind`] byte:
//!    the host opens control, frames, input, one stream a file and one a check; the guest opens one stream an
//!    outgoing connection;
//! 3. on control and input streams: [`message`] frames, a `u32` big-endian length and that many
//!    bytes of JSON. On the frame stream: [`frames`].
//!
//! Everything a guest says is hostile: each length is checked before memory is taken for it.
#![forbid(unsafe_code)]

mod bundle;
mod chain;
mod check;
mod control;
mod evidence;
mod foreign_text;
pub mod frames;
pub mod input;
mod keys;
pub mod message;
mod preamble;
mod preferences;
mod service;
mod sign_in;

pub use bundle::{
    ANY_VALUE, KeyringItem, MAX_BUNDLE_ENTRIES, RESERVED_FOLDER, SQLITE_COMPANIONS,
    attributes_match, deletes_a_file, is_keyring_entry, keyring_entry, name_matches,
};
pub use chain::chain;
pub use check::{Check, Checked, MAX_FIRST_LINES, MAX_OPENED_FILES, PageFacts, SystemFacts};
pub use control::{
    ConfigureSandbox, CursorImage, Desktop, FileHeader, FileOutcome, GuestMessage, HostMessage,
    LogStream, ProcessExit, Purpose, ScreenSize, ServiceEvent, StreamKind, TERMINAL_COLUMNS,
    TERMINAL_ROWS, Then, Transport, UnknownStreamKind, Wake,
};
pub use evidence::{
    Evidence, Fault, GuestCpu, MAX_CHILDREN, MAX_CPUID_LEAVES, MAX_EVIDENCE_TEXT, MAX_INSTRUCTION,
    Mapping, NotStarted, OutOfMemory, Sender, Stall, Symbol,
};
pub use foreign_text::{ForeignText, is_harmful, printable, printable_lines, service_name};
pub use keys::PhysicalKey;
pub use preamble::{PREAMBLE_LEN, Preamble, PreambleError};
pub use preferences::{InvalidLocale, Locale, Preferences};
pub use service::{Probe, ServiceSpec, ServiceUser, Watchdog};
pub use sign_in::{
    BeginSignIn, CliSpec, Completeness, CredentialFileSpec, CredentialSpec, KeyringSpec,
    PrintedSpec, StatusSpec,
};

/// Raised by one with every change of the messages. Host and agent come from one build, so the
/// numbers differ only when something is badly wrong; then the session ends and says so.
pub const PROTOCOL_VERSION: u16 = 8;

/// The longest control message, in bytes of JSON: a sealed credential of [`MAX_CREDENTIAL`] in base64.
pub const MAX_CONTROL_MESSAGE: usize = 3 * 1024 * 1024;

/// The largest credential, all its files together, in bytes.
pub const MAX_CREDENTIAL: usize = 1536 * 1024;

/// Most lines of output in a record of death: an uncaught error of Node.js takes some thirty.
pub const MAX_LAST_LINES: usize = 40;

/// The longest input message, in bytes of JSON: a paste of 4 KiB, escaped.
pub const MAX_INPUT_MESSAGE: usize = 32 * 1024;

/// The largest file that may be injected, in bytes.
pub const MAX_INJECTED_FILE: u64 = 1024 * 1024;

/// The largest text that may be pasted, in bytes of UTF-8.
pub const MAX_PASTE: usize = 4 * 1024;

/// With the `host` driver: the file in the sandbox's folder that holds the number of its X display.
pub const HOST_DISPLAY_FILE: &str = "display";

/// Environment variable with a sandbox's name, which marks its processes on the host and its runner.
pub const SANDBOX_ENV: &str = "ANTEROOM_SANDBOX";

/// The guest says something at least this often, in milliseconds of its own clock.
pub const HEARTBEAT_INTERVAL_MS: u64 = 2_000;

/// After this much silence the host begins to give the guest up, in milliseconds. Generous: under
/// emulation with both host cores busy a guest can be away for several seconds.
pub const HEARTBEAT_DEADLINE_MS: u64 = 10_000;

/// The name of the virtio-serial port, as in `/sys/class/virtio-ports/*/name`.
pub const VIRTIO_PORT_NAME: &str = "org.anteroom.link";

/// The host's vsock port that a guest without that virtio-serial port connects to.
pub const VSOCK_PORT: u32 = 1024;
