//! The end of a whole VM, from its process and its console.

use anteroom_session::{Cause, Confidence, Explanation, ProcessExit, ShutdownCause};

use super::lines;

/// How Linux begins the line of its panic (kernel/panic.c).
const PANIC: &str = "Kernel panic - not syncing: ";

/// What Linux says when PID 1 ended; the wait status follows.
const INIT_KILLED: &str = "Attempted to kill init! exitcode=0x";

/// Lines of the console that show what the kernel was at.
const SIGNS: [&str; 6] = ["RIP: ", "Call Trace", "BUG: ", "Oops", "Out of memory", "CPU: "];

/// Says why a VM's process ended: `shutdown` is what its VMM reported, `console` the last lines of the
/// serial console.
#[must_use]
pub fn explain_machine(
    shutdown: Option<&ShutdownCause>,
    console: &[String],
) -> Option<Explanation> {
    if let Some(line) = console.iter().rev().find(|line| line.contains(PANIC)) {
        return Some(panicked(line, console));
    }
    match shutdown {
        Some(ShutdownCause::GuestReset) => Some(diagnosis(
            Cause::GuestEndedItself,
            Confidence::Certain,
            match console {
                [] => "the guest restarted itself; its console was not captured".to_owned(),
                _ => "the guest restarted itself; its console shows no kernel panic".to_owned(),
            },
        )),
        Some(ShutdownCause::GuestShutdown) => Some(diagnosis(
            Cause::GuestEndedItself,
            Confidence::Certain,
            "the guest shut itself down".to_owned(),
        )),
        Some(ShutdownCause::GuestPanic) => Some(diagnosis(
            Cause::KernelPanic,
            Confidence::Certain,
            "the guest's kernel panicked; its console does not say why".to_owned(),
        )),
        Some(ShutdownCause::HostSignal) => Some(diagnosis(
            Cause::KilledBySignal,
            Confidence::Certain,
            "a process on the host asked the VM's process to end (SIGTERM, SIGINT or SIGHUP)"
                .to_owned(),
        )),
        _ => None,
    }
}

/// Says that the kernel killed a VM's process because its cgroup, which nothing else is in,
/// reached its memory limit: `limit_mib` is the limit, `killed` the kernel's count.
#[must_use]
pub fn explain_machine_out_of_memory(limit_mib: u64, killed: u64) -> Explanation {
    diagnosis(
        Cause::OutOfMemory,
        Confidence::Certain,
        format!(
            "the host's kernel killed the VM's process because its cgroup reached its limit of \
             {limit_mib} MiB of memory"
        ),
    )
    .resting_on([format!("processes that the cgroup's memory limit killed: {killed}")])
}

fn diagnosis(cause: Cause, confidence: Confidence, sentence: String) -> Explanation {
    Explanation::new(cause, confidence, sentence)
}

fn panicked(line: &str, console: &[String]) -> Explanation {
    let what = line.split_once(PANIC).map_or(line, |(_, what)| what);
    let what = lines::quoted(what.trim_end_matches(" ]---"));
    let sentence = match what.split_once(INIT_KILLED) {
        Some((_, status)) => {
            format!("the guest's kernel panicked because its agent (PID 1) {}", ended(status))
        }
        None => format!("the guest's kernel panicked: {what}"),
    };
    let lines = console.iter().filter(|line| SIGNS.iter().any(|sign| line.contains(sign)));
    diagnosis(Cause::KernelPanic, Confidence::Certain, sentence)
        .advise("the session's console log has the kernel's full report")
        .resting_on([format!("console: {}", lines::quoted(line))])
        .resting_on(lines.map(|line| format!("console: {}", lines::quoted(line))))
}

/// A wait status in the kernel's form: the signal in the low seven bits, the exit code above.
fn ended(status: &str) -> String {
    let digits: String = status.chars().take_while(char::is_ascii_hexdigit).collect();
    match i32::from_str_radix(&digits, 16) {
        Ok(status) if status & 0x7f != 0 => {
            ProcessExit::Signalled { signal: status & 0x7f }.to_string()
        }
        Ok(status) => ProcessExit::Exited { code: (status >> 8) & 0xff }.to_string(),
        Err(_) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(console: &[&str]) -> Explanation {
        let lines: Vec<String> = console.iter().map(|line| (*line).to_owned()).collect();
        explain_machine(Some(&ShutdownCause::GuestReset), &lines).unwrap()
    }

    #[test]
    fn a_panic_is_quoted_and_the_agent_s_end_is_read_from_it() {
        let why = of(&[
            "[ 9.1] Kernel panic - not syncing: sysrq triggered crash",
            "[ 9.2] CPU: 0 PID: 1",
        ]);
        assert_eq!(why.sentence, "the guest's kernel panicked: sysrq triggered crash");
        assert_eq!(why.evidence.len(), 2);
        let why =
            of(&["[ 1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b"]);
        assert!(
            why.sentence.ends_with("its agent (PID 1) was killed by signal 11 (SIGSEGV)"),
            "{}",
            why.sentence
        );
        let why =
            of(&["[ 1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100"]);
        assert!(why.sentence.ends_with("(PID 1) exited with code 1"), "{}", why.sentence);
        assert_eq!(of(&["login:"]).cause, Cause::GuestEndedItself);
        assert!(of(&[]).sentence.ends_with("its console was not captured"));
        assert_eq!(explain_machine(None, &[]), None);
    }

    use proptest::collection::vec;
    use proptest::option::of as perhaps;
    use proptest::prelude::*;
    use proptest::sample::select;

    proptest! {
        #[test]
        fn no_sentence_says_what_neither_console_nor_vmm_said(
            console in vec(select(vec![
                "login:",
                "Kernel panic - not syncing: sysrq triggered crash",
                "Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b",
                "Oops: 0000",
            ]), 0..4),
            shutdown in perhaps(select(vec![
                ShutdownCause::GuestReset,
                ShutdownCause::GuestShutdown,
                ShutdownCause::GuestPanic,
                ShutdownCause::HostSignal,
                ShutdownCause::Other("host-qmp-quit".to_owned()),
            ])),
        ) {
            let lines: Vec<String> = console.iter().map(|line| (*line).to_owned()).collect();
            let panic = console.iter().rev().find_map(|line| line.strip_prefix(PANIC));
            let shutdown = shutdown.as_ref();
            let said = explain_machine(shutdown, &lines);
            let Some(said) = said else {
                prop_assert!(panic.is_none());
                return Ok(());
            };
            let says = |phrase: &str| said.sentence.contains(phrase);
            let carried = [
                ("shows no kernel panic", panic.is_none() && !console.is_empty()),
                ("console was not captured", console.is_empty()),
                ("restarted itself", shutdown == Some(&ShutdownCause::GuestReset)),
                ("shut itself down", shutdown == Some(&ShutdownCause::GuestShutdown)),
                ("panicked", panic.is_some() || shutdown == Some(&ShutdownCause::GuestPanic)),
                ("sysrq", panic.is_some_and(|what| what.contains("sysrq"))),
                ("SIGSEGV", panic.is_some_and(|what| what.contains("init!"))),
                ("a process on the host", shutdown == Some(&ShutdownCause::HostSignal)),
            ];
            for (phrase, seen) in carried {
                prop_assert!(!says(phrase) || seen, "{}", said.sentence);
            }
        }
    }
}
