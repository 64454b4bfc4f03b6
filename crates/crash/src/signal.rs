//! Deaths by a signal of which there is no core dump, or that needs none.

use anteroom_guest_protocol::{Hung, OutOfMemory};
use anteroom_session::{Cause, Confidence, Explanation, signal_name};

use super::{Death, processor, seconds, told, words};

/// A signal with its number and name.
#[must_use]
pub fn name(signal: i32) -> String {
    match signal_name(signal) {
        Some(name) => format!("signal {signal} ({name})"),
        None => format!("signal {signal}"),
    }
}

/// A wait status with a signal and nothing else.
pub fn explain(death: &Death<'_>, signal: i32) -> Explanation {
    let (service, lived) = (death.service, seconds(death.lived_ms));
    let killed = |what: &str| {
        told(
            Cause::KilledBySignal,
            Confidence::Certain,
            format!("{service} was ended by {} after {lived}: {what}", name(signal)),
        )
    };
    let likely = |cause, as_what: &str| {
        told(
            cause,
            Confidence::Likely,
            format!("{service} was ended by {} after {lived}, {as_what}", name(signal)),
        )
    };
    match signal {
        6 => aborted(death, Confidence::Likely),
        9 => told(
            Cause::KilledBySignal,
            Confidence::Certain,
            format!("{service} was killed by {} after {lived}; {}", name(9), by_whom(death)),
        ),
        13 => likely(
            Cause::KilledBySignal,
            "as a program is that writes to a pipe or socket which nobody reads any more, unless a process sent it",
        ),
        14 => likely(
            Cause::KilledBySignal,
            "as a program is whose own alarm goes off without a handler, unless a process sent it",
        ),
        24 => likely(
            Cause::LimitReached,
            "as a program is that used up its limit of processor time, unless a process sent it",
        ),
        25 => likely(
            Cause::LimitReached,
            "as a program is that writes a file beyond its size limit, unless a process sent it",
        ),
        4 | 5 | 7 | 8 | 11 | 31 => told(
            Cause::Unknown,
            Confidence::Unknown,
            format!(
                "{service} was ended by {} after {lived}; there is no core dump that would tell at what",
                name(signal)
            ),
        ),
        1 | 2 | 3 | 10 | 12 | 15 => killed("some process sent it, and it had no handler for it"),
        _ => killed("nothing more is known"),
    }
}

fn by_whom(death: &Death<'_>) -> &'static str {
    if death.evidence.kernel_log_read {
        "a process sent it, or its own limit of processor time did; the kernel's log tells of no want of memory"
    } else {
        "a process sent it, or its own limit of processor time did, or the kernel for want of memory, whose log is not read here"
    }
}

/// The signal of `abort`: by the program itself where a core dump says so, else most likely. The
/// program may have said why.
pub fn aborted(death: &Death<'_>, confidence: Confidence) -> Explanation {
    let (service, lived) = (death.service, seconds(death.lived_ms));
    let did = match confidence {
        Confidence::Certain => format!("{service} stopped itself (abort) after {lived}"),
        _ => format!(
            "{service} was ended by {} after {lived}, as a program is that stops itself (abort), unless a process sent it",
            name(6)
        ),
    };
    if let Some(complaint) = processor::complaint(death.lines()) {
        return processor::explain(death, &did, &complaint);
    }
    if let Some(said) = words::said(death.lines()) {
        let explanation =
            told(said.cause, confidence, format!("{did}; its last words: {}", said.line));
        return match said.advice {
            Some(advice) => explanation.advise(&advice),
            None => explanation,
        };
    }
    let end = match words::last(death.lines()) {
        Some(line) => format!("; its last line: {line}"),
        None => death.silence().to_owned(),
    };
    told(Cause::Aborted, confidence, did + &end)
}

/// A limit of the program's own, of which its core dump tells that the kernel sent the signal.
pub fn limit(death: &Death<'_>, signal: i32) -> Explanation {
    let (service, lived) = (death.service, seconds(death.lived_ms));
    let what = if signal == 24 {
        "used up its limit of processor time"
    } else {
        "wrote a file beyond its size limit"
    };
    told(
        Cause::LimitReached,
        Confidence::Certain,
        format!("{service} {what} and was ended by {} after {lived}", name(signal)),
    )
}

/// The kernel's own word.
pub fn out_of_memory(death: &Death<'_>, oom: &OutOfMemory) -> Explanation {
    let service = death.service;
    let (mut sentence, confidence) = match (&oom.child, death.exit) {
        (None, _) => {
            (format!("{service} was killed by the kernel: out of memory"), Confidence::Certain)
        }
        (Some(child), exit) => {
            let ended = exit.map_or_else(|| "ended".to_owned(), super::how);
            let sentence = format!(
                "{service} {ended} just after the kernel killed {child}, a process of its group: out of memory"
            );
            (sentence, Confidence::Likely)
        }
    };
    match oom.limit {
        Some(limit) => sentence.push_str(&format!(", limit {}", mebibytes(limit))),
        None => sentence.push_str(", the whole virtual machine had no more"),
    }
    if let Some(peak) = oom.peak {
        sentence.push_str(&format!(", peak {}", mebibytes(peak)));
    }
    let advice = match oom.limit {
        Some(_) => "raise the service's memory limit in the recipe",
        None => "give the virtual machine more memory (--memory-mib)",
    };
    told(Cause::OutOfMemory, confidence, sentence)
        .advise(advice)
        .resting_on([format!("the kernel's log: {}", words::quoted(&oom.line))])
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes / (1024 * 1024))
}

/// It was there and did not answer.
pub fn hung(death: &Death<'_>, hung: &Hung) -> Explanation {
    let doing = match (hung.state.as_str(), hung.system_call) {
        ("T" | "t", _) => "it was stopped by a signal".to_owned(),
        ("R", _) => "its main thread was computing".to_owned(),
        ("D", _) => "its main thread waited for a device".to_owned(),
        (_, Some(61 | 247)) if !hung.children.is_empty() => {
            format!("it waited for its child `{}`", hung.children[0])
        }
        (_, Some(number)) => match system_call(number) {
            Some(call) => format!("its main thread was in {call}"),
            None => format!("its main thread was in system call {number}"),
        },
        (state, None) => format!("its main thread was in state {state}"),
    };
    let (service, asked, seconds) = (death.service, &hung.asked, hung.silent_ms / 1000);
    let sentence = if asked.is_empty() {
        format!("{service} did not end within {seconds} s; {doing}")
    } else if hung.was_ready {
        format!("{service} stopped answering for {seconds} s (watchdog: {asked}); {doing}")
    } else {
        format!("{service} did not become ready within {seconds} s ({asked}); {doing}")
    };
    let seen = format!(
        "/proc: state {}, system call {}, waits in {}",
        hung.state,
        hung.system_call.map_or("unknown".to_owned(), |number| number.to_string()),
        hung.waits_in.as_deref().unwrap_or("nothing that the kernel tells")
    );
    let children = hung.children.iter().map(|line| format!("it had started and still ran: {line}"));
    let seen: Vec<String> = std::iter::once(seen).chain(children).collect();
    told(Cause::Hung, Confidence::Certain, sentence).resting_on(seen)
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
