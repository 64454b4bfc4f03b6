//! What programs say when they die, as far as it is always said the same way.

use std::borrow::Cow;

use anteroom_session::Cause;

use super::reports;

/// Characters of a line that go into a sentence.
const MAX_QUOTED: usize = 240;

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

/// How a line is recognised.
struct Pattern {
    /// All of these are in it, in any order.
    all: &'static [&'static str],
    cause: Cause,
    advice: Option<&'static str>,
}

const fn p(all: &'static [&'static str], cause: Cause, advice: Option<&'static str>) -> Pattern {
    Pattern { all, cause, advice }
}

const INSTALL: Option<&str> = Some("install it in the image's recipe and build the image again");
const OLDER_C: Option<&str> =
    Some("the image's C library is older than the program: take a newer base, or an older build");
const CODE: Option<&str> = Some(
    "the file is written for another version of its interpreter, or damaged; check which version runs it",
);

const OTHER_PROCESSOR: Option<&str> = Some(
    "the file is a program for another processor, or damaged; take the build for x86-64 (amd64)",
);

/// The more telling come first.
const PATTERNS: &[Pattern] = &[
    p(&["error while loading shared libraries"], Cause::MissingLibrary, INSTALL),
    p(&["version `GLIBC", "not found"], Cause::MissingLibrary, OLDER_C),
    p(&["version `", "not found (required by"], Cause::MissingLibrary, OLDER_C),
    p(&["Exec format error"], Cause::NotExecutable, OTHER_PROCESSOR),
    p(&["cannot execute binary file"], Cause::NotExecutable, OTHER_PROCESSOR),
    p(&["symbol lookup error"], Cause::MissingLibrary, INSTALL),
    p(&["Error loading shared library"], Cause::MissingLibrary, INSTALL),
    p(&["Cannot find module"], Cause::MissingLibrary, INSTALL),
    p(&["ERR_MODULE_NOT_FOUND"], Cause::MissingLibrary, INSTALL),
    p(&["ModuleNotFoundError:"], Cause::MissingLibrary, INSTALL),
    p(&["SyntaxError:"], Cause::SyntaxError, CODE),
    p(&["IndentationError:"], Cause::SyntaxError, CODE),
    p(&["syntax error"], Cause::SyntaxError, CODE),
    p(&["Syntax error"], Cause::SyntaxError, CODE),
    p(
        &["JavaScript heap out of memory"],
        Cause::OutOfMemory,
        Some("give it a larger heap (--max-old-space-size), or the VM more memory"),
    ),
    p(&["MemoryError"], Cause::OutOfMemory, Some("give the VM more memory")),
    p(
        &["terminate called after throwing an instance of 'std::bad_alloc'"],
        Cause::OutOfMemory,
        Some("give the VM more memory"),
    ),
    p(
        &["memory allocation of", "bytes failed"],
        Cause::OutOfMemory,
        Some("give the VM more memory"),
    ),
    p(&["RangeError: Maximum call stack size exceeded"], Cause::StackOverflow, None),
    p(&["RecursionError:"], Cause::StackOverflow, None),
    p(&["has overflowed its stack"], Cause::StackOverflow, None),
    p(&["stack smashing detected"], Cause::FailedCheck, None),
    p(&["Assertion", "failed"], Cause::FailedCheck, None),
    p(&["assertion", "failed"], Cause::FailedCheck, None),
    p(&["AssertionError"], Cause::FailedCheck, None),
    p(&["Check failed:"], Cause::FailedCheck, None),
    p(&["panicked at"], Cause::FailedCheck, None),
    p(&["free(): invalid"], Cause::FailedCheck, None),
    p(&["double free"], Cause::FailedCheck, None),
    p(&["malloc(): "], Cause::FailedCheck, None),
    p(&["corrupted size vs. prev_size"], Cause::FailedCheck, None),
    p(&["Fatal Python error"], Cause::FailedCheck, None),
    p(&["EADDRINUSE"], Cause::AlreadyInUse, Some("end what listens there, or choose another port")),
    p(
        &["ddress already in use"],
        Cause::AlreadyInUse,
        Some("end what listens there, or choose another port"),
    ),
    p(&["terminate called after throwing an instance of"], Cause::UncaughtException, None),
    p(&["Unhandled exception", "OutOfMemoryException"], Cause::OutOfMemory, None),
    p(&["Unhandled exception", "DllNotFoundException"], Cause::MissingLibrary, INSTALL),
    p(&["Unhandled exception", "Could not load file or assembly"], Cause::MissingLibrary, INSTALL),
    p(&["Unhandled exception. "], Cause::UncaughtException, None),
    p(&["Unhandled Exception: "], Cause::UncaughtException, None),
    p(&["Allowed memory size of", "exhausted"], Cause::OutOfMemory, None),
    p(&["PHP Parse error:"], Cause::SyntaxError, CODE),
    p(&["PHP Fatal error:"], Cause::UncaughtException, None),
    p(&["Can't locate", "in @INC"], Cause::MissingLibrary, INSTALL),
    p(&["(LoadError)"], Cause::MissingLibrary, INSTALL),
    p(&[".rb:", "(NoMemoryError)"], Cause::OutOfMemory, None),
    p(&[".rb:", "(SystemStackError)"], Cause::StackOverflow, None),
    p(&[".rb:", "Error)"], Cause::UncaughtException, None),
    p(&["Could not find or load main class"], Cause::MissingLibrary, INSTALL),
    p(&["error: Uncaught "], Cause::UncaughtException, None),
    p(&["** (", "Error) "], Cause::UncaughtException, None),
];

