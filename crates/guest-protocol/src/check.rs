//! What the host asks of a sandbox that verifies its image: one stream a question.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::control::ServiceEvent;

/// Most paths in one answer.
pub const MAX_OPENED_FILES: usize = 500;

/// Most first lines of a program: its version stands there.
pub const MAX_FIRST_LINES: usize = 10;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case", deny_unknown_fields)]
pub enum Check {
    /// Runs a program to its end, as the end user; answered by [`Checked::Ran`].
    Run {
        /// How it is called in logs.
        name: String,
        /// Program and arguments; the program is looked up in the guest's PATH.
        command: Vec<String>,
        /// Extra environment variables.
        env: BTreeMap<String, String>,
        /// How long it may take, in seconds.
        seconds: u32,
    },
    /// Looks at the guest as a whole; answered by [`Checked::System`].
    System {},
    /// Waits for what the browser's page found; answered by [`Checked::Page`].
    Page {},
    /// Connects to the desktop's VNC socket; answered by [`Checked::VncGreeting`].
    VncGreeting {},
    /// Which ELF files were opened since the services were started, in the order of their first
    /// opening, without the first `skip`; answered by [`Checked::OpenedFiles`].
    OpenedFiles {
        /// How many are known already.
        skip: u32,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case", deny_unknown_fields)]
pub enum Checked {
    /// How the program went; what it printed last are its last lines.
    Ran {
        /// What it printed first, at most [`MAX_FIRST_LINES`] lines.
        first_lines: Vec<String>,
        /// [`ServiceEvent::Exited`] or [`ServiceEvent::Failed`].
        event: ServiceEvent,
    },
    /// The guest as a whole.
    System(SystemFacts),
    /// What the browser's page found.
    Page(PageFacts),
    /// What the VNC server says first (RFC 6143, 7.1.1: `RFB 003.008`).
    VncGreeting {
        /// Without the line's end.
        text: String,
    },
    /// Paths, at most [`MAX_OPENED_FILES`].
    OpenedFiles {
        /// Absolute.
        paths: Vec<String>,
        /// Whether there are more.
        more: bool,
    },
    /// The question could not be answered.
    Failed {
        /// Why, one sentence.
        cause: String,
    },
}

/// The guest as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemFacts {
    /// `PRETTY_NAME` of os-release(5).
    pub os: String,
    /// Its clock, in milliseconds since the Unix epoch.
    pub now_unix_ms: u64,
    /// `MemTotal` of /proc/meminfo, in KiB.
    pub memory_total_kib: u64,
    /// `MemAvailable` of /proc/meminfo, in KiB.
    pub memory_available_kib: u64,
    /// Certificate authorities in the system's bundle.
    pub certificates: u32,
}

/// What a script in the browser's page found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PageFacts {
    /// `navigator.userAgent`.
    pub user_agent: String,
    /// `Date.now()`.
    pub now_unix_ms: u64,
    /// Writing systems of which a sample letter has no glyph in any font.
    pub without_glyphs: Vec<String>,
    /// Whether an emoji is drawn in colour.
    pub colour_emoji: bool,
    /// Whether a WebAssembly function with SIMD instructions gave the right result.
    pub wasm_simd: bool,
    /// `navigator.onLine`.
    pub online: bool,
}
