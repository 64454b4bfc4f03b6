//! Lines of stack traces, as runtimes print them for each frame.

use super::lines::is_numbered_frame;

/// Whether a line is one frame of a stack, or its place: of Java, .NET and JavaScript (`at …`), Rust, C++'s
/// sanitizers and PHP (numbered), Go (`main.f(…)`, its place in a `.go` file), Ruby (`from …`), Perl and
/// Haskell (`called at`), OCaml (`Called from`). Stricter than what is passed over when a reason is looked
/// for: what is indented may be a cause.
pub fn is_stack_line(line: &str) -> bool {
    let text = line.trim_start();
    let indented = text.len() < line.len();
    text.starts_with("at ")
        || text.starts_with("Called from ")
        || (indented && (text.starts_with("from ") || text.contains("called at ")))
        || is_numbered_frame(text)
        || is_of_go(text, indented)
}

/// runtime/traceback.go: a goroutine's heading, a function with its arguments, the place below it.
fn is_of_go(text: &str, indented: bool) -> bool {
    if indented {
        return text.contains(".go:") && !text.contains(": ");
    }
    let name = text.split('(').next().unwrap_or_default();
    (text.starts_with("goroutine ") && text.ends_with("]:"))
        || text.starts_with("created by ")
        || (text.ends_with(')') && name.contains('.') && !name.contains(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_distinguished_from_lines_that_say_why() {
        for line in [
            "\tat com.acme.Main.f(Main.java:3)",
            "    at Object.<anonymous> (/srv/a.js:1:7)",
            "             at /rustc/5980/library/core/src/panicking.rs:80:14",
            "   3: core::panicking::panic_fmt",
            "    #1 0x55d0 in main /a.c:3",
            "#0 /srv/a.php(3): f()",
            "goroutine 18 [select, 2 minutes]:",
            "main.(*Server).run(0xc000012, {0x4d, 0x5})",
            " /srv/main.go:12 +0x1d",
            "created by main.main in goroutine 1",
            "\tfrom a.rb:3:in `f'",
            "\tmain::f(1) called at a.pl line 3",
        ] {
            assert!(is_stack_line(line), "{line}");
        }
        for line in [
            "Exception in thread \"main\" java.lang.StackOverflowError",
            "Caused by: java.io.IOException: disk full",
            "  [cause]: Error: refused",
            "panic: no (1)",
            "fatal error: all goroutines are asleep - deadlock!",
            "  main.go:3: undefined: x",
            "error: at least one is needed",
            "10 sign-ins were refused",
            "#!/bin/sh",
            "  - from: the store",
            "listening on 127.0.0.1 (ready)",
        ] {
            assert!(!is_stack_line(line), "{line}");
        }
    }
}
