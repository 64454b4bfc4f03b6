//! Why a session ended: a code for programs and a sentence for people.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Actor, DriverKind, Explanation, RunState, ShutdownCause};

/// How a process ended, from its wait status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum ProcessExit {
    /// Returned from main or called `exit`.
    Exited {
        /// Exit code.
        code: i32,
    },
    /// Killed by a signal.
    Signalled {
        /// Signal number.
        signal: i32,
    },
    /// Gone, and its parent could not wait for it (it was adopted).
    Unknown,
}

impl fmt::Display for ProcessExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { code } => write!(f, "exited with code {code}"),
            Self::Signalled { signal } => match signal_name(*signal) {
                Some(name) => write!(f, "was killed by signal {signal} ({name})"),
                None => write!(f, "was killed by signal {signal}"),
            },
            Self::Unknown => f.write_str("ended with an unknown exit status"),
        }
    }
}

/// What no process can catch (signal(7)).
const SIGKILL: i32 = 9;

/// A signal's name, by the numbers that x86-64 and arm64 Linux share (signal(7)).
#[must_use]
pub fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        16 => "SIGSTKFLT",
        19 => "SIGSTOP",
        20 => "SIGTSTP",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        26 => "SIGVTALRM",
        27 => "SIGPROF",
        29 => "SIGIO",
        30 => "SIGPWR",
        31 => "SIGSYS",
        _ => return None,
    })
}

/// Why a session ended. [`Self::sentence`] is what the end user and the caller read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, strum::IntoStaticStr)]
#[cfg_attr(test, derive(strum::VariantNames))]
#[serde(tag = "code", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum EndReason {
    /// The credential is sealed and stored, the sandbox destroyed.
    Completed,
    /// Somebody cancelled it.
    Cancelled {
        /// Who.
        by: Actor,
    },
    /// Its time to live has expired.
    TimedOut {
        /// The state it was in then, by its wire name.
        during: String,
        /// How long it had, in seconds.
        ttl_seconds: u64,
    },
    /// Its caller extended it up to the maximum duration of a session.
    TooLong {
        /// The state it was in then, by its wire name.
        during: String,
        /// The maximum duration of a session, in seconds.
        max_seconds: u64,
    },
    /// The CLI was to be started when the end user comes, and nobody opened the link.
    NobodyCame {
        /// How long the session had, in seconds.
        waited_seconds: u64,
    },
    /// The end user came and was then inactive for too long.
    Idle {
        /// How long, in seconds.
        idle_seconds: u64,
    },
    /// The golden image cannot be used.
    ImageRefused {
        /// Why.
        cause: String,
    },
    /// The sandbox could not be started.
    SandboxNotStarted {
        /// Why.
        cause: String,
    },
    /// The sandbox's process ended unexpectedly.
    SandboxExited {
        /// How its process ended.
        exit: ProcessExit,
        /// Why the guest stopped, as its VMM reports it; absent when the VMM was killed before it could.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shutdown: Option<ShutdownCause>,
        /// Last lines of the serial console.
        console_tail: Vec<String>,
        /// Why, by the evidence; absent when there is none but these.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        explanation: Option<Box<Explanation>>,
    },
    /// The sandbox's process was stopped and not continued.
    SandboxStopped {
        /// By which signal.
        signal: i32,
        /// How long it was seen stopped, in seconds.
        stopped_seconds: u64,
    },
    /// The agent did not say hello in time.
    AgentSilent {
        /// How long was waited, in milliseconds.
        waited_ms: u64,
        /// Whether the guest ran then, as its VMM reports it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run_state: Option<RunState>,
        /// Last lines of the serial console.
        console_tail: Vec<String>,
    },
    /// The guest's link closed, failed or went silent.
    GuestLinkFailed {
        /// What exactly.
        cause: String,
    },
    /// The guest violated the protocol.
    GuestBrokeProtocol {
        /// What exactly.
        cause: String,
    },
    /// The guest responded all the time, but did not do its part.
    GuestStalled {
        /// What it did not do, as in "did not …".
        what: String,
        /// How long it had, in seconds.
        allowed_seconds: u64,
    },
    /// A file could not be injected.
    FileNotInjected {
        /// Its path in the guest.
        path: String,
        /// Why.
        cause: String,
    },
    /// A service the session cannot do without did not become ready, or keeps dying.
    ServiceFailed {
        /// Its name.
        service: String,
        /// What was seen.
        cause: String,
        /// Its last lines of output.
        last_lines: Vec<String>,
        /// Why, by the evidence; absent when there is none but `cause`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        explanation: Option<Box<Explanation>>,
    },
    /// The CLI ended before it wrote a credential, or it failed.
    CliExited {
        /// How.
        exit: ProcessExit,
        /// Whether it had written a complete credential, which was discarded because the CLI failed.
        #[serde(default)]
        left_credential: bool,
        /// Its last lines of output.
        last_lines: Vec<String>,
        /// Why, by the evidence.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        explanation: Option<Box<Explanation>>,
    },
    /// The CLI never printed a sign-in URL, and its terminal shows no other prompt.
    NoSignInUrl {
        /// How long was waited, in milliseconds.
        waited_ms: u64,
        /// Its last lines of output.
        last_lines: Vec<String>,
        /// An address that it opened and that is not the sign-in's, by the provider file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ignored: Option<String>,
    },
    /// The CLI shows that the sign-in is over without a credential.
    SignInRefused {
        /// What it means and what to do, from the provider file.
        says: String,
        /// The line of its screen that says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        line: Option<String>,
        /// What the operator can do about it, from the provider file.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        operator: Option<String>,
    },
    /// The credential file is not what the provider file says it should be.
    CredentialRefused {
        /// Why.
        cause: String,
    },
    /// The sealed credential could not be stored.
    CredentialNotStored {
        /// Why.
        cause: String,
    },
    /// The session's runner process died.
    RunnerDied {
        /// How.
        exit: ProcessExit,
    },
    /// The session's runner process is running and has gone silent.
    RunnerSilent {
        /// How long nothing was heard, in milliseconds.
        silent_ms: u64,
    },
    /// The session's state could not be stored, so it could not continue.
    StateNotStored {
        /// Why.
        cause: String,
    },
    /// The controller was stopped or died while the session was running.
    ControllerStopped,
}