/// The line in which the program says why, if it says it in a known way and says nothing else after
/// it: what it printed before that it has survived.
pub fn said(lines: &[String]) -> Option<Said> {
    if let Some(said) = reports::reason(lines) {
        return Some(said);
    }
    let end = last_words(lines)?;
    let line = &lines[end];
    let found = PATTERNS.iter().find(|pattern| pattern.all.iter().all(|w| line.contains(w)));
    if let Some(pattern) = found {
        return Some(Said {
            cause: pattern.cause,
            line: quoted(line),
            advice: pattern.advice.map(Cow::Borrowed),
        });
    }
    panicked(lines, end).or_else(|| thrown(lines, end)).or_else(|| traceback(lines, end))
}

/// Lines below a report that tell nothing of why.
const HINTS: [&str; 18] = [
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
];

/// The last line that is no frame of a stack and no hint below one.
pub fn last_words(lines: &[String]) -> Option<usize> {
    lines.iter().rposition(|line| is_telling(line))
}

/// How many lines after this one tell something.
pub fn telling_after(lines: &[String], at: usize) -> usize {
    lines[at + 1..].iter().filter(|line| is_telling(line)).count()
}

fn is_telling(line: &str) -> bool {
    !line.trim().is_empty()
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
fn is_numbered_frame(line: &str) -> bool {
    if let Some(rest) = line.strip_prefix('#') {
        return rest.starts_with(|c: char| c.is_ascii_digit());
    }
    let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.len() < line.len() && rest.starts_with(": ")
}

/// Rust names the place in one line and the words in the next.
fn panicked(lines: &[String], end: usize) -> Option<Said> {
    let line = lines[..end].last().filter(|line| line.contains("panicked at"))?;
    let line = quoted(&format!("{} {}", line.trim(), lines[end].trim()));
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

/// The last line of a Python traceback, or Node's `XError: …` above its stack.
fn traceback(lines: &[String], end: usize) -> Option<Said> {
    let line = &lines[end];
    let of = |cause| Some(Said { cause, line: quoted(line), advice: None });
    let below_frames = lines[..end]
        .iter()
        .rev()
        .take_while(|line| line.starts_with(' ') || line.starts_with("Traceback (most recent call"))
        .any(|line| line.starts_with("Traceback"));
    let above_frames = lines.get(end + 1).is_some_and(|next| next.trim_start().starts_with("at "));
    match line {
        line if below_frames && line.starts_with("PermissionError:") => of(Cause::PermissionDenied),
        line if above_frames && (line.contains("EACCES") || line.contains("EPERM")) => {
            of(Cause::PermissionDenied)
        }
        line if below_frames || (above_frames && is_exception(line)) => {
            of(Cause::UncaughtException)
        }
        _ => None,
    }
}

/// `TypeError: …`, `Error: …`, `Uncaught Error: …`.
fn is_exception(line: &str) -> bool {
    let line = line.trim_start().trim_start_matches("Uncaught ");
    let name: String =
        line.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    (name.ends_with("Error") || name.ends_with("Exception")) && !name.is_empty()
}

/// A program's own report of a signal that it caught, as bun's: the signal it names.
pub fn own_crash_report(lines: &[String]) -> Option<(i32, String)> {
    const NAMES: [(&str, i32); 11] = [
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
    ];
    lines.iter().rev().find_map(|line| {
        let (_, signal) = NAMES.iter().find(|(words, _)| line.contains(words))?;
        Some((*signal, quoted(line)))
    })
}

/// The last line that says anything; of a bare stack its last frame.
pub fn last(lines: &[String]) -> Option<String> {
    let telling = last_words(lines).map(|at| &lines[at]);
    let any = || lines.iter().rev().find(|line| !line.trim().is_empty());
    telling.or_else(any).map(|line| quoted(line))
}

/// Lines that go into the evidence.
const FEW: usize = 5;

/// The last lines that say anything, oldest first: the one that tells is not always the last.
pub fn last_few(lines: &[String]) -> Vec<String> {
    let telling = lines.iter().filter(|line| !line.trim().is_empty());
    let mut few: Vec<String> = telling.rev().take(FEW).map(|line| quoted(line)).collect();
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
