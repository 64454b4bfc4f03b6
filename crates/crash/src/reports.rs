//! The reports that runtimes write of their own end: in which line of each the reason stands.

use anteroom_session::Cause;

use super::error_lines;
use super::lines::{self, MESSAGE, is_frame};
use super::patterns::{self, Said};

/// The reason that a runtime's report gives, when a report is the last thing that was printed.
pub fn reason(lines: &[String]) -> Option<Said> {
    let finders = [library, go, v8, java, sanitizer, python];
    finders.iter().find_map(|find| find(lines))
}

fn said(cause: Cause, line: &str) -> Said {
    Said { cause, line: lines::quoted(line), advice: None }
}

/// The dynamic loader's words, which a runtime may wrap in a report of its own.
fn library(lines: &[String]) -> Option<Said> {
    const PHRASES: &str = "cannot open shared object file";
    let at = lines.iter().rposition(|line| line.contains(PHRASES))?;
    if lines::meaningful_after(lines, at) > 2 {
        return None;
    }
    let line = &lines[at];
    // Java's guess at it, which the kernel's own word is not.
    if line.contains("can't load ") && line.contains(" .so on a ") {
        return patterns::known(line);
    }
    // The loader names the program first and the library last, before its words.
    let name = line
        .split(PHRASES)
        .next()?
        .split(|c: char| c.is_whitespace() || "\"'()".contains(c))
        .map(|word| word.trim_matches(':').rsplit('/').next().unwrap_or_default())
        .rfind(|word| word.contains(".so") || word.ends_with(".node"))?;
    let advice = match package_of(name) {
        Some(package) => format!(
            "add {name} (Debian's package {package}) to the image's recipe and build the image again"
        ),
        None => format!(
            "add the package that contains {name} to the image's recipe and build the image again"
        ),
    };
    Some(Said { advice: Some(advice.into()), ..said(Cause::MissingLibrary, line) })
}

/// Debian 12's package of a library that tools often want.
fn package_of(library: &str) -> Option<&'static str> {
    const PACKAGES: [(&str, &str); 36] = [
        ("libGL.so.1", "libgl1"),
        ("libEGL.so.1", "libegl1"),
        ("libX11.so.6", "libx11-6"),
        ("libX11-xcb.so.1", "libx11-xcb1"),
        ("libXcomposite.so.1", "libxcomposite1"),
        ("libXdamage.so.1", "libxdamage1"),
        ("libXfixes.so.3", "libxfixes3"),
        ("libXrandr.so.2", "libxrandr2"),
        ("libXtst.so.6", "libxtst6"),
        ("libXss.so.1", "libxss1"),
        ("libXext.so.6", "libxext6"),
        ("libxcb.so.1", "libxcb1"),
        ("libxkbcommon.so.0", "libxkbcommon0"),
        ("libnss3.so", "libnss3"),
        ("libnspr4.so", "libnspr4"),
        ("libasound.so.2", "libasound2"),
        ("libatk-1.0.so.0", "libatk1.0-0"),
        ("libatk-bridge-2.0.so.0", "libatk-bridge2.0-0"),
        ("libcups.so.2", "libcups2"),
        ("libdrm.so.2", "libdrm2"),
        ("libgbm.so.1", "libgbm1"),
        ("libgtk-3.so.0", "libgtk-3-0"),
        ("libglib-2.0.so.0", "libglib2.0-0"),
        ("libpango-1.0.so.0", "libpango-1.0-0"),
        ("libcairo.so.2", "libcairo2"),
        ("libdbus-1.so.3", "libdbus-1-3"),
        ("libsecret-1.so.0", "libsecret-1-0"),
        ("libssl.so.3", "libssl3"),
        ("libcrypto.so.3", "libssl3"),
        ("libcurl.so.4", "libcurl4"),
        ("libsqlite3.so.0", "libsqlite3-0"),
        ("libstdc++.so.6", "libstdc++6"),
        ("libgomp.so.1", "libgomp1"),
        ("libatomic.so.1", "libatomic1"),
        ("libffi.so.8", "libffi8"),
        ("libz.so.1", "zlib1g"),
    ];
    PACKAGES.iter().find(|(name, _)| *name == library).map(|(_, package)| *package)
}

