//! What programs say themselves, in words of many kinds.

use super::*;

#[test]
fn text_that_only_sounds_like_a_cause_is_the_program_s_own_message() {
    for line in [
        "Assertion of identity failed; please sign in again",
        "error: syntax error in the account name",
        "nothing panicked at the server; account locked",
        "MemoryErrorPlugin was not loaded",
        "error: your plan is out of memory credits",
    ] {
        let why = exited(1, &[line]);
        assert_eq!(why.cause, Cause::EndedBySelf, "{}", why.sentence);
        assert!(why.sentence.ends_with(line), "{}", why.sentence);
    }
    // Python reports this one and continues.
    let ignored = [
        "Exception ignored in: <function A.__del__ at 0x7f>",
        "Traceback (most recent call last):",
        "  File \"a.py\", line 3, in __del__",
        "ValueError: x",
    ];
    assert_eq!(exited(3, &ignored).cause, Cause::EndedBySelf);
}

#[test]
fn what_each_runtime_says_about_memory() {
    for line in [
        "fatal error: runtime: out of memory",
        "Could not reserve enough space for 102400000KB object heap",
        "Terminating due to java.lang.OutOfMemoryError: Java heap space",
        "bash: xrealloc: cannot allocate 26173440 bytes",
        "[FATAL] failed to allocate memory",
        "eheap_alloc: Cannot allocate 6801972448 bytes of memory (of type \"heap\").",
        "a: Heap exhausted;",
        "Fatal error: exception Out_of_memory",
        "zmalloc: Out of memory trying to allocate 1048576 bytes",
        "bash: fork: Cannot allocate memory",
        "Out of memory!",
    ] {
        assert_eq!(exited(1, &[line]).cause, Cause::OutOfMemory, "{line}");
    }
}

#[test]
fn a_loader_s_message_is_reported_with_its_meaning() {
    let of = |code, line: &str| {
        let why = exited(code, &[line]);
        (why.cause, why.sentence, why.advice.unwrap_or_default())
    };
    let (cause, _, advice) = of(
        1,
        "ImportError: libstdc++.so.6: version `GLIBCXX_3.4.32' not found (required by /usr/lib/x.so)",
    );
    assert_eq!(cause, Cause::MissingLibrary);
    assert!(!advice.contains("C library"), "{advice}");
    let (_, _, advice) = of(1, "a: libm.so.6: version `GLIBC_2.38' not found (required by a)");
    assert!(advice.contains("C library"), "{advice}");
    let (_, sentence, _) =
        of(127, "Error relocating /usr/bin/acme: __memcpy_chk: symbol not found");
    assert!(sentence.starts_with("server could not start: "), "{sentence}");
    // A symbol is looked up when it is first used.
    let (_, sentence, _) = of(127, "acme: symbol lookup error: libx.so: undefined symbol: f");
    assert!(sentence.starts_with("server exited with code 127"), "{sentence}");
    let (_, sentence, _) = of(127, "Cannot find module 'optional', going on");
    assert!(sentence.starts_with("server exited with code 127"), "{sentence}");
    let (cause, ..) = of(1, "ImportError: /usr/lib/x.so: wrong ELF class: ELFCLASS32");
    assert_eq!(cause, Cause::NotExecutable);
    let (cause, ..) = of(126, "bash: ./a: /opt/node: bad interpreter: No such file or directory");
    assert_eq!(cause, Cause::MissingInterpreter);
    let (cause, _, advice) = of(127, "/usr/bin/env: 'node\\r': No such file or directory");
    assert!(cause == Cause::MissingInterpreter && advice.contains("LF line endings"), "{advice}");
}

