//! The parts of QEMU's monitor protocol that are spoken here.
//!
//! The protocol is QMP (QEMU, docs/interop/qmp-spec.rst): a greeting, then one JSON object a line.
//! Some commands and a few events are needed, from a process that a guest may have taken over, so
//! lines are bounded by who reads them; the `qapi` crate would read any length and bring types for all of
//! QEMU.

use serde::Deserialize;

/// The longest of QEMU's terms that is passed on, in characters.
pub const LONGEST_TERM: usize = 80;

/// A command and its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// A JSON object.
    arguments: &'static str,
}

impl Command {
    /// Before any other.
    pub const CAPABILITIES: Self = Self::bare("qmp_capabilities");
    pub const KVM: Self = Self::bare("query-kvm");
    pub const STATUS: Self = Self::bare("query-status");
    /// QMP itself has no command for it.
    pub const REGISTERS: Self = Self {
        name: "human-monitor-command",
        arguments: r#"{"command-line":"info registers -a"}"#,
    };
    /// Stops the guest's processors.
    pub const STOP: Self = Self::bare("stop");
    /// Lets them go on.
    pub const CONTINUE: Self = Self::bare("cont");
    /// What a migration moves: all but memory that is a file, of which the other side has the same; and
    /// that its steps are events.
    pub const WITHOUT_MEMORY: Self = Self {
        name: "migrate-set-capabilities",
        arguments: r#"{"capabilities":[{"capability":"x-ignore-shared","state":true},{"capability":"events","state":true}]}"#,
    };
    /// Takes the descriptor that comes with it.
    pub const TAKE_STATE: Self = Self { name: "getfd", arguments: r#"{"fdname":"state"}"# };
    /// Writes to that descriptor.
    pub const SAVE: Self = Self { name: "migrate", arguments: r#"{"uri":"fd:state"}"# };
    pub const MIGRATION: Self = Self::bare("query-migrate");

    const fn bare(name: &'static str) -> Self {
        Self { name, arguments: "{}" }
    }

    /// Reads the state behind one of QEMU's own descriptors; `arguments` say which.
    pub const fn load(arguments: &'static str) -> Self {
        Self { name: "migrate-incoming", arguments }
    }

    /// As it is sent.
    pub fn line(self) -> String {
        format!("{{\"execute\":\"{}\",\"arguments\":{}}}\n", self.name, self.arguments)
    }
}

/// The parts of QEMU's answers that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Answer {
    /// `query-kvm`: whether KVM executes the guest.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// `query-status`: `running`, `paused`, `internal-error`, …; `query-migrate`: `active`, `completed`,
    /// `failed`, ….
    #[serde(default)]
    pub status: Option<String>,
    /// `query-migrate`: why it failed.
    #[serde(default, rename = "error-desc")]
    pub error: Option<String>,
    /// Of the human monitor (HMP).
    #[serde(skip)]
    pub text: Option<String>,
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
pub enum Return {
    Text(String),
    Fields(Answer),
}

/// One line of the monitor.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Line {
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
pub struct Refusal {
    pub desc: String,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub struct EventData {
    #[serde(default)]
    pub reason: Option<String>,
}

/// As one line of bounded length, harmless to a terminal.
pub fn short(text: &str, longest: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(longest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_lines_of_json() {
        for command in [Command::STATUS, Command::REGISTERS, Command::WITHOUT_MEMORY, Command::SAVE]
        {
            let line = command.line();
            let value: serde_json::Value = serde_json::from_str(line.trim_end()).unwrap();
            assert_eq!(value["execute"], command.name);
            assert!(value["arguments"].is_object() && line.ends_with('\n'));
        }
    }
}