/// Go: `panic: …` or `fatal error: …`, perhaps the signal, then each goroutine's stack
/// (runtime/panic.go).
fn go(lines: &[String]) -> Option<Said> {
    let stack =
        lines.iter().position(|line| line.starts_with("goroutine ") && line.ends_with("]:"))?;
    let is_trace = |line: &String| {
        let line = line.trim_end();
        is_frame(line)
            || line.is_empty()
            || line.starts_with('\t')
            || line.starts_with("goroutine ")
            || line.starts_with("created by ")
            || line.starts_with("exit status ")
            || line.starts_with("...")
            || line.ends_with(')')
            // The registers, after a fault.
            || line.split_whitespace().nth(1).is_some_and(|word| word.starts_with("0x"))
    };
    if !lines[stack..].iter().all(is_trace) {
        return None;
    }
    let begins = |line: &String| {
        let line = line.trim_start();
        line.starts_with("panic: ") || line.starts_with("fatal error: ")
    };
    let at = lines[..stack].iter().rposition(begins)?;
    let report = lines[at..stack].iter().take_while(|line| !line.starts_with("runtime stack:"));
    let report: Vec<&str> =
        report.map(|line| line.trim()).filter(|line| !line.is_empty()).collect();
    let line = report.join(" ");
    let cause = match () {
        () if line.contains("out of memory") => Cause::OutOfMemory,
        () if line.contains("stack overflow") => Cause::StackOverflow,
        () if line.contains("invalid memory address") => Cause::BadMemoryAccess,
        () if line.contains("deadlock") => Cause::FailedCheck,
        () => Cause::UncaughtException,
    };
    Some(said(cause, &line))
}

/// V8's last resort: a block of lines that begin with `#` (src/base/logging.cc). The JVM's is alike
/// (src/hotspot/share/utilities/vmError.cpp).
fn v8(lines: &[String]) -> Option<Said> {
    const BEGIN: [&str; 3] =
        ["# Fatal error in", "# A fatal error has been detected", "# Fatal javascript OOM in"];
    let at = lines.iter().rposition(|line| BEGIN.iter().any(|phrase| line.starts_with(phrase)))?;
    let end = lines::last_meaningful(lines)?;
    let block = lines.get(at + 1..=end)?;
    let is_reason =
        |line: &String| line.starts_with('#') && line.trim_start_matches('#').trim().len() > 1;
    let reason = block.iter().position(is_reason)?;
    // Its message may have more lines, without the sign.
    let goes_on = block[reason + 1..].iter().take_while(|line| !line.starts_with('#')).count();
    let rest = &block[reason + 1 + goes_on..];
    if goes_on > MESSAGE || rest.iter().any(|line| !line.is_empty() && !line.starts_with('#')) {
        return None;
    }
    let line = &block[reason];
    let mut line = line.trim_start_matches('#').trim().to_owned();
    if let Some(next) = rest.first().filter(|_| line.starts_with("Internal Error")) {
        line = format!("{line} {}", next.trim_start_matches('#').trim());
    }
    let cause = match () {
        () if lines[at].contains("OOM")
            || line.contains("out of memory")
            || line.contains("OutOfMemory") =>
        {
            Cause::OutOfMemory
        }
        () if line.starts_with("SIG") => Cause::Aborted,
        () => Cause::FailedCheck,
    };
    Some(said(cause, &line))
}

