//! The sentence of each end.

use crate::{
    Actor, DriverKind, EndReason, Explanation, ProcessExit, RunState, ShutdownCause, named_signal,
    service_title,
};

/// What no process can catch (signal(7)).
const SIGKILL: i32 = 9;

impl EndReason {
    /// The sentence that the end user and the caller read, of a session whose sandbox this driver boots.
    ///
    /// One match, without a last arm for the rest: an end that is added gets its sentence here, or does
    /// not compile.
    #[must_use]
    pub fn sentence(&self, driver: DriverKind) -> String {
        let sandbox = driver.sandbox();
        match self {
            Self::Completed => "signed in; the credential is sealed and stored".to_owned(),
            Self::Cancelled { by } => cancelled(by),
            Self::TimedOut { during, ttl_seconds } => format!(
                "the session timed out after {ttl_seconds} s while {}; start again, with a longer ttlSeconds if needed",
                during.label()
            ),
            Self::TooLong { during, max_seconds } => format!(
                "the session reached its maximum duration of {max_seconds} s while {}; start again",
                during.label()
            ),
            Self::NobodyCame { waited_seconds } => format!(
                "nobody opened the link within {waited_seconds} s, so the tool was not started; start again"
            ),
            Self::Idle { idle_seconds } => {
                format!("nobody used the session for {idle_seconds} s; start again to sign in")
            }
            Self::NoCapacity { cause } => {
                format!("the session waited for capacity that cannot become free any more: {cause}")
            }
            Self::ImageRefused { cause } => format!("the golden image cannot be used: {cause}"),
            Self::SessionSetupFailed { step, cause } => {
                format!("the session could not be set up: {} failed: {cause}", step.label())
            }
            Self::SandboxNotStarted { cause } => {
                format!("{sandbox} could not be started: {cause}")
            }
            Self::SandboxExited { exit, shutdown, console_tail, explanation } => {
                let why = explanation.as_deref();
                sandbox_exited(sandbox, *exit, shutdown.as_ref(), console_tail, why)
            }
            Self::SandboxStopped { signal, stopped_seconds } => {
                sandbox_stopped(sandbox, *signal, *stopped_seconds)
            }
            Self::AgentSilent { waited_ms, run_state, console_tail } => {
                agent_silent(driver, *waited_ms, run_state.as_ref(), console_tail)
            }
            Self::GuestLinkFailed { cause } => format!("the link to {sandbox} failed: {cause}"),
            Self::GuestBrokeProtocol { cause } => {
                format!("{sandbox} violated the protocol: {cause}")
            }
            Self::GuestStalled { what, allowed_seconds } => {
                format!("{sandbox} responded, but did not {what} within {allowed_seconds} s")
            }
            Self::FileNotInjected { path, cause } => {
                format!("the file {path} could not be copied into the sandbox: {cause}")
            }
            Self::ServiceFailed { service, cause, last_lines, explanation } => {
                service_failed(service, cause, last_lines, explanation.as_deref())
            }
            Self::CliExited { exit, left_credential, last_lines, explanation } => {
                cli_exited(*exit, *left_credential, last_lines, explanation.as_deref())
            }
            Self::NoSignInUrl { waited_ms, last_lines, ignored } => {
                no_sign_in_url(*waited_ms, last_lines, ignored.as_deref())
            }
            Self::SignInRefused { says, .. } => says.clone(),
            Self::CredentialRefused { cause } => format!("the credential was refused: {cause}"),
            Self::CredentialNotStored { cause } => format!(
                "the sealed credential could not be stored: {cause}; nothing was saved, sign in again"
            ),
            Self::RunnerDied { exit } => format!("the session's runner process {exit}"),
            Self::RunnerFailed { cause } => format!("the session's runner process failed: {cause}"),
            Self::RunnerSilent { silent_ms } => format!(
                "the session's runner process did not respond for {} s; it may be stopped or stuck",
                silent_ms / 1000
            ),
            Self::NodeLost => {
                "the node that ran the session stopped reporting, and did not report how the session's runner ended; start again"
                    .to_owned()
            }
            Self::StateNotStored { cause } => {
                format!("the session's state could not be stored: {cause}")
            }
            Self::ControllerStopped => {
                "the controller stopped while the session was running; start again".to_owned()
            }
        }
    }
}

fn cancelled(by: &Actor) -> String {
    match by {
        Actor::Caller { key } => format!("cancelled through the API, with the key {key}"),
        Actor::EndUser { .. } => "cancelled by the end user in the viewer".to_owned(),
        Actor::Operator {} => "cancelled: the controller was stopped".to_owned(),
    }
}

