//! The sentences, as an operator reads them.

use anteroom_guest_protocol::{
    Evidence, Fault, Hung, Mapping, NotStarted, OutOfMemory, ProcessExit,
};

use anteroom_session::{Cause, Confidence};

use super::*;

fn death<'a>(exit: Option<ProcessExit>, lines: &'a [String], evidence: &'a Evidence) -> Death<'a> {
    Death {
        service: "server",
        exit,
        lived_ms: Some(300),
        last_lines: Some(lines),
        evidence,
        cpu: None,
    }
}

fn exited(code: i32, lines: &[&str]) -> Explanation {
    let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    explain(&death(Some(ProcessExit::Exited { code }), &lines, &Evidence::default()))
}

fn signalled(signal: i32, evidence: &Evidence, cpu: Option<&Cpu>) -> Explanation {
    let exit = Some(ProcessExit::Signalled { signal });
    explain(&Death { cpu, ..death(exit, &[], evidence) })
}

/// A processor of the psABI's level: what `anteroom-cpu` calls it.
fn cpu(profile: &str) -> Cpu {
    let profile = anteroom_cpu::CpuProfile::named(profile).unwrap();
    Cpu { name: format!("this VM's CPU profile {}", profile.name), profile }
}

fn fault(signal: i32, code: i32, instruction: &str) -> Fault {
    Fault {
        signal,
        code,
        address: 0x7f00_0000_1234,
        sender: None,
        thread: "server".into(),
        program: "/usr/bin/server".into(),
        instruction_pointer: 0x7f00_0000_1234,
        stack_pointer: 0x7ffd_0000_8000,
        registers: vec![0; 27],
        instruction: instruction.into(),
        code_mapping: Some(Mapping {
            start: 0x7f00_0000_0000,
            end: 0x7f00_0001_0000,
            permissions: "r-x".into(),
            file_offset: 0x1000,
            path: "/usr/lib/libfoo.so.1".into(),
            build_id: Some("abcd".into()),
        }),
        near_address: None,
        symbol: None,
        last_message: None,
        unseen: vec![],
    }
}

fn with(fault: Fault) -> Evidence {
    Evidence { fault: Some(Box::new(fault)), ..Evidence::default() }
}

#[test]
fn an_instruction_that_the_processor_lacks_is_named_with_what_it_needs() {
    // vpmovzxbd ymm0, [rax]
    let avx2 = with(fault(4, 2, "c4e27d3100"));
    let why = signalled(4, &avx2, Some(&cpu("x86-64-v2")));
    assert_eq!(why.cause, Cause::MissingCpuFeature);
    assert_eq!(
        why.sentence,
        "server was stopped by an illegal instruction: `vpmovzxbd ymm0, [rax]` at \
         libfoo.so.1+0x2234 needs AVX2; this VM's CPU profile x86-64-v2 has no AVX2"
    );
    assert!(why.evidence.iter().any(|line| line.contains("build id abcd")), "{:?}", why.evidence);
    // The same where the processor has it is not understood, and says so.
    let why = signalled(4, &avx2, Some(&cpu("x86-64-v3")));
    assert_eq!((why.cause, why.confidence), (Cause::BadInstruction, Confidence::Unknown));
    // And nothing is claimed of a processor that nobody asked.
    assert_eq!(signalled(4, &avx2, None).confidence, Confidence::Unknown);
}

#[test]
fn a_deliberate_trap_is_no_missing_feature() {
    let why = signalled(4, &with(fault(4, 2, "0f0b")), Some(&cpu("x86-64-v1")));
    assert_eq!(why.cause, Cause::DeliberateTrap);
    assert!(why.sentence.contains("deliberate abort (ud2) in libfoo.so.1+0x2234, not a missing"));
    assert_eq!(signalled(5, &with(fault(5, 128, "90")), None).cause, Cause::DeliberateTrap);
}

#[test]
fn a_signal_that_a_process_sent_is_not_the_processor_s() {
    let why = signalled(11, &with(fault(11, 0, "90")), None);
    assert_eq!(why.cause, Cause::KilledBySignal);
    assert!(why.sentence.contains("a process sent it"), "{}", why.sentence);
}

#[test]
fn null_stack_and_jumps_are_told_apart() {
    let mut null = fault(11, 1, "488b00");
    null.address = 8;
    let why = signalled(11, &with(null), None);
    assert!(why.sentence.contains("it read address 0x8, a null pointer, in libfoo.so.1+0x2234"));
    let mut stack = fault(11, 1, "e800000000");
    stack.stack_pointer = 0x7ffc_ffff_fff8;
    stack.address = 0x7ffc_ffff_fff0;
    stack.near_address = Some(Mapping {
        start: 0x7ffd_0000_0000,
        end: 0x7ffd_0080_0000,
        permissions: "rw-".into(),
        file_offset: 0,
        path: String::new(),
        build_id: None,
    });
    assert_eq!(signalled(11, &with(stack), None).cause, Cause::StackOverflow);
    let mut jump = fault(11, 1, "");
    jump.code_mapping = None;
    let why = signalled(11, &with(jump), None);
    assert!(why.sentence.contains("it jumped to 0x7f0000001234, where nothing is mapped"));
}

