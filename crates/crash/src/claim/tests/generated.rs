//! Generated evidence, biased to what the rules look for.

use anteroom_cpu::CpuProfile;
use anteroom_guest_protocol::{
    Evidence, Fault, Mapping, NotStarted, OutOfMemory, ProcessExit, Sender, Stall, Symbol,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use crate::fault::NULL_PAGE;
use crate::numbers::{BY_PROCESSES, NO_SI_CODE};
use crate::{Cpu, Death};

/// A death that owns what it consists of.
#[derive(Clone, Debug)]
pub struct Owned {
    exit: Option<ProcessExit>,
    lived_ms: Option<u64>,
    last_lines: Option<Vec<String>>,
    evidence: Evidence,
    cpu: Option<Cpu>,
}

impl Owned {
    pub fn death(&self) -> Death<'_> {
        Death {
            service: "injected",
            exit: self.exit,
            lived_ms: self.lived_ms,
            last_lines: self.last_lines.as_deref(),
            evidence: &self.evidence,
            cpu: self.cpu.as_ref(),
        }
    }
}

/// Lines that mean something to one rule or another; none has a word of `WORDS`.
const LINES: [&str; 33] = [
    "",
    "hello",
    "fatal: upstream closed",
    "Fatal glibc error: CPU does not support x86-64-v2",
    "RuntimeError: NumPy was built with baseline optimizations: ",
    "(X86_V2) but your machine doesn't support:",
    "(X86_V2).",
    "The following required CPU features were not detected:",
    "    avx2, fma",
    "panic: open /etc/x: no such file",
    "goroutine 1 [running]:",
    "main.main()",
    "\t/src/a.go:7 +0x1d",
    "# Fatal error in , line 0",
    "# Check failed: a > b.",
    "#FailureMessage Object: 0x7ffd1",
    "Traceback (most recent call last):",
    "  File \"a.py\", line 1, in <module>",
    "KeyError: 'x'",
    "ImportError: libGL.so.1: cannot open shared object file: No such file or directory",
    "Error: listen EADDRINUSE: address already in use",
    "    at f (a.js:1)",
    "terminate called after throwing an instance of 'std::bad_alloc'",
    "Fatal Python error: Segmentation fault",
    "a.c:4: main: Assertion `count == 7' failed.",
    "Exception in thread \"main\" java.lang.Error: x",
    "Caused by:",
    "    1: account is not eligible",
    "  [cause]: Error: refused",
    "  [errors]: [",
    "  + Exception Group Traceback (most recent call last):",
    "  | ExceptionGroup: two (2 sub-exceptions)",
    "For more information, try '--help'.",
];

/// `vpmovzxbd ymm0, [rax]`, `ud2`, `int3`, `hlt`, `mov rax, [rax]`, `mov [rax], rbx`, `movaps`,
/// `call`, `movsb`, `in al, dx`, `popcnt`, one that is none, and what is no hexadecimal.
const CODE: [&str; 15] = [
    "c4e27d3100",
    "0f0b",
    "cc",
    "f4",
    "488b00",
    "488918",
    "0f2800",
    "e800000000",
    "a4",
    "ec",
    "f30fb8d8",
    "06",
    "",
    "zz",
    "9",
];

pub fn deaths() -> impl Strategy<Value = Owned> {
    let code = prop_oneof![select(vec![0, 1, 2, 101, 126, 127, 134, 139]), any::<i32>()];
    let exit = prop_oneof![
        3 => code.prop_map(|code| Some(ProcessExit::Exited { code })),
        8 => signal_number().prop_map(|signal| Some(ProcessExit::Signalled { signal })),
        1 => Just(None),
    ];
    let line = prop_oneof![8 => select(&LINES[..]).prop_map(str::to_owned), 1 => "[ -~]{0,30}"];
    let lines = prop_oneof![1 => Just(None), 4 => vec(line, 0..8).prop_map(Some)];
    let cpus = vec!["x86-64-v1", "x86-64-v2", "x86-64-v4", "T2", "C3"];
    let cpu = of(select(cpus).prop_map(|name| Cpu {
        name: format!("the profile {name}"),
        profile: CpuProfile::named(name).unwrap(),
    }));
    (exit, of(0_u64..100_000), lines, evidence(), cpu).prop_map(
        |(exit, lived_ms, last_lines, mut evidence, cpu)| {
            // Most dumps are of the death that they come with.
            if let (Some(fault), Some(ProcessExit::Signalled { signal })) =
                (&mut evidence.fault, exit)
                && fault.stack_pointer % 8 != 0
            {
                fault.signal = signal;
            }
            Owned { exit, lived_ms, last_lines, evidence, cpu }
        },
    )
}

fn signal_number() -> impl Strategy<Value = i32> {
    let known = vec![1, 3, 4, 5, 6, 7, 8, 9, 11, 13, 14, 15, 24, 25, 31];
    prop_oneof![9 => select(known), 1 => any::<i32>()]
}

