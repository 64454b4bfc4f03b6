//! What the verifier saw of a VM.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anteroom_cpu::CpuProfile;
use anteroom_guest_protocol::{PageFacts, SystemFacts};
use anteroom_media::viewed::Viewed;
use anteroom_session::{Cause, Confidence, DriverKind, EndReason, Explanation};

/// The desktop's own services, in the order of a report.
pub const OWN_SERVICES: [&str; 3] = ["x", "window-manager", "browser"];

/// What was seen. What was not come to is `None`.
#[derive(Default)]
pub struct Seen {
    pub hello: Option<Hello>,
    pub services: BTreeMap<String, Service>,
    pub programs: BTreeMap<String, Ran>,
    pub system: Option<Result<At<SystemFacts>, String>>,
    pub page: Option<Result<PageFacts, String>>,
    pub vnc_greeting: Option<Result<String, String>>,
    pub viewed: Option<Result<Viewed, String>>,
    pub picture: Option<Vec<u8>>,
    pub opened: Option<Result<BTreeSet<String>, String>>,
    /// Files with code that a program died of, since the processor lacks it.
    pub reached: BTreeSet<String>,
    /// Children of services that crashed: service and why.
    pub crashes: Vec<(String, Explanation)>,
    /// Why the VM ended before it was done with.
    pub end: Option<Explanation>,
}

/// The agent's first message.
pub struct Hello {
    pub agent_version: String,
    pub kernel: String,
    pub cpu: Option<CpuProfile>,
    pub after: Duration,
}

/// Something and the host's clock when it came, in milliseconds since the Unix epoch.
pub struct At<T> {
    pub what: T,
    pub host_unix_ms: u64,
}

/// A service of the VM.
#[derive(Default)]
pub struct Service {
    pub ready_after: Option<Duration>,
    pub deaths: Vec<Explanation>,
    /// Whether it died after it had been ready.
    pub died_ready: bool,
    /// Why there will be no further start.
    pub lost: Option<Explanation>,
}

/// A program that was run to its end.
pub struct Ran {
    /// What it printed first.
    pub first_lines: Vec<String>,
    pub lived_ms: u64,
    /// Why it did not succeed.
    pub failure: Option<Explanation>,
}

/// The end of a VM as an explanation.
pub fn explained(reason: &EndReason, driver: DriverKind) -> Explanation {
    reason.explanation().cloned().unwrap_or_else(|| unexplained(reason.sentence(driver)))
}

/// What was seen, where that does not say why.
pub fn unexplained(sentence: String) -> Explanation {
    Explanation {
        cause: Cause::Unknown,
        sentence,
        evidence: Vec::new(),
        confidence: Confidence::Unknown,
        advice: None,
    }
}