impl EndReason {
    /// Why a process of the sandbox died, where that is the reason.
    #[must_use]
    pub fn explanation(&self) -> Option<&Explanation> {
        match self {
            Self::ServiceFailed { explanation, .. }
            | Self::CliExited { explanation, .. }
            | Self::SandboxExited { explanation, .. } => explanation.as_deref(),
            _ => None,
        }
    }

    /// The stable code, as in the JSON form.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.into()
    }

    /// The sentence that the end user and the caller read, of a session whose sandbox this driver boots.
    #[must_use]
    pub fn sentence(&self, driver: DriverKind) -> String {
        Sentence { reason: self, driver }.to_string()
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, driver: DriverKind) -> fmt::Result {
        let sandbox = driver.sandbox();
        match self {
            Self::Completed => f.write_str("signed in; the credential is sealed and stored"),
            Self::Cancelled { by: Actor::Caller { key } } => {
                write!(f, "cancelled through the API, with the key {key}")
            }
            Self::Cancelled { by: Actor::EndUser { .. } } => {
                f.write_str("cancelled by the end user in the viewer")
            }
            Self::Cancelled { by: Actor::Operator {} } => {
                f.write_str("cancelled: the controller was stopped")
            }
            Self::TimedOut { .. }
            | Self::TooLong { .. }
            | Self::NobodyCame { .. }
            | Self::Idle { .. } => self.of_time(f),
            Self::ImageRefused { cause } => write!(f, "the golden image cannot be used: {cause}"),
            Self::SandboxNotStarted { cause } => {
                write!(f, "{sandbox} could not be started: {cause}")
            }
            Self::SandboxExited { .. } | Self::SandboxStopped { .. } | Self::AgentSilent { .. } => {
                self.of_sandbox(f, driver)
            }
            Self::GuestLinkFailed { cause } => {
                write!(f, "the link to {sandbox} failed: {cause}")
            }
            Self::GuestBrokeProtocol { cause } => {
                write!(f, "{sandbox} violated the protocol: {cause}")
            }
            Self::GuestStalled { what, allowed_seconds } => {
                write!(f, "{sandbox} responded, but did not {what} within {allowed_seconds} s")
            }
            Self::FileNotInjected { path, cause } => {
                write!(f, "the file {path} could not be copied into the sandbox: {cause}")
            }
            Self::ServiceFailed { explanation: Some(why), .. } => {
                write!(f, "the sandbox's {}", why.sentence)
            }
            Self::ServiceFailed { service, cause, last_lines, explanation: None } => {
                write!(f, "the sandbox's {service} failed: {cause}")?;
                last_line(f, "its last line", last_lines)
            }
            Self::CliExited { .. } => self.of_tool(f),
            Self::NoSignInUrl { waited_ms, last_lines, ignored } => {
                write!(
                    f,
                    "the command-line tool did not print a sign-in address within {} s",
                    waited_ms / 1000
                )?;
                if let Some(url) = ignored {
                    write!(f, " that matches url_pattern of its provider file; it opened {url}")?;
                }
                last_line(f, "its last line", last_lines)
            }
            Self::SignInRefused { says, .. } => f.write_str(says),
            Self::CredentialRefused { cause } => write!(f, "the credential was refused: {cause}"),
            Self::CredentialNotStored { cause } => {
                write!(
                    f,
                    "the sealed credential could not be stored: {cause}; nothing was saved, sign in again"
                )
            }
            Self::RunnerDied { exit } => {
                write!(f, "the session's runner process {exit}")
            }
            Self::RunnerSilent { silent_ms } => write!(
                f,
                "the session's runner process did not respond for {} s (stopped or stuck)",
                silent_ms / 1000
            ),
            Self::StateNotStored { cause } => {
                write!(f, "the session's state could not be stored: {cause}")
            }
            Self::ControllerStopped => {
                f.write_str("the controller stopped while the session was running; start again")
            }
        }
    }
}

