//! The end of a process, and what was seen of it.

use anteroom_guest_protocol::{Evidence, ProcessExit, ServiceEvent, Then};

/// A wait status.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// How it ended.
    pub exit: ProcessExit,
    /// Whether the kernel made a core dump.
    pub dumped: bool,
}

/// How a process ended, and what was seen of it.
#[derive(Clone, Debug)]
pub struct Death {
    /// Its wait status.
    pub exit: ProcessExit,
    /// How long it lived, in milliseconds.
    pub lived_ms: u64,
    /// What else was seen.
    pub evidence: Evidence,
}

impl Death {
    /// Whether it ended by a signal or with a code other than 0.
    pub fn is_failure(&self) -> bool {
        self.exit != (ProcessExit::Exited { code: 0 })
    }

    /// The event that reports it; `deaths` counts this one too.
    pub fn into_event(self, last_lines: Vec<String>, deaths: u32, then: Then) -> ServiceEvent {
        let Self { exit, lived_ms, evidence } = self;
        ServiceEvent::Exited {
            exit,
            lived_ms,
            last_lines,
            evidence: Box::new(evidence),
            deaths,
            then,
        }
    }
}

/// A wait status as a sentence goes on after "it".
pub fn describe(exit: ProcessExit) -> String {
    anteroom_crash::process_exit(exit).to_string()
}
