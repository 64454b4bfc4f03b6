//! Which lines of a program's output say why it ended.

use std::borrow::Cow;

use anteroom_guest_protocol::ProcessExit;
use anteroom_session::Cause;

use super::claim::Claim;
use super::{Death, chain, error_lines, patterns, reports};

/// Characters of a line that go into a sentence.
const MAX_QUOTED: usize = 240;

/// Most lines that a message goes on for.
pub const MESSAGE: usize = 12;

/// A line in which a program says why it ends, and what kind of cause that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The kind.
    pub cause: Cause,
    /// The line, shortened.
    pub line: String,
    /// What to do.
    pub advice: Option<Cow<'static, str>>,
}

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

/// What a line means in itself.
pub fn known(line: &str) -> Option<Said> {
    let pattern = patterns::of(line)?;
    let advice = pattern.advice.map(Cow::Borrowed);
    Some(Said { cause: pattern.cause, line: quoted(line), advice })
}

/// Lines below a report that do not say why.
const HINTS: [&str; 32] = [
    "}",
    "- ",
    "-----",
    "Emitted 'error' event",
    "Require stack:",
    "Node.js v",
    "Bun v",
    "note: ",
    "Aborted",
    "stack backtrace:",
    "Stack backtrace:",
    "Extension modules:",
    "Trace/breakpoint",
    "Stack trace:",
    "Stacktrace:",
    "stack traceback:",
    "CallStack (from ",
    "exit status ",
    "Python runtime state: ",
    "Current thread 0x",
    "Thread 0x",
    "BEGIN failed--compilation aborted",
    "Compilation failed in require",
    "Execution of ",
    "thread caused non-unwinding panic",
    "(Use `node --trace",
    "==== C stack trace",
    "---",
    "C++ backtrace",
    "[NOTE]",
    "You may have encountered a bug in the Ruby",
    "For details: ",
];

/// The last line that is no frame of a stack and no hint below one.
pub fn last_meaningful(lines: &[String]) -> Option<usize> {
    lines.iter().rposition(|line| is_meaningful(line))
}

/// The number of meaningful lines after this one.
pub fn meaningful_after(lines: &[String], at: usize) -> usize {
    lines[at + 1..].iter().filter(|line| is_meaningful(line)).count()
}

/// Whether a line is no frame of a stack and no hint below one.
pub fn is_meaningful(line: &str) -> bool {
    !line.trim_matches(['#', '^', '=', ' ']).is_empty()
        && !is_frame(line)
        && line.trim_end() != "Caused by:"
        && !HINTS.iter().any(|hint| line.starts_with(hint))
}

/// A line of a stack, as the runtimes write them: indented, or with a number or "at" before it.
pub fn is_frame(line: &str) -> bool {
    (line.starts_with([' ', '\t']) && !line.trim_start().starts_with("what():"))
        || line.starts_with("at ")
        || is_numbered_frame(line)
}

/// A frame of Node's native stack, `10: 0x195e476  [node]`, or of PHP's, `#0 {main}`.
pub fn is_numbered_frame(line: &str) -> bool {
    if let Some(rest) = line.strip_prefix('#') {
        return rest.starts_with(|c: char| c.is_ascii_digit());
    }
    let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.len() < line.len() && rest.starts_with(": ")
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
    let advice = "it asked for more memory than there is: give the VM more, or look what asks";
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

/// `TypeError: …`, `Error: …`, `Uncaught Error: …`.
pub fn is_exception(line: &str) -> bool {
    let line = line.trim_start().trim_start_matches("Uncaught ").trim_start_matches('[');
    let name: String =
        line.chars().take_while(|c| c.is_ascii_alphanumeric() || "_.".contains(*c)).collect();
    ["Error", "Exception", "ExceptionGroup", "Rejection"].iter().any(|end| name.ends_with(end))
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

/// Whether the dynamic loader says it of a program that it cannot start. What it says of a single
/// symbol may come at any time, when that is first used.
pub fn is_of_loader(line: &str) -> bool {
    line.contains("error while loading shared libraries")
        || line.contains("Error loading shared library")
        || line.contains("Error relocating")
        || (line.contains("version `") && line.contains("not found (required by"))
}

/// Lines that go into the evidence.
const FEW: usize = 5;

/// The last non-empty lines, oldest first: the meaningful one is not always the last.
pub fn last_few(lines: &[String]) -> Vec<String> {
    let meaningful = lines.iter().filter(|line| !line.trim().is_empty());
    let mut few: Vec<String> = meaningful.rev().take(FEW).map(|line| quoted(line)).collect();
    few.reverse();
    few
}

/// A line as it goes into a sentence.
pub fn quoted(line: &str) -> String {
    let line = line.trim();
    let mut short: String = line.chars().take(MAX_QUOTED).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The cause and the words that a reader of reports finds in a program's output.
    pub fn read_by(reason: fn(&[String]) -> Option<Said>, text: &str) -> Option<(Cause, String)> {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        reason(&lines).map(|said| (said.cause, said.line))
    }
}