fn evidence() -> impl Strategy<Value = Evidence> {
    let rarely = |some| prop_oneof![6 => Just(false), 1 => Just(some)];
    let flags = (rarely(true), rarely(true), rarely(true), any::<bool>());
    (of(fault()), oom(), stall(), not_started_ways(), flags).prop_map(
        |(fault, oom, stall, start, (with_oom, with_stall, with_start, kernel_log_read))| {
            Evidence {
                fault: fault.map(Box::new),
                out_of_memory: with_oom.then_some(oom),
                kernel_log_read,
                not_started: with_start.then_some(start),
                stall: with_stall.then_some(stall),
            }
        },
    )
}

fn oom() -> impl Strategy<Value = OutOfMemory> {
    let bytes = || of(0_u64..1 << 40);
    let lines =
        vec!["Killed process 77 (server)", "Memory cgroup out of memory: Killed process 7 (a)"];
    (of("[a-z]{1,8}"), bytes(), bytes(), select(lines)).prop_map(|(child, limit, peak, line)| {
        OutOfMemory { line: line.to_owned(), child, limit, peak }
    })
}

fn stall() -> impl Strategy<Value = Stall> {
    let state = select(vec!["T", "R", "D", "S", "?"]);
    let asked = select(vec!["", "port 80"]);
    (state, asked, any::<bool>(), of(0_i64..400), vec("[a-z]{1,8}", 0..2)).prop_map(
        |(state, asked, was_ready, system_call, children)| Stall {
            asked: asked.to_owned(),
            was_ready,
            silent_ms: 5000,
            state: state.to_owned(),
            system_call,
            waits_in: None,
            children,
        },
    )
}

fn not_started_ways() -> impl Strategy<Value = NotStarted> {
    let program = || "/a".to_owned();
    select(vec![
        NotStarted::NoProgram { program: program() },
        NotStarted::NoInterpreter { program: program(), interpreter: "/b\\r".to_owned() },
        NotStarted::NotExecutable { program: program(), mode: 0o644 },
        NotStarted::NotAProgram { program: program(), begins_with: "00".to_owned() },
        NotStarted::NotAProgram { program: program(), begins_with: "7f454c4602".to_owned() },
        NotStarted::OtherProcessor { program: program(), processor: "ARM".to_owned() },
        NotStarted::Other { program: program(), errno: 5 },
    ])
}

fn fault() -> impl Strategy<Value = Fault> {
    let near = 0x7f00_0000_0000_u64..0x7f00_0010_0000;
    let address = prop_oneof![near.clone(), 0..2 * NULL_PAGE, any::<u64>()];
    let code =
        prop_oneof![9 => select(vec![-6, -2, -1, 0, 1, 2, 3, 128, NO_SI_CODE]), 1 => any::<i32>()];
    let sender = of(prop_oneof![Just(Sender::Itself), (1_u32..9).prop_map(Sender::Process)]);
    let instruction = prop_oneof![select(&CODE[..]).prop_map(str::to_owned), "[0-9a-f]{0,30}"];
    let registers = prop_oneof![Just(Vec::new()), vec(prop_oneof![near.clone(), any::<u64>()], 27)];
    let message = of(select(&LINES[..]).prop_map(str::to_owned));
    let numbers = (signal_number(), code, address, near.clone(), near, any::<bool>());
    (numbers, sender, instruction, registers, of(mapping()), of(mapping()), message).prop_map(
        |(numbers, sender, instruction, registers, code_mapping, near_address, last_message)| {
            let (signal, code, address, ip, stack_pointer, jumped) = numbers;
            Fault {
                signal,
                code,
                address,
                // As whoever reads a dump fills it in.
                sender: sender.filter(|_| BY_PROCESSES.contains(&code)),
                thread: "worker".to_owned(),
                program: "/usr/bin/injected".to_owned(),
                instruction_pointer: if jumped { address } else { ip },
                stack_pointer,
                registers,
                instruction,
                code_mapping,
                near_address,
                symbol: Some(Symbol { name: "f".to_owned(), offset: 4 }),
                last_message,
                unseen: Vec::new(),
            }
        },
    )
}

fn mapping() -> impl Strategy<Value = Mapping> {
    let start = 0x7f00_0000_0000_u64..0x7f00_0010_0000;
    let path = select(vec!["", "[stack]", "/usr/lib/libfoo.so"]);
    let permissions = select(vec!["rw-", "r-x", "---"]);
    (start, 1_u64..0x10_0000, path, permissions).prop_map(|(start, size, path, permissions)| {
        Mapping {
            start,
            end: start + size,
            permissions: permissions.to_owned(),
            file_offset: 0,
            path: path.to_owned(),
            build_id: None,
        }
    })
}