impl EndReason {
    /// The sentence of a session that ran out of time.
    fn of_time(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut { during, ttl_seconds } => write!(
                f,
                "the session timed out after {ttl_seconds} s while {}; start again, with a longer ttlSeconds if needed",
                during.replace('_', " ")
            ),
            Self::TooLong { during, max_seconds } => write!(
                f,
                "the session reached its maximum duration of {max_seconds} s while {}; start again",
                during.replace('_', " ")
            ),
            Self::NobodyCame { waited_seconds } => write!(
                f,
                "nobody opened the link within {waited_seconds} s, so the tool was not started; start again"
            ),
            Self::Idle { idle_seconds } => {
                write!(f, "nobody used the session for {idle_seconds} s; start again to sign in")
            }
            _ => Ok(()),
        }
    }

    /// The sentence of a CLI's own end.
    fn of_tool(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CliExited { explanation: Some(why), left_credential: true, .. } => write!(
                f,
                "the command-line tool failed, so the credential that it wrote was discarded: {}",
                why.sentence
            ),
            Self::CliExited { explanation: Some(why), .. } => {
                write!(
                    f,
                    "the command-line tool ended before it wrote a credential: {}",
                    why.sentence
                )
            }
            Self::CliExited { exit, left_credential, last_lines, explanation: None } => {
                match left_credential {
                    true => write!(
                        f,
                        "the command-line tool {exit}, so the credential that it wrote was discarded"
                    )?,
                    false => {
                        write!(f, "the command-line tool {exit} before it wrote a credential")?
                    }
                }
                last_line(f, "its last line", last_lines)
            }
            _ => Ok(()),
        }
    }

    /// The sentence of an end of the sandbox as a whole.
    fn of_sandbox(&self, f: &mut fmt::Formatter<'_>, driver: DriverKind) -> fmt::Result {
        let sandbox = driver.sandbox();
        match self {
            Self::SandboxExited { explanation: Some(why), .. } => f.write_str(&why.sentence),
            // What the console said last has nothing to do with it.
            Self::SandboxExited {
                exit: exit @ ProcessExit::Signalled { signal: SIGKILL },
                shutdown: None,
                explanation: None,
                ..
            } => write!(
                f,
                "{sandbox} ended unexpectedly: its process {exit}; the signal came from a process on \
                 the host, or from the kernel because memory ran out (see `dmesg`)"
            ),
            Self::SandboxExited { exit, shutdown, console_tail, explanation: None } => {
                write!(f, "{sandbox} ended unexpectedly: its process {exit}")?;
                if let Some(cause) = shutdown {
                    f.write_str(&after(cause))?;
                }
                last_line(f, "the console's last line", console_tail)
            }
            Self::SandboxStopped { signal, stopped_seconds } => {
                let name = signal_name(*signal).unwrap_or("unnamed");
                write!(
                    f,
                    "the process of {sandbox} was stopped by signal {signal} ({name}) and not continued for {stopped_seconds} s; the signal came from a process on the host"
                )
            }
            Self::AgentSilent { waited_ms, run_state, console_tail } => {
                let agent = driver.agent();
                write!(f, "{agent} did not respond within {} s", waited_ms / 1000)?;
                if let Some(state) = run_state {
                    write!(f, "; {sandbox} itself was {state}")?;
                }
                last_line(f, "the console's last line", console_tail)
            }
            _ => Ok(()),
        }
    }
}

