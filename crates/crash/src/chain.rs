//! Errors that name what they were caused by: the first says what failed, the innermost why.

use anteroom_session::Cause;

use super::lines::{self, is_exception, is_frame};
use super::patterns::{self, Said};

/// Marks before a cause, as Java, Deno and Python's libraries, Node.js and .NET set them.
const MARKS: [&str; 4] = ["Caused by: ", "[cause]: ", "---> ", "Original error was: "];

/// Meaningless lines below the last cause: the ends of stacks, and headings of what is
/// not printed.
const ENDS: [&str; 8] = [
    "--- End of inner exception stack trace ---",
    "Stack backtrace:",
    "Location:",
    "Backtrace omitted.",
    "Run with ",
    "]",
    "}",
    "... ",
];

/// The reason of an error with causes, when it is the last thing that was printed.
pub fn reason(lines: &[String]) -> Option<Said> {
    let found = marked(lines).or_else(|| listed(lines)).or_else(|| of_several(lines))?;
    let known = patterns::known(&found.cause).or_else(|| patterns::known(&lines[found.head]));
    let head = lines[found.head].trim_start_matches([' ', '|']);
    let line = format!("{head} ({})", found.cause);
    let is_thrown = || {
        // Java's and .NET's names have dots: what they do not report so was caught and logged.
        let dotted = head.split(": ").next().unwrap_or_default().contains('.');
        ["Exception in thread ", "Unhandled exception", "error: Uncaught "]
            .iter()
            .any(|phrase| head.starts_with(phrase))
            || (is_exception(head) && !dotted)
    };
    let (cause, advice) = match known {
        Some(said) => (said.cause, said.advice),
        None if found.with_stack && is_thrown() => (Cause::UncaughtException, None),
        None => (Cause::EndedBySelf, None),
    };
    Some(Said { cause, line: lines::quoted(&line), advice })
}

/// An error's own line, and what it was caused by.
struct Found {
    head: usize,
    cause: String,
    with_stack: bool,
}

fn is_end(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || ENDS.iter().any(|end| line.starts_with(end))
}

/// Whether a line below a cause adds nothing to it.
fn reports_nothing(line: &str) -> bool {
    is_frame(line) || is_end(line) || !lines::is_meaningful(line)
}

/// The last line above `at` that is no frame and no hint.
fn head(lines: &[String], at: usize) -> Option<usize> {
    lines::last_meaningful(&lines[..at])
}

/// Each cause behind a mark of its own.
fn marked(lines: &[String]) -> Option<Found> {
    let mark = |line: &String| MARKS.iter().find(|mark| line.trim_start().starts_with(**mark));
    let last = lines.iter().rposition(|line| mark(line).is_some())?;
    if !lines[last + 1..].iter().all(|line| reports_nothing(line)) {
        return None;
    }
    // The causes of one error, with nothing between them but stacks.
    let first =
        lines[..last].iter().rposition(|line| !reports_nothing(line) && mark(line).is_none()).map(
            |head| head + 1 + lines[head + 1..].iter().take_while(|l| mark(l).is_none()).count(),
        )?;
    let head = head(lines, first)?;
    let with_stack = lines[head + 1..].iter().any(|line| line.trim_start().starts_with("at "));
    let cause = lines[last].trim().trim_end_matches(" {").to_owned();
    Some(Found { head, cause, with_stack })
}

/// `Caused by:` of Rust's anyhow, and each cause in a line below it, numbered where there are several.
fn listed(lines: &[String]) -> Option<Found> {
    let mark = lines.iter().rposition(|line| line.trim() == "Caused by:")?;
    let is_cause = |line: &&String| line.starts_with(' ') && !is_end(line);
    let causes: Vec<&String> = lines[mark + 1..].iter().take_while(is_cause).collect();
    let below = &lines[mark + 1 + causes.len()..];
    if !below.iter().all(|line| reports_nothing(line)) {
        return None;
    }
    let last = causes.last()?.trim();
    let unnumbered = last.trim_start_matches(|c: char| c.is_ascii_digit());
    let last = unnumbered.strip_prefix(": ").unwrap_or(last);
    Some(Found {
        head: head(lines, mark)?,
        cause: format!("Caused by: {}", last.trim()),
        with_stack: false,
    })
}

