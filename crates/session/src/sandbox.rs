//! What is known of a sandbox whatever boots it: its driver, what executes its code, how it runs and why
//! it stopped.

use serde::{Deserialize, Serialize};

/// What boots a session's sandbox.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum DriverKind {
    /// A QEMU microVM.
    Qemu,
    /// A Firecracker microVM.
    Firecracker,
    /// Processes on the host itself, for tests.
    Host,
}

impl DriverKind {
    /// What stands between a sandbox and the host.
    #[must_use]
    pub fn isolation(self) -> Isolation {
        match self {
            Self::Qemu | Self::Firecracker => Isolation::Vm,
            Self::Host => Isolation::None,
        }
    }

    /// What a sentence calls one of its sandboxes.
    #[must_use]
    pub fn sandbox(self) -> &'static str {
        match self.isolation() {
            Isolation::Vm => "the VM",
            Isolation::None => "the agent on this host",
        }
    }

    /// What a sentence calls the agent in one of its sandboxes.
    #[must_use]
    pub fn agent(self) -> &'static str {
        match self.isolation() {
            Isolation::Vm => "the agent in the VM",
            Isolation::None => "the agent on this host",
        }
    }
}

/// What stands between a sandbox and the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, utoipa::ToSchema, Serialize)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// A kernel of its own, in a VM.
    Vm,
    /// The host's kernel is the sandbox's.
    None,
}

/// What executes guest code.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, strum::Display, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Accelerator {
    /// Hardware virtualisation.
    Kvm,
    /// QEMU's emulation: slow, and no isolation boundary by QEMU's own documentation.
    Tcg,
    /// No VM: the agent runs on the host itself. No isolation.
    None,
}

/// Whether a guest runs, as its VMM reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum RunState {
    /// It runs.
    Running,
    /// It was paused.
    Paused,
    /// Anything else, by the VMM's own name for it.
    #[serde(untagged)]
    #[strum(to_string = "{0}")]
    Other(String),
}

/// Why a guest stopped, as its VMM reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum ShutdownCause {
    /// The guest reset its machine.
    GuestReset,
    /// The guest shut its machine down.
    GuestShutdown,
    /// The guest reported a panic of its kernel.
    GuestPanic,
    /// A process on the host asked the VMM to end by a signal.
    HostSignal,
    /// Anything else, by the VMM's own name for it.
    #[serde(untagged)]
    #[strum(to_string = "{0}")]
    Other(String),
}

/// What a VMM counted of one failure, by its own account; never nought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmmFailures {
    /// What failed.
    pub kind: VmmFailure,
    /// The VMM's own name of its counter.
    pub counter: &'static str,
    /// How often, as far as the VMM reported it.
    pub count: u64,
}

/// What of a VMM failed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum VmmFailure {
    /// Running one of the guest's processors.
    Processor,
    /// A system call, which its own filter refused.
    SystemCall,
    /// A check of its own: it panicked.
    Panic,
    /// It received a signal that ends it.
    Signal,
    /// A device of the guest's.
    Device,
    /// Its own log: lines are missing.
    Log,
}

impl std::fmt::Display for VmmFailures {
    fn fmt(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(text, "{}: {}", self.counter, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_and_a_cause_are_one_word_and_unknown_ones_are_kept() {
        for (cause, word) in [
            (ShutdownCause::GuestReset, "guest-reset"),
            (ShutdownCause::Other("host-qmp-quit".into()), "host-qmp-quit"),
        ] {
            let json = serde_json::to_value(&cause).unwrap();
            assert_eq!((json.as_str(), cause.to_string().as_str()), (Some(word), word));
            assert_eq!(serde_json::from_value::<ShutdownCause>(json).unwrap(), cause);
        }
        let states = [RunState::Paused, RunState::Other("internal-error".into())];
        let json = serde_json::to_string(&states).unwrap();
        assert_eq!(json, r#"["paused","internal-error"]"#);
        assert_eq!(serde_json::from_str::<[RunState; 2]>(&json).unwrap(), states);
        assert_eq!(states[1].to_string(), "internal-error");
    }
}