#[test]
fn memory_watchdog_and_failed_starts_are_told_by_their_evidence() {
    let line = "Memory cgroup out of memory: Killed process 77 (server)".to_owned();
    let oom = OutOfMemory { line, child: None, limit: Some(512 << 20), peak: Some(511 << 20) };
    let evidence = Evidence { out_of_memory: Some(oom.clone()), ..Evidence::default() };
    let why = signalled(9, &evidence, None);
    assert_eq!(
        why.sentence,
        "server was killed by the kernel: out of memory, limit 512 MiB, peak 511 MiB"
    );
    let of_child = OutOfMemory { child: Some("worker".into()), ..oom.clone() };
    let child = Evidence { out_of_memory: Some(of_child), ..Evidence::default() };
    let why = explain(&death(Some(ProcessExit::Exited { code: 1 }), &[], &child));
    assert_eq!((why.cause, why.confidence), (Cause::OutOfMemory, Confidence::Likely));
    assert_eq!(
        why.sentence,
        "server exited with code 1 just after the kernel killed worker, a process of its group: \
         out of memory, limit 512 MiB, peak 511 MiB"
    );
    let hung = Hung {
        silent_ms: 30_000,
        asked: "port 80".into(),
        was_ready: true,
        state: "S".into(),
        system_call: Some(202),
        waits_in: None,
        children: Vec::new(),
    };
    let evidence = Evidence { hung: Some(hung), ..Evidence::default() };
    let why = signalled(9, &evidence, None);
    assert!(why.sentence.contains("stopped answering for 30 s"), "{}", why.sentence);
    assert!(why.sentence.contains("main thread was in futex wait"), "{}", why.sentence);
    let not_started =
        NotStarted::NoInterpreter { program: "/opt/a".into(), interpreter: "/usr/bin/node".into() };
    let evidence = Evidence { not_started: Some(not_started), ..Evidence::default() };
    let why = explain(&death(None, &[], &evidence));
    assert!(why.sentence.contains("the interpreter /usr/bin/node of /opt/a does not exist"));
    let interpreter = "/lib/ld-musl-x86_64.so.1".into();
    let not_started = NotStarted::NoInterpreter { program: "/opt/a".into(), interpreter };
    let evidence = Evidence { not_started: Some(not_started), ..Evidence::default() };
    let advice = explain(&death(None, &[], &evidence)).advice.unwrap();
    assert!(advice.contains("C library") && !advice.contains("first line"), "{advice}");
}

#[test]
fn programs_own_words_are_understood_and_others_only_quoted() {
    let cases = [
        (1, "SyntaxError: Unexpected token '.'", Cause::SyntaxError),
        (
            127,
            "a: error while loading shared libraries: libx.so.2: cannot open",
            Cause::MissingLibrary,
        ),
        (101, "thread 'main' panicked at src/main.rs:3:5:", Cause::FailedCheck),
        (1, "Error: listen EADDRINUSE: address already in use 127.0.0.1:80", Cause::AlreadyInUse),
        (1, "no offer", Cause::EndedBySelf),
        (134, "panic(main thread): Segmentation fault at address 0x0", Cause::Aborted),
    ];
    for (code, line, cause) in cases {
        let why = exited(code, &[line]);
        assert_eq!(why.cause, cause, "{}", why.sentence);
        assert!(why.sentence.contains(line.trim()), "{}", why.sentence);
    }
    assert_eq!(exited(3, &[]).confidence, Confidence::Unknown);
    assert_eq!(exited(0, &["bye"]).cause, Cause::EndedBySelf);
}