/// Node.js' `AggregateError` and Python's groups: the first of several errors.
fn of_several(lines: &[String]) -> Option<Found> {
    let inside = |line: &String| {
        line.trim_start_matches([' ', '|', '+', '-']).trim().trim_end_matches(',').to_owned()
    };
    if let Some(mark) = lines.iter().rposition(|line| line.trim() == "[errors]: [") {
        if !lines[mark + 1..].iter().all(|line| reports_nothing(line)) {
            return None;
        }
        let cause = format!("[errors]: {}", inside(lines.get(mark + 1)?));
        return Some(Found { head: head(lines, mark)?, cause, with_stack: true });
    }
    let group = lines.iter().rposition(|line| line.contains("Exception Group Traceback (most"))?;
    let head = group + lines[group..].iter().position(|line| inside(line).contains("Group: "))?;
    let drawn = |line: &String| line.trim_start().starts_with(['|', '+']);
    if !lines[group + 1..].iter().all(drawn) {
        return None;
    }
    let cause = lines[head + 1..].iter().map(inside).find(|line| is_exception(line))?;
    Some(Found { head, cause, with_stack: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<(Cause, String)> {
        patterns::read_by(reason, text)
    }

    #[test]
    fn what_failed_is_reported_with_the_innermost_cause() {
        let cases = [
            (
                "Error: sign-in failed\n    at [eval]:1:7 {\n  [cause]: Error: connect ECONNREFUSED 127.0.0.1:1\n      at [eval]:1:43\n}\nNode.js v20.20.2",
                Cause::UncaughtException,
                "Error: sign-in failed ([cause]: Error: connect ECONNREFUSED 127.0.0.1:1)",
            ),
            (
                "throw new AggregateError\n^\nAggregateError: all failed\n    at [eval]:1:7 {\n  [errors]: [\n    Error: first\n        at [eval]:1:27,\n    Error: second\n        at [eval]:1:47\n  ]\n}\nNode.js v20.20.2",
                Cause::UncaughtException,
                "AggregateError: all failed ([errors]: Error: first)",
            ),
            (
                "org.springframework.BeanCreationException: Error creating bean\n at org.A.f(A.java:1)\nCaused by: java.net.ConnectException: Connection refused\n at sun.A.f(A.java:2)\n ... 40 common frames omitted",
                Cause::EndedBySelf,
                "org.springframework.BeanCreationException: Error creating bean (Caused by: java.net.ConnectException: Connection refused)",
            ),
            (
                "Error: Could not find or load main class Nope\nCaused by: java.lang.ClassNotFoundException: Nope",
                Cause::MissingLibrary,
                "Error: Could not find or load main class Nope (Caused by: java.lang.ClassNotFoundException: Nope)",
            ),
            (
                "Unhandled exception. System.InvalidOperationException: sign-in failed\n ---> System.Net.Http.HttpRequestException: refused (localhost:1)\n ---> System.Net.Sockets.SocketException (111): Connection refused\n   at System.Net.Sockets.Socket.Connect()\n   --- End of inner exception stack trace ---\n   at Program.Main()",
                Cause::UncaughtException,
                "Unhandled exception. System.InvalidOperationException: sign-in failed (---> System.Net.Sockets.SocketException (111): Connection refused)",
            ),
            (
                "error: Uncaught (in promise) Error: sign-in failed\n    at file:///a.ts:1:7\nCaused by: TypeError: error sending request\n    at async mainFetch (ext:x.js:1:2)",
                Cause::UncaughtException,
                "error: Uncaught (in promise) Error: sign-in failed (Caused by: TypeError: error sending request)",
            ),
            (
                "trying\nError: could not sign in\nCaused by:\n    0: token endpoint answered 403\n    1: account is not eligible",
                Cause::EndedBySelf,
                "Error: could not sign in (Caused by: account is not eligible)",
            ),
            (
                "Error: could not listen\nCaused by:\n    Address already in use (os error 98)\nStack backtrace:\n   0: anyhow::error::from",
                Cause::AlreadyInUse,
                "Error: could not listen (Caused by: Address already in use (os error 98))",
            ),
            (
                "  + Exception Group Traceback (most recent call last):\n  |   File \"<string>\", line 1, in <module>\n  | ExceptionGroup: two (2 sub-exceptions)\n  +-+---------------- 1 ----------------\n    | ValueError: a\n    +---------------- 2 ----------------\n    | KeyError: 'b'\n    +------------------------------------",
                Cause::UncaughtException,
                "ExceptionGroup: two (2 sub-exceptions) (ValueError: a)",
            ),
        ];
        for (text, cause, line) in cases {
            assert_eq!(of(text), Some((cause, line.to_owned())), "{text}");
        }
    }

    #[test]
    fn causes_that_were_survived_are_none() {
        for text in [
            "Error: x\nCaused by:\n    refused\ngoing on\nbye",
            "java.lang.Error: x\n at A.f(A.java:1)\nCaused by: java.lang.Error: y\n at A.g(A.java:2)\nlistening",
            "Caused by: nothing that is there",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