#[test]
fn a_shell_s_code_is_taken_for_one_only_where_its_message_fits() {
    let why = exited(127, &["bash: line 1: NOPE: unbound variable"]);
    assert_eq!(why.cause, Cause::EndedBySelf, "{}", why.sentence);
    let why = exited(127, &["bash: line 1: acme: command not found"]);
    assert_eq!(why.cause, Cause::MissingProgram, "{}", why.sentence);
    // Of no signal that ends a process: .NET's own code.
    let why = exited(150, &["You must install or update .NET to run this application."]);
    assert!(!why.sentence.contains("signal"), "{}", why.sentence);
    let why = exited(131, &[]);
    assert!(why.sentence.contains("but any program may use it"), "{}", why.sentence);
}

#[test]
fn only_the_last_line_is_called_the_last_line() {
    let why = exited(0, &["e3: line 2: set: -: invalid option", "hi"]);
    assert!(why.sentence.ends_with("; its last line: hi"), "{}", why.sentence);
    let why = exited(131, &["fatal: no runtime", "See https://acme.test"]);
    assert!(
        why.sentence.ends_with("; among its last lines: fatal: no runtime"),
        "{}",
        why.sentence
    );
    // A service's hints are none, too.
    let why = exited(2, &["error: unknown option '--web'", "For more information, try '--help'."]);
    assert!(why.sentence.ends_with("reported: error: unknown option '--web'"), "{}", why.sentence);
    let why = exited(2, &["error: these arguments were not provided:", "  --account <ACCOUNT>"]);
    assert!(why.sentence.ends_with("not provided: --account <ACCOUNT>"), "{}", why.sentence);
}

#[test]
fn a_trap_without_a_core_dump_is_reported_by_the_message_before_it() {
    let of = |signal, line: &str| {
        let (exit, lines) = (Some(ProcessExit::Signalled { signal }), [line.to_owned()]);
        let why = explain(&death(exit, &lines, &Evidence::default()));
        (why.cause, why.sentence)
    };
    let (cause, sentence) = of(5, "FATAL ERROR: Allocation failed - JavaScript heap out of memory");
    assert_eq!(cause, Cause::OutOfMemory, "{sentence}");
    let (cause, sentence) = of(5, "[77:1127/1.0:FATAL:sandbox.cc(158)] no sandbox");
    assert!(cause == Cause::FailedCheck && sentence.contains("its last message"), "{sentence}");
    let (cause, sentence) = of(4, "starting up");
    assert!(cause == Cause::Unknown && sentence.ends_with("its last line: starting up"));
    assert_eq!(of(11, "Check failed: x").0, Cause::Unknown, "it may have been survived");
    let (_, sentence) = of(6, "/srv/a.rb:3: [BUG] Segmentation fault at 0x0000000000000008");
    assert!(sentence.contains("caught signal 11 (SIGSEGV), reported it"), "{sentence}");
}

#[test]
fn what_a_parent_reports_of_its_child_s_fault_is_not_its_own() {
    let lines = ["worker: Segmentation fault at address 0x0", "Error: the worker is gone"];
    let why = exited(1, &lines);
    assert_eq!(why.cause, Cause::EndedBySelf, "{}", why.sentence);
}

#[test]
fn messages_of_several_lines_are_quoted_whole() {
    let cases: [(i32, &[&str], &str); 4] = [
        (
            101,
            &[
                "thread 'main' panicked at a.rs:3:5:",
                "one",
                "two",
                "note: run with `RUST_BACKTRACE=1`",
            ],
            "thread 'main' panicked at a.rs:3:5: one two",
        ),
        (
            1,
            &["^", "Error: first", "second", "    at f (a.js:1)", "Node.js v20.1"],
            "last message: Error: first second",
        ),
        (
            1,
            &["Exception in thread \"main\" java.lang.Error: first", "second", " at A.f(A.java:1)"],
            "java.lang.Error: first second",
        ),
        (
            2,
            &["fatal error: runtime: out of memory", "runtime stack:", "goroutine 1 [running]:"],
            "of memory",
        ),
    ];
    for (code, lines, end) in cases {
        let why = exited(code, lines);
        assert!(why.sentence.ends_with(end), "{}", why.sentence);
    }
}
