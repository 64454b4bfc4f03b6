//! Lines of a program's output: which of them mean something, and how one goes into a sentence.

/// Characters of a line that go into a sentence.
const MAX_QUOTED: usize = 240;

/// Most lines that a message goes on for.
pub const MESSAGE: usize = 12;

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

/// `TypeError: …`, `Error: …`, `Uncaught Error: …`.
pub fn is_exception(line: &str) -> bool {
    let line = line.trim_start().trim_start_matches("Uncaught ").trim_start_matches('[');
    let name: String =
        line.chars().take_while(|c| c.is_ascii_alphanumeric() || "_.".contains(*c)).collect();
    ["Error", "Exception", "ExceptionGroup", "Rejection"].iter().any(|end| name.ends_with(end))
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
