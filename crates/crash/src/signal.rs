//! Deaths by a signal of which there is no core dump, or that needs none.

use anteroom_guest_protocol::{OutOfMemory, ProcessExit, Stall};
use anteroom_session::Cause;

use super::claim::{Claim, Diagnosis};
use super::numbers::NO_SI_CODE;
use super::{Death, lines, output, processor};

/// A wait status with a signal and nothing else.
pub fn explain(death: &Death<'_>, signal: i32) -> Diagnosis {
    let ended = vec![Claim::EndedBy(signal), Claim::After(death.lived_ms)];
    let more = |claim| [ended.clone(), vec![claim]].concat();
    let killed = Cause::KilledBySignal;
    if signal == 4
        && let Some(complaint) = processor::complaint(death)
    {
        return processor::explain(death, ended, complaint);
    }
    match signal {
        6 => with_message(death, more(Claim::Typical(6))),
        9 => Diagnosis::new(
            killed,
            more(Claim::Killers { log_read: death.evidence.kernel_log_read }),
        ),
        13 | 14 => Diagnosis::new(killed, more(Claim::Typical(signal))),
        24 | 25 => Diagnosis::new(Cause::LimitReached, more(Claim::Typical(signal))),
        4 | 5 => trapped(death, more(undumped(death, signal))),
        7 | 8 | 11 | 31 => {
            let mut claims = more(undumped(death, signal));
            claims.extend(output::printed(death));
            Diagnosis::new(Cause::Unknown, claims)
        }
        1 | 2 | 3 | 10 | 12 | 15 => Diagnosis::new(killed, more(Claim::SomebodySent(signal))),
        _ => Diagnosis::new(killed, ended),
    }
}

/// Why nothing says at what the processor or the kernel stopped it.
fn undumped(death: &Death<'_>, signal: i32) -> Claim {
    // A core of another signal is of another death.
    let dump = death.evidence.fault.as_ref().filter(|fault| fault.signal == signal);
    if dump.is_some_and(|dump| dump.code == NO_SI_CODE) {
        Claim::DumpWithoutCause
    } else {
        Claim::NoDump
    }
}

/// V8, GLib, Swift and Chromium stop themselves by a trap, after they have said why.
fn trapped(death: &Death<'_>, mut claims: Vec<Claim>) -> Diagnosis {
    match output::said(death.lines()) {
        Some(said) => {
            // Its words say more than that there is no dump.
            claims.pop();
            claims.push(Claim::LastMessage(said.line));
            Diagnosis::new(said.cause, claims).advise_if(said.advice)
        }
        None => {
            claims.extend(output::printed(death));
            Diagnosis::new(Cause::Unknown, claims)
        }
    }
}

/// `abort` of the program itself, as its core dump says.
pub fn aborted(death: &Death<'_>) -> Diagnosis {
    with_message(death, vec![Claim::AbortedItself, Claim::After(death.lived_ms)])
}

/// The program, or its C library, may have said why it aborts.
fn with_message(death: &Death<'_>, mut claims: Vec<Claim>) -> Diagnosis {
    if let Some(complaint) = processor::complaint(death) {
        return processor::explain(death, claims, complaint);
    }
    // A core of another signal is of another death.
    let fault = death.evidence.fault.as_ref().filter(|fault| fault.signal == 6);
    let kept = fault.and_then(|fault| fault.last_message.clone());
    let kept = kept.filter(|text| !text.trim().is_empty());
    if let Some((signal, line)) = output::own_crash_report(death.lines())
        && fault.is_none()
    {
        let exit = ProcessExit::Signalled { signal: 6 };
        let lived = death.lived_ms;
        let caught = Claim::CaughtFault { signal: Some(signal), lived, exit, line };
        return Diagnosis::new(Cause::Aborted, [caught]);
    }
    if let Some(said) = output::said(death.lines()) {
        claims.push(Claim::LastMessage(said.line));
        return Diagnosis::new(said.cause, claims).advise_if(said.advice);
    }
    if let Some(text) = kept {
        let said = output::said(std::slice::from_ref(&text));
        claims.push(Claim::KeptMessage(lines::quoted(&text)));
        return Diagnosis::new(said.map_or(Cause::Aborted, |said| said.cause), claims);
    }
    claims.push(output::shown(death));
    Diagnosis::new(Cause::Aborted, claims)
}

/// A limit of the program's own, where the core dump says that the kernel sent the signal.
pub fn limit(death: &Death<'_>, signal: i32) -> Diagnosis {
    Diagnosis::new(Cause::LimitReached, [Claim::LimitReached(signal), Claim::After(death.lived_ms)])
}

/// Whether the kernel says that a control group had no more (mm/oom_kill.c).
pub fn of_group(line: &str) -> bool {
    line.contains("cgroup out of memory")
}

/// The kernel's own word.
pub fn out_of_memory(death: &Death<'_>, oom: &OutOfMemory) -> Diagnosis {
    let killed = match &oom.child {
        None => Claim::KilledForMemory,
        Some(child) => Claim::ChildKilledForMemory { child: child.clone(), exit: death.exit },
    };
    // Whose memory was used up stands in the kernel's line: a service that has a limit may be killed
    // because the machine has no more.
    let (whose, advice) = match (of_group(&oom.line), oom.limit) {
        (true, Some(limit)) => {
            (Claim::MemoryLimit(limit), "raise the service's memory limit in the recipe")
        }
        (true, None) => (Claim::GroupLimit, "raise the memory limit of that control group"),
        (false, _) => (Claim::NoMemoryLeft, "give the VM more memory (--memory-mib)"),
    };
    let mut claims = vec![killed, whose];
    claims.extend(oom.peak.map(Claim::MemoryPeak));
    Diagnosis::new(Cause::OutOfMemory, claims)
        .advise(advice)
        .resting_on([format!("the kernel's log: {}", lines::quoted(&oom.line))])
}

/// It was there and did not answer.
pub fn stall(stall: &Stall) -> Diagnosis {
    let seen = format!(
        "/proc: state {}, system call {}, waits in {}",
        stall.state,
        stall.system_call.map_or("unknown".to_owned(), |number| number.to_string()),
        stall.waits_in.as_deref().unwrap_or("nothing that the kernel reports")
    );
    let children = stall
        .children
        .iter()
        .map(|line| format!("a process that it had started and that still ran: {line}"));
    let claims = [Claim::Unanswering(stall.clone()), Claim::Doing(stall.clone())];
    Diagnosis::new(Cause::Stall, claims).resting_on([seen]).resting_on(children)
}