#[test]
fn what_a_program_survived_is_not_why_it_died() {
    let survived =
        ["optional plugin: Cannot find module 'x', going on without", "fatal: upstream closed"];
    let why = exited(1, &survived);
    assert_eq!(why.cause, Cause::EndedBySelf, "{}", why.sentence);
    assert!(why.sentence.ends_with("after its own message: fatal: upstream closed"));
    let node = [
        "Error: Cannot find module 'x'",
        "Require stack:",
        "- /a.js",
        "    at f (a.js:1)",
        "}",
        "",
        "Node.js v20.1",
    ];
    assert_eq!(exited(1, &node).cause, Cause::MissingLibrary);
    let port_taken = [
        "node:events:502",
        "      throw er; // Unhandled 'error' event",
        "      ^",
        "Error: listen EADDRINUSE: address already in use :::8094",
        "    at Server.setupListenHandle [as _listen2] (node:net:1908:16)",
        "Emitted 'error' event on Server instance at:",
        "    at emitErrorNT (node:net:1944:8)",
        "  port: 8094",
        "}",
        "Node.js v20.20.2",
    ];
    assert_eq!(exited(1, &port_taken).cause, Cause::AlreadyInUse);
    let denied = ["Error: EACCES: permission denied, open '/etc/shadow'", "    at f (a.js:1)"];
    assert_eq!(exited(1, &denied).cause, Cause::PermissionDenied);
    let heap = [
        "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory",
        "----- Native stack trace -----",
        " 1: 0xb78db3 node::OOMErrorHandler(char const*, v8::OOMDetails const&) [node]",
        "10: 0x195e476  [node]",
    ];
    let heap: Vec<String> = heap.iter().map(|line| (*line).to_owned()).collect();
    let aborted = Some(ProcessExit::Signalled { signal: 6 });
    let why = explain(&death(aborted, &heap, &Evidence::default()));
    assert!(why.cause == Cause::OutOfMemory && why.sentence.contains("Reached heap limit"));
    let rust = [
        "thread 'main' panicked at src/main.rs:3:5:",
        "out of tea",
        "note: run with `RUST_BACKTRACE=1`",
    ];
    let why = exited(101, &rust);
    assert!(why.cause == Cause::FailedCheck && why.sentence.ends_with("main.rs:3:5: out of tea"));
}

#[test]
fn without_a_core_dump_a_signal_that_anybody_may_send_is_told_as_likely() {
    for signal in [6, 13, 14, 24, 25] {
        let why = signalled(signal, &Evidence::default(), None);
        assert_eq!(why.confidence, Confidence::Likely, "{}", why.sentence);
        assert!(why.sentence.contains("unless a process sent it"), "{}", why.sentence);
    }
    let mut abort = fault(6, -6, "90");
    abort.sender = Some(anteroom_guest_protocol::Sender::Process(7));
    let why = signalled(6, &with(abort), None);
    assert_eq!(why.cause, Cause::KilledBySignal, "{}", why.sentence);
}

#[test]
fn an_exception_is_quoted_from_above_or_below_its_stack() {
    let python = ["Traceback (most recent call last):", "  File \"a.py\", line 1", "KeyError: 'x'"];
    let why = exited(1, &python);
    assert_eq!(why.cause, Cause::UncaughtException);
    assert!(why.sentence.ends_with("KeyError: 'x'"), "{}", why.sentence);
    let node = [
        "/a.js:1",
        "TypeError: x is not a function",
        "    at Object.<anonymous> (/a.js:1:1)",
        "Node.js v20.1",
    ];
    let why = exited(1, &node);
    assert!(why.sentence.ends_with("TypeError: x is not a function"), "{}", why.sentence);
}

#[test]
fn a_complaint_about_the_processor_is_held_to_it() {
    let lines = ["Fatal glibc error: CPU does not support x86-64-v2".to_owned()];
    let of = |cpu: Option<&Cpu>| {
        let evidence = Evidence::default();
        let exit = Some(ProcessExit::Exited { code: 127 });
        explain(&Death { cpu, ..death(exit, &lines, &evidence) })
    };
    let why = of(Some(&cpu("x86-64-v1")));
    assert_eq!((why.cause, why.confidence), (Cause::MissingCpuFeature, Confidence::Likely));
    assert!(why.sentence.contains("has no") && why.sentence.contains("SSE4.2"), "{}", why.sentence);
    let why = of(Some(&cpu("x86-64-v3")));
    assert_eq!((why.cause, why.confidence), (Cause::Unknown, Confidence::Unknown));
    assert!(
        why.sentence.ends_with("has all of that, which leaves it unexplained"),
        "{}",
        why.sentence
    );
    let why = of(None);
    assert!(why.sentence.ends_with("what its processor has is not known"), "{}", why.sentence);
}

#[test]
fn words_that_only_sound_like_a_cause_are_the_program_s_own_message() {
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
    // Python tells of this one and goes on.
    let ignored = [
        "Exception ignored in: <function A.__del__ at 0x7f>",
        "Traceback (most recent call last):",
        "  File \"a.py\", line 3, in __del__",
        "ValueError: x",
    ];
    assert_eq!(exited(3, &ignored).cause, Cause::EndedBySelf);
}