/// Java: the exception, its stack, and what it was caused by, each with a stack.
fn java(lines: &[String]) -> Option<Said> {
    let at = lines.iter().rposition(|line| line.starts_with("Exception in thread \""))?;
    let belongs =
        |line: &String| is_frame(line) || line.trim().is_empty() || line.starts_with("Caused by: ");
    // Its message may have more lines, above the stack.
    let goes_on = lines[at + 1..].iter().position(belongs).unwrap_or(0);
    let rest = &lines[at + 1 + goes_on..];
    if goes_on > MESSAGE || !rest.iter().all(belongs) {
        return None;
    }
    let head: Vec<&str> = lines[at..=at + goes_on].iter().map(|line| line.trim()).collect();
    let head = head.join(" ");
    let line = match rest.iter().rfind(|line| line.starts_with("Caused by: ")) {
        Some(root) => format!("{head} ({})", root.trim()),
        None => head,
    };
    let has = |phrase: &str| line.contains(phrase);
    let cause = match () {
        () if has("OutOfMemoryError") => Cause::OutOfMemory,
        () if has("StackOverflowError") => Cause::StackOverflow,
        () if has("NoClassDefFoundError")
            || has("ClassNotFoundException")
            || has("UnsatisfiedLinkError") =>
        {
            Cause::MissingLibrary
        }
        () if has("UnsupportedClassVersionError") => Cause::SyntaxError,
        () if has("BindException") => Cause::AlreadyInUse,
        () if has("AssertionError") => Cause::FailedCheck,
        () => Cause::UncaughtException,
    };
    Some(said(cause, &line))
}

/// A sanitizer's report begins with what it found and ends with a summary of it.
fn sanitizer(lines: &[String]) -> Option<Said> {
    let summary = lines
        .iter()
        .rposition(|line| line.starts_with("SUMMARY: ") && line.contains("Sanitizer: "))?;
    let aborting = |line: &String| line.trim().is_empty() || line.ends_with("==ABORTING");
    if !lines[summary + 1..].iter().all(aborting) {
        return None;
    }
    let found = lines[..summary].iter().rfind(|line| line.contains("Sanitizer: "));
    Some(said(Cause::FailedCheck, found.unwrap_or(&lines[summary]).trim()))
}

/// Python: below the last stack stands the exception, whose message may have several lines.
fn python(lines: &[String]) -> Option<Said> {
    let stack =
        lines.iter().rposition(|line| line.starts_with("Traceback (most recent call last"))?;
    let at = stack + 1 + lines[stack + 1..].iter().position(|line| !line.starts_with(' '))?;
    let rest = lines.get(at + 1..).unwrap_or_default();
    let meaningful: Vec<&str> =
        rest.iter().map(|line| line.trim()).filter(|line| !error_lines::is_hint(line)).collect();
    if meaningful.is_empty()
        || meaningful.len() > MESSAGE
        || meaningful.iter().any(|line| is_other_report(line))
        || (stack > 0 && lines[stack - 1].starts_with("Exception ignored in"))
    {
        return None;
    }
    let line = format!("{} {}", lines[at].trim(), meaningful.join(" "));
    let name = lines[at].split([':', ' ']).next().unwrap_or_default();
    let cause = match name.rsplit('.').next().unwrap_or_default() {
        "ModuleNotFoundError" | "ImportError" => Cause::MissingLibrary,
        "MemoryError" => Cause::OutOfMemory,
        "RecursionError" => Cause::StackOverflow,
        "AssertionError" => Cause::FailedCheck,
        "PermissionError" => Cause::PermissionDenied,
        _ => Cause::UncaughtException,
    };
    Some(said(cause, &line))
}

