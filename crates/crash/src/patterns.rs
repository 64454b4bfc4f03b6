//! What programs say when they die, as far as it is always said the same way: a line each.

use std::borrow::Cow;

use anteroom_session::Cause;

use super::lines::quoted;

/// How a line is recognised.
pub struct Pattern {
    /// All of these are in it, in any order.
    all: &'static [&'static str],
    /// What else is true of it: words alone are said of many things.
    form: fn(&str) -> bool,
    /// What it means.
    pub cause: Cause,
    /// What to do.
    pub advice: Option<&'static str>,
}

const fn p(all: &'static [&'static str], cause: Cause, advice: Option<&'static str>) -> Pattern {
    Pattern { all, form: |_| true, cause, advice }
}

/// A pattern of lines that have a form, too.
const fn formed(form: fn(&str) -> bool, pattern: Pattern) -> Pattern {
    Pattern { form, ..pattern }
}

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

/// What a line means in itself.
pub fn known(line: &str) -> Option<Said> {
    let pattern = of(line)?;
    let advice = pattern.advice.map(Cow::Borrowed);
    Some(Said { cause: pattern.cause, line: quoted(line), advice })
}

/// The cause and the words that a reader of reports finds in a program's output.
#[cfg(test)]
pub fn read_by(reason: fn(&[String]) -> Option<Said>, text: &str) -> Option<(Cause, String)> {
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    reason(&lines).map(|said| (said.cause, said.line))
}

/// The pattern of a line.
pub fn of(line: &str) -> Option<&'static Pattern> {
    let is = |pattern: &&Pattern| {
        pattern.all.iter().all(|phrase| line.contains(phrase)) && (pattern.form)(line)
    };
    PATTERNS.iter().find(is)
}

/// An interpreter's place before its words, as in `a.sh: line 3: syntax error`.
fn is_at_place(line: &str) -> bool {
    let before = line.split_once("yntax error").map_or("", |(before, _)| before);
    let before = before.trim_end_matches(['s', 'S']).trim_end().trim_end_matches(':');
    before.ends_with(|c: char| c.is_ascii_digit())
        || before.ends_with("Parse error")
        || line.starts_with("syntax error at ")
        || line.starts_with("awk: ")
}

/// The first word ends so, before a colon or at the end of the line.
fn is_named(line: &str, name: &str) -> bool {
    let first = line.split([' ', ':']).next().unwrap_or_default();
    first.ends_with(name) && !line[first.len()..].starts_with(' ')
}

/// Ruby's `place:3:in `f': words (Class)`.
fn is_ruby(line: &str) -> bool {
    let class = line.rsplit_once(" (").map_or("", |(_, class)| class);
    [":in `", ":in '"].iter().any(|phrase| line.contains(phrase))
        && class.ends_with(')')
        && class.starts_with(|c: char| c.is_ascii_uppercase())
}

/// What is said of a library, and may be said of other files.
fn names_library(line: &str) -> bool {
    line.contains(".so") || line.contains(".node")
}

const INSTALL: Option<&str> = Some("add it to the image's recipe and build the image again");
const OLDER_C: Option<&str> = Some(
    "the image's C library is older than the program requires: use a newer base, or an older build",
);
const OLDER: Option<&str> = Some(
    "the image's version of that library is older than the program requires: use a newer one, or an older build of the program",
);
const OTHER_C: Option<&str> = Some(
    "the program is built for another C library or version: use the build for this image's (glibc, musl)",
);
const OTHER_BUILD: Option<&str> = Some(
    "a library that it loads has another version than it was built with; install matching versions",
);
const INTERPRETER: Option<&str> =
    Some("add the interpreter to the image's recipe, or correct the file's first line");
const LINE_ENDS: Option<&str> = Some("save the file with LF line endings (sed -i 's/\\r$//' FILE)");
const MEMORY: Option<&str> = Some("raise its own limit, if it has one, or give the VM more memory");
const MORE_MEMORY: Option<&str> = Some("give the VM more memory");
const PORT: Option<&str> = Some("stop whatever listens there, or choose another port");
const CODE: Option<&str> = Some(
    "the file is written for another version of its interpreter, or damaged; check which version runs it",
);

const OTHER_PROCESSOR: Option<&str> = Some(
    "the file is a program for another processor, or damaged; use the build for x86-64 (amd64)",
);

