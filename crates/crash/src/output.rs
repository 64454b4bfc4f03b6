//! Which lines of a program's output say why it ended.

use std::borrow::Cow;

use anteroom_guest_protocol::ProcessExit;
use anteroom_session::Cause;

use super::claim::Claim;
use super::lines::{MESSAGE, is_exception, is_frame, is_meaningful, last_meaningful, quoted};
use super::patterns::{Said, known};
use super::{Death, chain, error_lines, reports};

/// The line in which the program says why, if it says it in a known way and says nothing else after
/// it: what it printed before that it has survived.
pub fn said(lines: &[String]) -> Option<Said> {
    if let Some(said) = reports::reason(lines) {
        return Some(said);
    }
    let end = last_meaningful(lines)?;
    chain::reason(lines)
        .or_else(|| known(&lines[end]))
        .or_else(|| panicked(lines))
        .or_else(|| thrown(lines, end))
        .or_else(|| traceback(lines, end))
}

/// Rust prints the place in one line and the message in the next ones, up to the note about a backtrace.
/// Where it does not, as when its backtraces are off, the words are one line.
fn panicked(lines: &[String]) -> Option<Said> {
    let at = lines.iter().rposition(|l| l.contains("thread '") && l.contains("panicked at"))?;
    let ends = |line: &String| line.starts_with("note: ") || line.starts_with("stack backtrace:");
    let below = &lines[at + 1..];
    let length = below.iter().position(ends).unwrap_or(1).min(below.len());
    let is_last = !below[length..].iter().any(|line| is_meaningful(line));
    if !is_last || length > MESSAGE {
        return None;
    }
    let phrase = below[..length].iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    let line = quoted(&format!("{} {phrase}", lines[at].trim()));
    Some(Said { cause: Cause::FailedCheck, line, advice: None })
}

/// C++ names the exception in one line and its words in the next.
fn thrown(lines: &[String], end: usize) -> Option<Said> {
    let line = lines[..end].last().filter(|line| line.starts_with("terminate called after"))?;
    let bad_alloc = line.contains("std::bad_alloc");
    let line = quoted(&format!("{} {}", line.trim(), lines[end].trim()));
    let cause = if bad_alloc { Cause::OutOfMemory } else { Cause::UncaughtException };
    let advice = "give the VM more memory, or find out why the program asks for so much";
    Some(Said { cause, line, advice: bad_alloc.then_some(Cow::Borrowed(advice)) })
}

/// The last line of a Python traceback, or Node's `XError: …` above its stack, whose message may have
/// several lines.
fn traceback(lines: &[String], end: usize) -> Option<Said> {
    let of = |cause, line: &str| Some(Said { cause, line: quoted(line), advice: None });
    let stack = lines[..end]
        .iter()
        .rposition(|line| !line.starts_with(' '))
        .filter(|at| lines[*at].starts_with("Traceback (most recent call"));
    if let Some(stack) = stack {
        // What Python only reports, and goes on.
        let ignored = stack > 0 && lines[stack - 1].starts_with("Exception ignored in");
        return match lines[end].as_str() {
            _ if ignored => None,
            line if line.starts_with("PermissionError:") => of(Cause::PermissionDenied, line),
            line => of(Cause::UncaughtException, line),
        };
    }
    let above_frames = lines.get(end + 1).is_some_and(|next| {
        let next = next.trim_start();
        next.starts_with("at ") || next.starts_with("[errors]: [")
    });
    let goes_on = |line: &&String| !is_exception(line) && !is_frame(line) && line.trim() != "^";
    let first = end - lines[..=end].iter().rev().take_while(goes_on).count().min(end);
    if !above_frames || end - first > MESSAGE || !is_exception(&lines[first]) {
        return None;
    }
    let message: Vec<&str> = lines[first..=end].iter().map(|line| line.trim()).collect();
    let message = message.join(" ");
    match known(&message) {
        Some(said) => Some(said),
        None if message.contains("EACCES") || message.contains("EPERM") => {
            of(Cause::PermissionDenied, &message)
        }
        None => of(Cause::UncaughtException, &message),
    }
}

/// A program's own report of a signal that it caught, as bun's: the signal it names.
pub fn own_crash_report(lines: &[String]) -> Option<(i32, String)> {
    const NAMES: [(&str, i32); 16] = [
        ("Fatal Python error: Segmentation fault", 11),
        ("Fatal Python error: Illegal instruction", 4),
        ("Fatal Python error: Bus error", 7),
        ("Segmentation fault at address", 11),
        ("Illegal instruction at address", 4),
        ("Bus error at address", 7),
        ("Floating point error at address", 8),
        ("Fatal signal 11", 11),
        ("Fatal signal 4", 4),
        ("SIGSEGV (", 11),
        ("SIGILL (", 4),
        // Go, runtime/signal_unix.go.
        ("SIGSEGV: segmentation violation", 11),
        ("SIGILL: illegal instruction", 4),
        ("SIGBUS: bus error", 7),
        ("SIGFPE: floating-point exception", 8),
        // Ruby.
        ("[BUG] Segmentation fault at", 11),
    ];
    let of = |line: &String| NAMES.iter().find(|(phrase, _)| line.contains(phrase));
    let at = lines.iter().rposition(|line| of(line).is_some())?;
    // A program that reports another error below continued after it: then it is about another process.
    let below = lines.get(at + 1..)?;
    if below.iter().any(|line| !is_frame(line) && error_lines::is_error(line)) {
        return None;
    }
    of(&lines[at]).map(|(_, signal)| (*signal, quoted(&lines[at])))
}

/// What is shown of its output, where that may have nothing to do with its end: the most meaningful
/// line, or for a program that succeeded its last one.
pub fn shown(death: &Death<'_>) -> Claim {
    let lines = death.lines();
    let Some(last) = lines.iter().rfind(|line| !line.trim().is_empty()) else {
        return death.silence();
    };
    let well = death.exit == Some(ProcessExit::Exited { code: 0 });
    match error_lines::message(lines).map(|message| quoted(&message)) {
        Some(message) if !well && message != quoted(last) => Claim::AmongLast(message),
        _ => Claim::LastLine(quoted(last)),
    }
}

/// The same where it printed anything: that there is nothing is no news beside other claims.
pub fn printed(death: &Death<'_>) -> Option<Claim> {
    Some(shown(death)).filter(Claim::is_quote)
}
