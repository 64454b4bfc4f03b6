//! Deaths by a signal of which there is no core dump, or that needs none.

use anteroom_guest_protocol::{OutOfMemory, ProcessExit, Stall};
use anteroom_session::{Cause, signal_name};

use super::claim::{Claim, Diagnosis};
use super::{Death, fault, output, processor};

/// A signal with its number and name.
#[must_use]
pub fn name(signal: i32) -> String {
    match signal_name(signal) {
        Some(name) => format!("signal {signal} ({name})"),
        None => format!("signal {signal}"),
    }
}

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
    if dump.is_some_and(|dump| dump.code == fault::UNTOLD) {
        Claim::DumpUntold
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

/// Whether this signal ends a process that does nothing about it (signal(7)).
pub fn ends(signal: i32) -> bool {
    matches!(signal, 1..=16 | 24..=27 | 29..=31)
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
        claims.push(Claim::KeptMessage(output::quoted(&text)));
        return Diagnosis::new(said.map_or(Cause::Aborted, |said| said.cause), claims);
    }
    claims.push(output::shown(death));
    Diagnosis::new(Cause::Aborted, claims)
}

/// What programs do that are ended by a signal, where no core dump says more.
pub fn typical(signal: i32) -> Option<&'static str> {
    Some(match signal {
        6 => "stops itself (abort)",
        13 => "writes to a pipe or socket which nobody reads any more",
        14 => "lets its own alarm go off without a handler",
        24 => "reached its CPU time limit",
        25 => "writes a file beyond its size limit",
        _ => return None,
    })
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
        (true, None) => (Claim::GroupLimit, "raise the limit of the group that it ran in"),
        (false, _) => (Claim::NoMemoryLeft, "give the virtual machine more memory (--memory-mib)"),
    };
    let mut claims = vec![killed, whose];
    claims.extend(oom.peak.map(Claim::MemoryPeak));
    Diagnosis::new(Cause::OutOfMemory, claims)
        .advise(advice)
        .resting_on([format!("the kernel's log: {}", output::quoted(&oom.line))])
}

/// It was there and did not answer.
pub fn stall(stall: &Stall) -> Diagnosis {
    let seen = format!(
        "/proc: state {}, system call {}, waits in {}",
        stall.state,
        stall.system_call.map_or("unknown".to_owned(), |number| number.to_string()),
        stall.waits_in.as_deref().unwrap_or("nothing that the kernel reports")
    );
    let children =
        stall.children.iter().map(|line| format!("it had started and still ran: {line}"));
    let claims = [Claim::Unanswering(stall.clone()), Claim::Doing(stall.clone())];
    Diagnosis::new(Cause::Stall, claims).resting_on([seen]).resting_on(children)
}

/// What a stalled process was doing, from /proc.
pub fn doing(stall: &Stall) -> String {
    match (stall.state.as_str(), stall.system_call) {
        ("T" | "t", _) => "it was stopped by a signal".to_owned(),
        ("R", _) => "its main thread was computing".to_owned(),
        ("D", _) => "its main thread waited for a device".to_owned(),
        (_, Some(61 | 247)) if !stall.children.is_empty() => {
            format!("it waited for its child `{}`", stall.children[0])
        }
        (_, Some(number)) => match system_call(number) {
            Some(call) => format!("its main thread was in {call}"),
            None => format!("its main thread was in system call {number}"),
        },
        (state, None) => format!("its main thread was in state {state}"),
    }
}

/// What a thread that hangs most often waits in (x86-64's numbers, asm/unistd_64.h).
pub fn system_call(number: i64) -> Option<&'static str> {
    Some(match number {
        0 => "read",
        1 => "write",
        2 => "open",
        7 => "poll",
        23 => "select",
        34 => "pause",
        35 => "nanosleep",
        41 => "socket",
        42 => "connect",
        43 => "accept",
        45 => "recvfrom",
        47 => "recvmsg",
        56 => "clone",
        57 => "fork",
        59 => "execve",
        61 => "wait4",
        62 => "kill",
        101 => "ptrace",
        130 => "rt_sigsuspend",
        165 => "mount",
        202 => "futex wait",
        230 => "clock_nanosleep",
        232 => "epoll_wait",
        247 => "waitid",
        257 => "openat",
        270 => "pselect6",
        271 => "ppoll",
        272 => "unshare",
        281 => "epoll_pwait",
        321 => "bpf",
        _ => return None,
    })
}