/// The more specific come first.
const PATTERNS: &[Pattern] = &[
    p(&["error while loading shared libraries"], Cause::MissingLibrary, INSTALL),
    p(&["version `GLIBC_", "not found"], Cause::MissingLibrary, OLDER_C),
    p(&["version `", "not found (required by"], Cause::MissingLibrary, OLDER),
    formed(names_library, p(&["wrong ELF class"], Cause::NotExecutable, OTHER_PROCESSOR)),
    formed(names_library, p(&["invalid ELF header"], Cause::NotExecutable, OTHER_PROCESSOR)),
    p(&["can't load ", " .so on a "], Cause::NotExecutable, OTHER_PROCESSOR),
    p(&["Error relocating", "symbol not found"], Cause::MissingLibrary, OTHER_C),
    formed(names_library, p(&["undefined symbol: "], Cause::MissingLibrary, OTHER_BUILD)),
    p(&["^M: bad interpreter"], Cause::MissingInterpreter, LINE_ENDS),
    p(&["env: ", "\\r", "No such file"], Cause::MissingInterpreter, LINE_ENDS),
    p(&["bad interpreter: "], Cause::MissingInterpreter, INTERPRETER),
    p(&["cannot execute: required file not found"], Cause::MissingInterpreter, INTERPRETER),
    p(&["exec format error"], Cause::NotExecutable, OTHER_PROCESSOR),
    p(&["Error: spawn ", "ENOEXEC"], Cause::NotExecutable, OTHER_PROCESSOR),
    p(&["executable file not found in $PATH"], Cause::MissingProgram, INSTALL),
    p(&["Exec format error"], Cause::NotExecutable, OTHER_PROCESSOR),
    p(&["cannot execute binary file"], Cause::NotExecutable, OTHER_PROCESSOR),
    p(&["symbol lookup error"], Cause::MissingLibrary, OTHER_BUILD),
    p(&["Error loading shared library"], Cause::MissingLibrary, INSTALL),
    p(&["Cannot find module"], Cause::MissingLibrary, INSTALL),
    p(&["ERR_MODULE_NOT_FOUND"], Cause::MissingLibrary, INSTALL),
    p(&["ModuleNotFoundError:"], Cause::MissingLibrary, INSTALL),
    p(&["SyntaxError:"], Cause::SyntaxError, CODE),
    p(&["IndentationError:"], Cause::SyntaxError, CODE),
    formed(is_at_place, p(&["yntax error"], Cause::SyntaxError, CODE)),
    p(
        &["JavaScript heap out of memory"],
        Cause::OutOfMemory,
        Some("give it a larger heap (--max-old-space-size), or the VM more memory"),
    ),
    formed(|line| is_named(line, "MemoryError"), p(&["MemoryError"], Cause::OutOfMemory, MEMORY)),
    p(&["java.lang.OutOfMemoryError"], Cause::OutOfMemory, MEMORY),
    p(&["JS heap out of memory"], Cause::OutOfMemory, MEMORY),
    p(&["Fatal JavaScript out of memory"], Cause::OutOfMemory, MEMORY),
    p(&["Fatal JavaScript OOM in"], Cause::OutOfMemory, MEMORY),
    p(&["Array buffer allocation failed"], Cause::OutOfMemory, MEMORY),
    p(&["fatal error: out of memory"], Cause::OutOfMemory, MEMORY),
    p(&["fatal error: runtime: out of memory"], Cause::OutOfMemory, MEMORY),
    p(&["annot allocate memory"], Cause::OutOfMemory, MEMORY),
    p(&["can't allocate memory"], Cause::OutOfMemory, MEMORY),
    p(&["failed to allocate memory"], Cause::OutOfMemory, MEMORY),
    p(&["failed to allocate ", " bytes"], Cause::OutOfMemory, MEMORY),
    p(&["annot allocate ", " bytes"], Cause::OutOfMemory, MEMORY),
    p(&["Out of memory trying to allocate"], Cause::OutOfMemory, MEMORY),
    p(&["exception Out_of_memory"], Cause::OutOfMemory, MEMORY),
    p(&["Could not reserve enough space for"], Cause::OutOfMemory, MEMORY),
    p(&["insufficient memory for the Java Runtime"], Cause::OutOfMemory, MEMORY),
    formed(|line| line.ends_with(": Heap exhausted;"), p(&[], Cause::OutOfMemory, MEMORY)),
    formed(
        |line| line == "Out of memory!" || line == "Out of memory.",
        p(&[], Cause::OutOfMemory, MEMORY),
    ),
    p(
        &["terminate called after throwing an instance of 'std::bad_alloc'"],
        Cause::OutOfMemory,
        MORE_MEMORY,
    ),
    p(&["memory allocation of", "bytes failed"], Cause::OutOfMemory, MORE_MEMORY),
    p(&["RangeError: Maximum call stack size exceeded"], Cause::StackOverflow, None),
    p(&["RecursionError:"], Cause::StackOverflow, None),
    p(&["has overflowed its stack"], Cause::StackOverflow, None),
    p(&["fatal runtime error: stack overflow"], Cause::StackOverflow, None),
    p(&["stack smashing detected"], Cause::FailedCheck, None),
    p(&["ssertion `", "failed"], Cause::FailedCheck, None),
    p(&["ssertion '", "failed"], Cause::FailedCheck, None),
    p(&["ssertion failed"], Cause::FailedCheck, None),
    formed(
        |line| {
            is_named(line.trim_start_matches("Uncaught "), "AssertionError")
                || line.starts_with("AssertionError")
        },
        p(&["AssertionError"], Cause::FailedCheck, None),
    ),
    p(&["Check failed:"], Cause::FailedCheck, None),
    formed(|line| line.starts_with('['), p(&[":FATAL:"], Cause::FailedCheck, None)),
    p(&["-ERROR **: "], Cause::FailedCheck, None),
    p(&[".swift", "Fatal error: "], Cause::FailedCheck, None),
    p(&["thread '", "panicked at '"], Cause::FailedCheck, None),
    p(&["free(): invalid"], Cause::FailedCheck, None),
    p(&["double free"], Cause::FailedCheck, None),
    p(&["malloc(): "], Cause::FailedCheck, None),
    p(&["corrupted size vs. prev_size"], Cause::FailedCheck, None),
    p(&["Fatal Python error"], Cause::FailedCheck, None),
    p(&["EADDRINUSE"], Cause::AlreadyInUse, PORT),
    p(&["ddress already in use"], Cause::AlreadyInUse, PORT),
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
    p(&[":in ", "(NoMemoryError)"], Cause::OutOfMemory, None),
    p(&[":in ", "(SystemStackError)"], Cause::StackOverflow, None),
    formed(is_ruby, p(&[], Cause::UncaughtException, None)),
    p(&["terminating", "uncaught exception of type"], Cause::UncaughtException, None),
    p(&["java.lang.ClassNotFoundException"], Cause::MissingLibrary, INSTALL),
    p(&["Could not find or load main class"], Cause::MissingLibrary, INSTALL),
    p(&["error: Uncaught "], Cause::UncaughtException, None),
    p(&["** (", "Error) "], Cause::UncaughtException, None),
];
