//! The end of a VM's Firecracker, from its exit status, its log, and what it counted.

use anteroom_session::{Cause, Confidence, Explanation, ProcessExit, VmmFailure, VmmFailures};

use super::lines;

/// Exit codes (`FcExitCode` in src/vmm/src/lib.rs) for signals that it intercepts.
const INTERCEPTED: [(i32, &str); 7] = [
    (149, "SIGBUS"),
    (150, "SIGSEGV"),
    (151, "SIGXFSZ"),
    (154, "SIGXCPU"),
    (155, "SIGPIPE"),
    (156, "SIGHUP"),
    (157, "SIGILL"),
];

/// That for a system call which its filter refuses.
const REFUSED_CALL: i32 = 148;

/// Begins its last error (src/firecracker/src/main.rs), which only repeats the exit code.
const EXITING: &str = "Firecracker exiting with error";

/// Begins that of a panic.
const PANICKED: &str = "Firecracker panicked at ";

/// Says why Firecracker ended, by its exit status, the last lines of its log and what it counted of its
/// failures, where one of these says so.
#[must_use]
pub fn explain_firecracker(
    exit: ProcessExit,
    log: &[String],
    failures: &[VmmFailures],
) -> Option<Explanation> {
    let errors: Vec<_> = log.iter().filter_map(|line| line.strip_prefix("ERROR ")).collect();
    // Whatever ends it then: as the first process of its namespace it does not end by SIGABRT.
    let said = panicked(&errors, failures).or_else(|| match exit {
        ProcessExit::Exited { code } => exited(code, &errors, failures),
        ProcessExit::Signalled { .. } | ProcessExit::Unknown => None,
    })?;
    let errors = errors.iter().map(|line| format!("Firecracker's log: {}", lines::quoted(line)));
    let counters = failures.iter().map(|failure| format!("Firecracker's counter {failure}"));
    let exit = match exit {
        ProcessExit::Exited { code } => format!("Firecracker's exit code: {code}"),
        exit => format!("Firecracker {exit}"),
    };
    Some(said.resting_on([exit]).resting_on(errors).resting_on(counters))
}

fn exited(code: i32, errors: &[&str], failures: &[VmmFailures]) -> Option<Explanation> {
    let certain = |cause, sentence| Some(Explanation::new(cause, Confidence::Certain, sentence));
    if code == REFUSED_CALL {
        let sentence = "Firecracker made a system call that its own filter forbids, and ended";
        return certain(Cause::ForbiddenSystemCall, sentence.to_owned());
    }
    if let Some((_, signal)) = INTERCEPTED.iter().find(|(of, _)| *of == code) {
        let sentence = format!("Firecracker ended because it received {signal}");
        return certain(Cause::KilledBySignal, sentence);
    }
    if code == 0 {
        return None;
    }
    if let Some(error) = errors.iter().rev().find(|line| !line.starts_with(EXITING)) {
        let sentence = format!("Firecracker ended because of an error: {}", lines::quoted(error));
        return certain(Cause::EndedBySelf, sentence);
    }
    let failure = counted(failures, VmmFailure::Processor)?;
    let sentence =
        format!("Firecracker ended after it had failed to run the guest's processors ({failure})");
    Some(Explanation::new(Cause::EndedBySelf, Confidence::Likely, sentence))
}

fn panicked(errors: &[&str], failures: &[VmmFailures]) -> Option<Explanation> {
    let line = errors.iter().rev().find(|line| line.starts_with(PANICKED));
    let sentence = match (line, counted(failures, VmmFailure::Panic)) {
        (Some(line), _) => format!("{} and ended", lines::quoted(line).trim_end_matches(':')),
        (None, Some(failure)) => format!("Firecracker panicked and ended ({failure})"),
        (None, None) => return None,
    };
    Some(Explanation::new(Cause::FailedCheck, Confidence::Certain, sentence))
}