/// A line that begins a report of its own, rather than going on with an exception's message: a level
/// or a time stands first.
fn is_other_report(line: &str) -> bool {
    const LEVELS: [&str; 11] = [
        "fatal", "error", "warn", "info", "debug", "critical", "notice", "panic", "trace", "[",
        "npm ",
    ];
    let lower = line.to_ascii_lowercase();
    let year = line.chars().take_while(char::is_ascii_digit).count() == 4;
    year || LEVELS.iter().any(|level| lower.starts_with(level))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<(Cause, String)> {
        patterns::read_by(reason, text)
    }

    #[test]
    fn the_line_that_says_why_is_found_in_each_report() {
        let cases = [
            (
                "listening\npanic: open /etc/x: no such file\n\ngoroutine 1 [running]:\nmain.main()\n\t/src/a.go:7 +0x1d\nexit status 2",
                Cause::UncaughtException,
                "panic: open /etc/x: no such file",
            ),
            (
                "panic: runtime error: invalid memory address or nil pointer dereference\n[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x46]\n\ngoroutine 1 [running]:\nmain.f(...)\n\t/a.go:4\nmain.main()\n\t/a.go:8 +0x12",
                Cause::BadMemoryAccess,
                "panic: runtime error: invalid memory address or nil pointer dereference [signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x46]",
            ),
            (
                "fatal error: all goroutines are asleep - deadlock!\n\ngoroutine 1 [chan receive]:\nmain.main()\n\t/a.go:5 +0x25",
                Cause::FailedCheck,
                "fatal error: all goroutines are asleep - deadlock!",
            ),
            (
                "#\n# Fatal error in , line 0\n# Check failed: a > b.\n#\n#\n#\n#FailureMessage Object: 0x7ffd1\n----- Native stack trace -----\n\n 1: 0xb [node]\n",
                Cause::FailedCheck,
                "Check failed: a > b.",
            ),
            (
                "\n\n#\n# Fatal error in , line 0\n# Flag --a: value implied by --b conflicts.\nIf a test variant caused this, look there.\n#\n#\n#\n#FailureMessage Object: 0x7ffe\n----- Native stack trace -----\n\n 1: 0xd32b41  [node]\n 2: 0x214a881 V8_Fatal(char const*, ...) [node]",
                Cause::FailedCheck,
                "Flag --a: value implied by --b conflicts.",
            ),
            (
                "Exception in thread \"main\" java.lang.IllegalStateException: no\n\tat A.main(A.java:3)\nCaused by: java.io.IOException: disk full\n\tat A.f(A.java:9)\n\t... 1 more",
                Cause::UncaughtException,
                "Exception in thread \"main\" java.lang.IllegalStateException: no (Caused by: java.io.IOException: disk full)",
            ),
            (
                "Exception in thread \"main\" java.lang.StackOverflowError\n\tat A.f(A.java:3)\n    ... 1015 more of this stack\n\tat A.f(A.java:3)",
                Cause::StackOverflow,
                "Exception in thread \"main\" java.lang.StackOverflowError",
            ),
            (
                "fatal error: concurrent map writes\ngoroutine 7 [running]:\nmain.f(...)\n    ... 66 more of this stack\n\t/a.go:8 +0x12",
                Cause::UncaughtException,
                "fatal error: concurrent map writes",
            ),
            (
                "Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\nRuntimeError: first\nsecond",
                Cause::UncaughtException,
                "RuntimeError: first second",
            ),
            (
                "==7==ERROR: AddressSanitizer: heap-use-after-free on address 0x60\n    #0 0x1 in main a.c:3\nSUMMARY: AddressSanitizer: heap-use-after-free a.c:3 in main\n==7==ABORTING",
                Cause::FailedCheck,
                "==7==ERROR: AddressSanitizer: heap-use-after-free on address 0x60",
            ),
        ];
        for (text, cause, line) in cases {
            assert_eq!(of(text), Some((cause, line.to_owned())), "{text}");
        }
    }

    #[test]
    fn a_library_that_is_not_there_is_named_with_its_package_wherever_it_is_reported() {
        let text = "Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\n    import cv2\nImportError: libGL.so.1: cannot open shared object file: No such file or directory";
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let found = reason(&lines).unwrap();
        assert_eq!(found.cause, Cause::MissingLibrary);
        assert!(found.advice.unwrap().contains("Debian's package libgl1"));
        let loader = ["a.so.tool: error while loading shared libraries: libfoo.so.7: cannot open shared object file: No such file".to_owned()];
        assert!(reason(&loader).unwrap().advice.unwrap().contains("contains libfoo.so.7"));
    }

    #[test]
    fn a_report_that_was_survived_is_none() {
        for text in [
            "panic: x\n\ngoroutine 1 [running]:\nmain.main()\n\t/a.go:7\nrecovered, going on\nbye",
            "Traceback (most recent call last):\n  File \"a.py\"\nKeyError: 'x'\nERROR:root:gave up",
            "libx.so: cannot open shared object file\na\nb\nc\nd",
            "Exception in thread \"w\" java.lang.Error: x\n\tat A.f(A.java:1)\nshutting down",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