fn sandbox_exited(
    sandbox: &str,
    exit: ProcessExit,
    shutdown: Option<&ShutdownCause>,
    console_tail: &[String],
    explanation: Option<&Explanation>,
) -> String {
    let ended = format!("{sandbox} ended unexpectedly: its process {exit}");
    match (explanation, exit, shutdown) {
        (Some(why), ..) => why.sentence.clone(),
        // What the console said last has nothing to do with it.
        (None, ProcessExit::Signalled { signal: SIGKILL }, None) => format!(
            "{ended}; the signal came from a process on the host, or from the kernel because memory ran \
             out (see `dmesg`)"
        ),
        (None, _, shutdown) => {
            // What is known of a cause has been explained.
            let gave = shutdown.map(|cause| format!("; its VMM reported the cause {cause}"));
            let last = last_line_of_console(console_tail);
            format!("{ended}{}{last}", gave.unwrap_or_default())
        }
    }
}

fn sandbox_stopped(sandbox: &str, signal: i32, stopped_seconds: u64) -> String {
    format!(
        "the process of {sandbox} was stopped by {} and was still stopped {stopped_seconds} s later; find out what sent the signal on the host, then start again",
        named_signal(signal)
    )
}

fn agent_silent(
    driver: DriverKind,
    waited_ms: u64,
    run_state: Option<&RunState>,
    console_tail: &[String],
) -> String {
    let was = run_state.map(|state| format!("; {} itself was {state}", driver.sandbox()));
    format!(
        "{} did not respond within {} s{}{}",
        driver.agent(),
        waited_ms / 1000,
        was.unwrap_or_default(),
        last_line_of_console(console_tail)
    )
}

fn service_failed(
    service: &str,
    cause: &str,
    last_lines: &[String],
    explanation: Option<&Explanation>,
) -> String {
    match explanation {
        Some(why) => why.sentence.clone(),
        None => {
            let last = last_line("its last line", last_lines);
            format!("{} failed: {cause}{last}", service_title(service))
        }
    }
}

fn cli_exited(
    exit: ProcessExit,
    left_credential: bool,
    last_lines: &[String],
    explanation: Option<&Explanation>,
) -> String {
    let last = last_line("its last line", last_lines);
    match (explanation, left_credential) {
        (Some(why), true) => {
            format!("the credential was discarded because the tool failed: {}", why.sentence)
        }
        (Some(why), false) => format!("no credential was written: {}", why.sentence),
        (None, true) => {
            format!("the tool {exit}, so the credential that it wrote was discarded{last}")
        }
        (None, false) => format!("the tool {exit} before it wrote a credential{last}"),
    }
}

fn no_sign_in_url(waited_ms: u64, last_lines: &[String], ignored: Option<&str>) -> String {
    let other = ignored.map(|url| {
        format!("; it opened {url}, which does not match `url_pattern` in its provider file")
    });
    format!(
        "the tool did not show a sign-in page within {} s{}{}",
        waited_ms / 1000,
        other.unwrap_or_default(),
        last_line("its last line", last_lines)
    )
}

/// What the kernel of a VM without a PCI bus prints at every boot, as an error: no cause of an end.
const OF_EVERY_BOOT: &str = "PCI: Fatal: No config space access function found";

fn last_line_of_console(lines: &[String]) -> String {
    let of_this_end = lines.iter().filter(|line| !line.trim_end().ends_with(OF_EVERY_BOOT));
    last_of("the console's last line", of_this_end)
}

/// The last line that is not empty, as the end of a sentence; nothing where there is none.
fn last_line(label: &str, lines: &[String]) -> String {
    last_of(label, lines.iter())
}

fn last_of<'a>(label: &str, lines: impl DoubleEndedIterator<Item = &'a String>) -> String {
    let last = lines.rev().find(|line| !line.trim().is_empty());
    last.map(|line| format!("; {label}: {}", line.trim())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;
    use crate::SetupStep;

    #[test]
    fn what_every_boot_prints_is_no_cause() {
        let sentence = |console: &[&str]| {
            let console_tail = console.iter().map(|&line| line.to_owned()).collect();
            EndReason::AgentSilent { waited_ms: 120_000, run_state: None, console_tail }
                .sentence(DriverKind::Qemu)
        };
        let of_boot = format!("[    0.952382] {OF_EVERY_BOOT}\r");
        assert_eq!(
            sentence(&["Out of memory", &of_boot]),
            "the agent in the VM did not respond within 120 s; the console's last line: Out of memory"
        );
        assert_eq!(sentence(&[&of_boot]), "the agent in the VM did not respond within 120 s");
    }

    #[test]
    fn a_set_up_that_failed_names_its_step_and_not_the_sandbox() {
        for step in SetupStep::iter() {
            let reason = EndReason::SessionSetupFailed { step, cause: "disk full".to_owned() };
            let sentence = reason.sentence(DriverKind::Qemu);
            assert_eq!(reason.code(), "session_setup_failed");
            assert!(sentence.contains(step.label()), "{sentence}");
            assert!(sentence.ends_with(" failed: disk full"), "{sentence}");
            assert!(!sentence.contains("VM"), "{sentence}");
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
            "the VM ended unexpectedly: its process exited with code 0; its VMM reported \
             the cause guest-reset"
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