fn counted(failures: &[VmmFailures], kind: VmmFailure) -> Option<&VmmFailures> {
    failures.iter().find(|failure| failure.kind == kind)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    use super::*;

    const COUNTERS: [(VmmFailure, &str); 4] = [
        (VmmFailure::Processor, "vcpu.failures"),
        (VmmFailure::SystemCall, "seccomp.num_faults"),
        (VmmFailure::Panic, "vmm.panic_count"),
        (VmmFailure::Device, "block.execute_fails"),
    ];

    fn once((kind, counter): (VmmFailure, &'static str)) -> VmmFailures {
        VmmFailures { kind, counter, count: 1 }
    }

    fn explained(exit: ProcessExit, log: &[&str], failures: &[VmmFailures]) -> Option<Explanation> {
        let log: Vec<String> = log.iter().map(|line| (*line).to_owned()).collect();
        explain_firecracker(exit, &log, failures)
    }

    #[test]
    fn its_end_is_read_from_its_exit_code_and_its_errors() {
        let log = [
            "Vmm is stopping.",
            "ERROR Failure during vcpu run: KVM internal error",
            "ERROR Firecracker exiting with error. exit_code=1",
        ];
        let of = |code| {
            let why = explained(ProcessExit::Exited { code }, &log, &[])?;
            Some((why.cause, why.sentence))
        };
        let error =
            "Firecracker ended because of an error: Failure during vcpu run: KVM internal error";
        assert_eq!(of(1), Some((Cause::EndedBySelf, error.to_owned())));
        assert_eq!(of(148).unwrap().0, Cause::ForbiddenSystemCall);
        let disconnected = "Firecracker ended because it received SIGHUP";
        assert_eq!(of(156), Some((Cause::KilledBySignal, disconnected.to_owned())));
        assert_eq!(of(0), None);
        assert_eq!(explained(ProcessExit::Exited { code: 1 }, &[], &[]), None);
        assert_eq!(explained(ProcessExit::Signalled { signal: 9 }, &log, &[]), None);
    }

    #[test]
    fn counters_are_evidence_and_carry_a_sentence_where_nothing_else_does() {
        let [processor, call, panic, device] = COUNTERS.map(once);
        let code = |code| ProcessExit::Exited { code };
        let why = explained(code(148), &[], &[call, device.clone()]).unwrap();
        let evidence = [
            "Firecracker's exit code: 148",
            "Firecracker's counter seccomp.num_faults: 1",
            "Firecracker's counter block.execute_fails: 1",
        ];
        assert_eq!(why.evidence, evidence);
        let why = explained(code(1), &[], std::slice::from_ref(&processor)).unwrap();
        assert_eq!(
            (why.sentence.as_str(), why.confidence),
            (
                "Firecracker ended after it had failed to run the guest's processors (vcpu.failures: 1)",
                Confidence::Likely
            )
        );
        let why = explained(code(1), &["ERROR no memory"], &[processor]).unwrap();
        assert_eq!(why.sentence, "Firecracker ended because of an error: no memory");
        assert_eq!(explained(code(1), &[], std::slice::from_ref(&device)), None);

        let aborted = ProcessExit::Signalled { signal: 11 };
        let why = explained(aborted, &[], std::slice::from_ref(&panic)).unwrap();
        assert_eq!(why.sentence, "Firecracker panicked and ended (vmm.panic_count: 1)");
        assert_eq!(why.cause, Cause::FailedCheck);
        assert_eq!(why.evidence[0], "Firecracker was killed by signal 11 (SIGSEGV)");
        let log =
            ["ERROR Firecracker panicked at src/vmm/src/lib.rs:7:9:", "one-shot channel closed"];
        let why = explained(aborted, &log, &[panic]).unwrap();
        assert_eq!(why.sentence, "Firecracker panicked at src/vmm/src/lib.rs:7:9 and ended");
        assert_eq!(explained(aborted, &[], &[device]), None);
    }

    proptest! {
        #[test]
        fn no_sentence_says_what_nothing_reported(
            code in select(vec![0, 1, 148, 149, 156]),
            is_aborted in any::<bool>(),
            log in subsequence(vec![
                "Vmm is stopping.",
                "ERROR Firecracker panicked at src/vmm/src/lib.rs:7:9:",
                "ERROR no memory",
                "ERROR Firecracker exiting with error. exit_code=1",
            ], 0..=4),
            counters in subsequence(COUNTERS.to_vec(), 0..=4),
        ) {
            let exit = match is_aborted {
                true => ProcessExit::Signalled { signal: 6 },
                false => ProcessExit::Exited { code },
            };
            let failures: Vec<_> = counters.iter().copied().map(once).collect();
            let Some(why) = explained(exit, &log, &failures) else { return Ok(()) };
            let reported = |kind| failures.iter().any(|failure| failure.kind == kind);
            let logged = |part: &str| log.iter().any(|line| line.contains(part));
            let carried = [
                ("processors", reported(VmmFailure::Processor)),
                ("panicked", reported(VmmFailure::Panic) || logged("panicked")),
                ("filter", !is_aborted && code == 148),
                ("received SIGBUS", !is_aborted && code == 149),
                ("no memory", logged("no memory")),
            ];
            for (phrase, seen) in carried {
                prop_assert!(!why.sentence.contains(phrase) || seen, "{}", why.sentence);
            }
            prop_assert_eq!(
                why.evidence.iter().filter(|line| line.contains("counter")).count(),
                failures.len()
            );
        }
    }
}