/// A reason with what its sentence names.
struct Sentence<'a> {
    reason: &'a EndReason,
    driver: DriverKind,
}

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.write(f, self.driver)
    }
}

/// Why a guest stopped, as the end of a sentence.
fn after(cause: &ShutdownCause) -> String {
    match cause {
        ShutdownCause::GuestReset => {
            " after the guest restarted itself, as a kernel does after a panic".into()
        }
        ShutdownCause::GuestShutdown => " after the guest shut itself down".into(),
        ShutdownCause::HostSignal => " after a signal from the host".into(),
        other @ (ShutdownCause::GuestPanic | ShutdownCause::Other(_)) => format!(" after {other}"),
    }
}

fn last_line(f: &mut fmt::Formatter<'_>, label: &str, lines: &[String]) -> fmt::Result {
    match lines.iter().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => write!(f, "; {label}: {}", line.trim()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use strum::VariantNames;

    use super::*;

    #[test]
    fn every_end_is_in_the_reference_and_no_other() {
        let reference = include_str!("../../../docs/reference/problems.md");
        let (_, ends) = reference.split_once("\n## Ends\n").unwrap();
        let code = |line: &'static str| line.strip_prefix("| `")?.split('`').next();
        let listed: Vec<_> = ends.lines().filter_map(code).collect();
        assert_eq!(listed, EndReason::VARIANTS);
        assert_eq!(serde_json::to_value(EndReason::Completed).unwrap()["code"], "completed");
        let wire = serde_json::to_value(EndReason::NobodyCame { waited_seconds: 1 }).unwrap();
        assert_eq!(wire["code"], EndReason::NobodyCame { waited_seconds: 1 }.code());
    }

    #[test]
    fn code_is_the_tag_of_the_json_form() {
        let reasons = [
            EndReason::Completed,
            EndReason::Cancelled {
                by: Actor::EndUser { generation: crate::HolderGeneration::FIRST },
            },
            EndReason::SandboxExited {
                exit: ProcessExit::Signalled { signal: 9 },
                shutdown: None,
                console_tail: vec![],
                explanation: None,
            },
            EndReason::ControllerStopped,
        ];
        for reason in reasons {
            let json = serde_json::to_value(&reason).unwrap();
            assert_eq!(json["code"], reason.code());
            assert_eq!(serde_json::from_value::<EndReason>(json).unwrap(), reason);
        }
    }

    #[test]
    fn a_sentence_names_signal_and_last_line() {
        let killed = |signal| EndReason::SandboxExited {
            exit: ProcessExit::Signalled { signal },
            shutdown: None,
            console_tail: vec!["[ 2.1] Kernel panic".into(), " ".into()],
            explanation: None,
        };
        let in_vm = |reason: EndReason| reason.sentence(DriverKind::Qemu);
        assert_eq!(
            in_vm(killed(11)),
            "the VM ended unexpectedly: its process was killed by signal 11 (SIGSEGV); \
             the console's last line: [ 2.1] Kernel panic"
        );
        let from_outside = in_vm(killed(SIGKILL));
        assert!(
            from_outside.contains("the signal came from a process on the host"),
            "{from_outside}"
        );
        assert!(!from_outside.contains("panic"), "{from_outside}");
        let reset = EndReason::SandboxExited {
            exit: ProcessExit::Exited { code: 0 },
            shutdown: Some(ShutdownCause::GuestReset),
            console_tail: vec![],
            explanation: None,
        };
        assert_eq!(
            in_vm(reset),
            "the VM ended unexpectedly: its process exited with code 0 after the guest restarted \
             itself, as a kernel does after a panic"
        );
    }

    #[test]
    fn a_sentence_calls_a_sandbox_what_its_driver_boots() {
        let cause = || "no".to_owned();
        for reason in [
            EndReason::SandboxNotStarted { cause: cause() },
            EndReason::SandboxStopped { signal: 19, stopped_seconds: 5 },
            EndReason::GuestLinkFailed { cause: cause() },
            EndReason::GuestBrokeProtocol { cause: cause() },
            EndReason::GuestStalled { what: cause(), allowed_seconds: 1 },
            EndReason::AgentSilent { waited_ms: 1, run_state: None, console_tail: Vec::new() },
        ] {
            let [vm, host] = [DriverKind::Qemu, DriverKind::Host].map(|kind| reason.sentence(kind));
            assert!(vm.contains("the VM") && !vm.contains("on this host"), "{vm}");
            assert!(host.contains("the agent on this host") && !host.contains("VM"), "{host}");
        }
    }
}
