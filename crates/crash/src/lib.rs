//! Why a process died: from evidence to one sentence an end user understands.
//!
//! [`explain`] looks at what was seen (wait status, last lines, core dump, the kernel's word) and
//! says what it means, what that rests on, how sure it is, and what to do. *No claim without
//! evidence*: what is not known stays [`Cause::Unknown`](anteroom_session::Cause), with what was seen. Pure: what is read comes
//! from readers that the caller opened.
#![forbid(unsafe_code)]

mod chain;
mod claim;
mod error_lines;
mod exit;
mod fault;
mod firecracker;
mod instruction;
mod lines;
mod machine;
mod numbers;
mod output;
mod patterns;
mod processor;
mod reports;
mod service;
mod signal;
mod stack;

pub mod core_file;
pub mod dump;
pub mod elf;
pub mod elf32;
pub mod glibc;

use anteroom_cpu::CpuProfile;
use anteroom_guest_protocol::{Evidence, ProcessExit};
use anteroom_session::{self as session, Explanation};

use claim::{Claim, Diagnosis};

pub use error_lines::{is_error, message};
pub use firecracker::explain_firecracker;
pub use instruction::{Decoded, decode};
pub use machine::{explain_machine, explain_machine_out_of_memory};
pub use service::{Explainer, agent_failed, processor_of};
pub use stack::is_stack_line;

/// What was seen of one death.
#[derive(Clone, Debug)]
pub struct Death<'a> {
    /// What the sentence begins with: the service's title, or the program's name.
    pub service: &'a str,
    /// Its wait status; `None` when it never ran.
    pub exit: Option<ProcessExit>,
    /// How long it lived, in milliseconds, where that is known.
    pub lived_ms: Option<u64>,
    /// Its last lines of output, oldest first, free of control characters; `None` where its output
    /// was not seen.
    pub last_lines: Option<&'a [String]>,
    /// What else was seen.
    pub evidence: &'a Evidence,
    /// The processor that it ran on, where known.
    pub cpu: Option<&'a Cpu>,
}

impl Death<'_> {
    /// Its last lines, none where its output was not seen.
    fn lines(&self) -> &[String] {
        self.last_lines.unwrap_or_default()
    }

    /// What is said in place of a last line: nothing of output that was not seen.
    fn silence(&self) -> Claim {
        match self.last_lines {
            Some(_) => Claim::PrintedNothing,
            None => Claim::OutputUnseen,
        }
    }
}

/// The processor of a VM.
#[derive(Clone, Debug)]
pub struct Cpu {
    /// How it is called in a sentence: `the CPU profile x86-64-v2`.
    pub name: String,
    /// What it has.
    pub profile: CpuProfile,
}

/// Says why.
#[must_use]
pub fn explain(death: &Death<'_>) -> Explanation {
    let mut explanation = diagnosis(death).explanation(death.service);
    if let Some(exit) = death.exit {
        explanation.evidence.insert(0, wait_status(exit, death.lived_ms));
    }
    let lines = lines::last_few(death.lines());
    for (n, line) in lines.iter().enumerate() {
        let label = if n == 0 { "its last lines: " } else { "    " };
        explanation.evidence.push(format!("{label}{line}"));
    }
    explanation
}

fn wait_status(exit: ProcessExit, lived_ms: Option<u64>) -> String {
    let exit = process_exit(exit);
    match lived_ms {
        Some(millis) => format!("wait status: it {exit} after {}", seconds(millis)),
        None => format!("wait status: it {exit}"),
    }
}

/// A guest's wait status as the session has it, which has the one form in words.
#[must_use]
pub fn process_exit(exit: ProcessExit) -> session::ProcessExit {
    match exit {
        ProcessExit::Exited { code } => session::ProcessExit::Exited { code },
        ProcessExit::Signalled { signal } => session::ProcessExit::Signalled { signal },
    }
}

/// A time, as an end user reads it.
fn seconds(millis: u64) -> String {
    format!("{}.{} s", millis / 1000, millis % 1000 / 100)
}

/// What is said of a death, before it is put into words.
fn diagnosis(death: &Death<'_>) -> Diagnosis {
    let Evidence { fault, out_of_memory, not_started, stall, kernel_log_read: _ } = death.evidence;
    if let Some(failure) = not_started {
        return exit::not_started(failure);
    }
    if let Some(stall) = stall {
        return signal::stall(stall);
    }
    if let Some(oom) = out_of_memory {
        return signal::out_of_memory(death, oom);
    }
    match death.exit {
        Some(ProcessExit::Signalled { signal }) => match fault {
            // A core of another signal is of another death.
            Some(fault) if fault.signal == signal => fault::explain(death, fault),
            _ => signal::explain(death, signal),
        },
        Some(ProcessExit::Exited { code }) => exit::explain(death, code),
        None => exit::never_ran(),
    }
}

#[cfg(test)]
mod tests;