#[test]
fn what_is_said_of_memory_in_each_runtime_s_words() {
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
fn a_loader_s_words_are_told_with_what_they_mean() {
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
    assert!(sentence.starts_with("server exited 127"), "{sentence}");
    let (_, sentence, _) = of(127, "Cannot find module 'optional', going on");
    assert!(sentence.starts_with("server exited 127"), "{sentence}");
    let (cause, ..) = of(1, "ImportError: /usr/lib/x.so: wrong ELF class: ELFCLASS32");
    assert_eq!(cause, Cause::NotExecutable);
    let (cause, ..) = of(126, "bash: ./a: /opt/node: bad interpreter: No such file or directory");
    assert_eq!(cause, Cause::MissingInterpreter);
    let (cause, _, advice) = of(127, "/usr/bin/env: 'node\\r': No such file or directory");
    assert!(cause == Cause::MissingInterpreter && advice.contains("LF line ends"), "{advice}");
}

#[test]
fn a_shell_s_code_is_taken_for_one_only_where_the_words_beside_it_fit() {
    let why = exited(127, &["bash: line 1: NOPE: unbound variable"]);
    assert_eq!(why.cause, Cause::EndedBySelf, "{}", why.sentence);
    let why = exited(127, &["bash: line 1: acme: command not found"]);
    assert_eq!(why.cause, Cause::MissingProgram, "{}", why.sentence);
    // Of no signal that ends a process: .NET's own code.
    let why = exited(150, &["You must install or update .NET to run this application."]);
    assert!(!why.sentence.contains("signal"), "{}", why.sentence);
    let why = exited(131, &[]);
    assert!(why.sentence.contains("and any program what it likes"), "{}", why.sentence);
}

#[test]
fn the_last_line_is_the_last_one_and_another_is_told_as_that() {
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
    assert!(why.sentence.ends_with("message: error: unknown option '--web'"), "{}", why.sentence);
    let why = exited(2, &["error: these arguments were not provided:", "  --account <ACCOUNT>"]);
    assert!(why.sentence.ends_with("not provided: --account <ACCOUNT>"), "{}", why.sentence);
}

#[test]
fn a_trap_without_a_core_dump_is_told_by_the_words_before_it() {
    let of = |signal, line: &str| {
        let (exit, lines) = (Some(ProcessExit::Signalled { signal }), [line.to_owned()]);
        let why = explain(&death(exit, &lines, &Evidence::default()));
        (why.cause, why.sentence)
    };
    let (cause, sentence) = of(5, "FATAL ERROR: Allocation failed - JavaScript heap out of memory");
    assert_eq!(cause, Cause::OutOfMemory, "{sentence}");
    let (cause, sentence) = of(5, "[77:1127/1.0:FATAL:sandbox.cc(158)] no sandbox");
    assert!(cause == Cause::FailedCheck && sentence.contains("its last words"), "{sentence}");
    let (cause, sentence) = of(4, "starting up");
    assert!(cause == Cause::Unknown && sentence.ends_with("its last line: starting up"));
    assert_eq!(of(11, "Check failed: x").0, Cause::Unknown, "it may have been survived");
    let (_, sentence) = of(6, "/srv/a.rb:3: [BUG] Segmentation fault at 0x0000000000000008");
    assert!(sentence.contains("caught signal 11 (SIGSEGV) of its own"), "{sentence}");
}

#[test]
fn what_a_parent_tells_of_its_child_s_fault_is_not_its_own() {
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
            "last words: Error: first second",
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

#[test]
fn what_was_printed_is_told_only_where_it_was_seen() {
    let evidence = with(fault(6, -6, "90"));
    let exit = Some(ProcessExit::Signalled { signal: 6 });
    let seen = explain(&death(exit, &[], &evidence));
    assert!(seen.sentence.ends_with("and it printed nothing"), "{}", seen.sentence);
    let unseen = explain(&Death { last_lines: None, ..death(exit, &[], &evidence) });
    assert!(unseen.sentence.ends_with("what it printed was not seen"), "{}", unseen.sentence);
}

#[test]
fn the_registers_say_what_the_processor_refused() {
    let refused = |instruction: &str, rax: u64| {
        let mut fault = fault(11, 128, instruction);
        fault.registers[10] = rax;
        signalled(11, &with(fault), None)
    };
    // mov rax, [rax]
    let why = refused("488b00", 0x4141_4141_4141_4141);
    assert!(why.sentence.contains("used 0x4141414141414141, an address that no memory can have"));
    assert_eq!(why.confidence, Confidence::Certain);
    // movaps xmm0, [rax]
    let why = refused("0f2800", 0x7fff_0000_0008);
    assert!(why.sentence.contains("is not aligned to 16 bytes"), "{}", why.sentence);
    assert_eq!(refused("0f2800", 0x7fff_0000_0010).confidence, Confidence::Unknown);
    // movups never wants it.
    assert_eq!(refused("0f1000", 0x7fff_0000_0008).confidence, Confidence::Unknown);
    // hlt
    let why = refused("f4", 0);
    assert_eq!((why.cause, why.confidence), (Cause::BadInstruction, Confidence::Certain));
    assert!(why.sentence.contains("for the kernel alone"), "{}", why.sentence);
}
