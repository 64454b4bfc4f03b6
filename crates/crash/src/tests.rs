//! The sentences, as an operator reads them.

use anteroom_guest_protocol::{
    Evidence, Fault, Mapping, NotStarted, OutOfMemory, ProcessExit, Stall,
};

use anteroom_session::{Cause, Confidence};

use super::*;

mod own_messages;

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
        "server crashed with an illegal instruction: `vpmovzxbd ymm0, [rax]` at \
         libfoo.so.1+0x2234 needs AVX2; this VM's CPU profile x86-64-v2 lacks AVX2"
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
    assert!(
        why.sentence.contains("on purpose (ud2 at libfoo.so.1+0x2234), not because of a missing")
    );
    assert_eq!(signalled(5, &with(fault(5, 128, "90")), None).cause, Cause::DeliberateTrap);
}

#[test]
fn a_signal_that_a_process_sent_is_not_the_processor_s() {
    let why = signalled(11, &with(fault(11, 0, "90")), None);
    assert_eq!(why.cause, Cause::KilledBySignal);
    assert!(why.sentence.contains("a process sent the signal"), "{}", why.sentence);
}

#[test]
fn null_stack_and_jumps_are_distinguished() {
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
fn memory_watchdog_and_failed_starts_are_reported_by_their_evidence() {
    let line = "Memory cgroup out of memory: Killed process 77 (server)".to_owned();
    let oom = OutOfMemory { line, child: None, limit: Some(512 << 20), peak: Some(511 << 20) };
    let evidence = Evidence { out_of_memory: Some(oom.clone()), ..Evidence::default() };
    let why = signalled(9, &evidence, None);
    assert_eq!(
        why.sentence,
        "server was killed by the kernel: out of memory; its memory limit is 512 MiB; its peak was 511 MiB"
    );
    // Not by its own limit.
    let line = "Out of memory: Killed process 77 (server)".to_owned();
    let of_all = Evidence {
        out_of_memory: Some(OutOfMemory { line, ..oom.clone() }),
        ..Evidence::default()
    };
    let why = signalled(9, &of_all, None);
    assert!(why.sentence.contains("the whole VM ran out"), "{}", why.sentence);
    assert!(why.advice.unwrap().contains("--memory-mib"));
    let of_group = OutOfMemory { limit: None, ..oom.clone() };
    let of_group = Evidence { out_of_memory: Some(of_group), ..Evidence::default() };
    let why = signalled(9, &of_group, None);
    assert!(why.sentence.contains("a control group reached its memory limit"), "{}", why.sentence);
    for (begins, phrase) in [("7f454c4602010100", "truncated or damaged"), ("efbbbf23212f", "mark")]
    {
        let (program, begins_with) = ("/opt/a".into(), begins.into());
        let not_started = Some(NotStarted::NotAProgram { program, begins_with });
        let why = explain(&death(None, &[], &Evidence { not_started, ..Evidence::default() }));
        assert!(why.sentence.contains(phrase) && why.advice.is_some(), "{}", why.sentence);
    }
    let of_child = OutOfMemory { child: Some("worker".into()), ..oom.clone() };
    let child = Evidence { out_of_memory: Some(of_child), ..Evidence::default() };
    let why = explain(&death(Some(ProcessExit::Exited { code: 1 }), &[], &child));
    assert_eq!((why.cause, why.confidence), (Cause::OutOfMemory, Confidence::Likely));
    assert_eq!(
        why.sentence,
        "server exited with code 1 just after the kernel killed worker, a process in its process \
         group: out of memory; its memory limit is 512 MiB; its peak was 511 MiB"
    );
    let stall = Stall {
        silent_ms: 30_000,
        asked: "port 80".into(),
        was_ready: true,
        state: "S".into(),
        system_call: Some(202),
        waits_in: None,
        children: Vec::new(),
    };
    let evidence = Evidence { stall: Some(stall), ..Evidence::default() };
    let why = signalled(9, &evidence, None);
    assert!(why.sentence.contains("stopped responding for 30 s"), "{}", why.sentence);
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
fn programs_own_messages_are_understood_and_others_only_quoted() {
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
    assert!(why.sentence.ends_with("; it reported: fatal: upstream closed"));
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
fn without_a_core_dump_a_signal_that_anybody_may_send_is_reported_as_likely() {
    for signal in [6, 13, 14, 24, 25] {
        let why = signalled(signal, &Evidence::default(), None);
        assert_eq!(why.confidence, Confidence::Likely, "{}", why.sentence);
        assert!(why.sentence.contains("unless a process sent the signal"), "{}", why.sentence);
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
    assert!(why.sentence.contains("lacks") && why.sentence.contains("SSE4.2"), "{}", why.sentence);
    let why = of(Some(&cpu("x86-64-v3")));
    assert_eq!((why.cause, why.confidence), (Cause::Unknown, Confidence::Unknown));
    assert!(
        why.sentence.ends_with("has every feature that this needs, so the cause is unknown"),
        "{}",
        why.sentence
    );
    let why = of(None);
    assert!(why.sentence.ends_with("its processor's features are unknown"), "{}", why.sentence);
}

#[test]
fn what_was_printed_is_reported_only_where_it_was_seen() {
    let evidence = with(fault(6, -6, "90"));
    let exit = Some(ProcessExit::Signalled { signal: 6 });
    let seen = explain(&death(exit, &[], &evidence));
    assert!(seen.sentence.ends_with("; it printed nothing"), "{}", seen.sentence);
    let unseen = explain(&Death { last_lines: None, ..death(exit, &[], &evidence) });
    assert!(unseen.sentence.ends_with("its output was not captured"), "{}", unseen.sentence);
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
    assert!(why.sentence.contains("used 0x4141414141414141, which is not a valid address"));
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
    assert!(why.sentence.contains("reserved for the kernel"), "{}", why.sentence);
}
