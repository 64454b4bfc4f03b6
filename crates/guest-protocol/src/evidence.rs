//! What the guest saw of a process' end, without a word of judgement: what it means is said on the
//! host (crate `crash`), where no guest can lie about the reasoning.

use serde::{Deserialize, Serialize};

/// Bytes of code that are shown: the longest x86 instruction has 15.
pub const MAX_INSTRUCTION: usize = 15;

/// The longest path or name in a piece of evidence, in bytes.
pub const MAX_EVIDENCE_TEXT: usize = 512;

/// At most this many children of a stalled process are reported.
pub const MAX_CHILDREN: usize = 3;

/// What was seen beside the wait status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Its core dump, when the kernel made one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Box<Fault>>,
    /// The kernel's word that it was killed for want of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_memory: Option<OutOfMemory>,
    /// Whether the kernel's log was read: where it was not, nothing follows from its silence.
    #[serde(default)]
    pub kernel_log_read: bool,
    /// Why it could not be started at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_started: Option<NotStarted>,
    /// What it did when it was stopped for not answering.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall: Option<Stall>,
}

/// What a core dump held, before it was discarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Signal number.
    pub signal: i32,
    /// `si_code` (sigaction(2)): positive when the kernel raised it for what the program did.
    pub code: i32,
    /// `si_addr`: of the instruction for SIGILL and SIGFPE, of the memory for SIGSEGV and SIGBUS.
    pub address: u64,
    /// Who sent the signal, when a process did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Sender>,
    /// The thread's name.
    pub thread: String,
    /// Path of the program.
    pub program: String,
    /// The thread's instruction pointer.
    pub instruction_pointer: u64,
    /// The thread's stack pointer.
    pub stack_pointer: u64,
    /// The general registers in the kernel's order (`struct user_regs_struct`), 27 of them; empty
    /// when they are not known.
    pub registers: Vec<u64>,
    /// The bytes at the instruction pointer in hexadecimal, at most [`MAX_INSTRUCTION`]; empty when
    /// they could not be read.
    pub instruction: String,
    /// What is mapped at the instruction pointer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_mapping: Option<Mapping>,
    /// What is mapped at `address`, or next above it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub near_address: Option<Mapping>,
    /// The symbol that the instruction is in, where the file has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symbol: Option<Symbol>,
    /// The message that its C library aborted with, as the library keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_message: Option<String>,
    /// What could not be seen, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<String>,
}

/// Who sent a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sender {
    /// The process that died of it.
    Itself,
    /// Another process, by its id in the guest.
    Process(u32),
}

/// A range of a process' memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Whether it may be read, written, executed: `rwxp` as in /proc/PID/maps.
    pub permissions: String,
    /// Where in the file it begins, in bytes.
    pub file_offset: u64,
    /// The file, or the kernel's name in brackets; empty for memory without one.
    pub path: String,
    /// The file's GNU build id in hexadecimal, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
}

/// A function's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Symbol {
    /// As in the file, not demangled.
    pub name: String,
    /// Bytes into it.
    pub offset: u64,
}

/// The kernel killed it for want of memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutOfMemory {
    /// The kernel's line.
    pub line: String,
    /// What was killed, where it was not the process itself but one of its group, just before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<String>,
    /// The service's own limit in bytes; without one the guest as a whole had no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// The most it had, in bytes, where the kernel counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak: Option<u64>,
}

/// What stood in the way of a start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case", deny_unknown_fields)]
pub enum NotStarted {
    /// There is no such program.
    NoProgram {
        /// As it was asked for.
        program: String,
    },
    /// The program is there, and the interpreter that it names is not.
    NoInterpreter {
        /// The program.
        program: String,
        /// Its interpreter, from its first line or its ELF header.
        interpreter: String,
    },
    /// It may not be executed.
    NotExecutable {
        /// The program.
        program: String,
        /// Its permission bits.
        mode: u32,
    },
    /// It is neither a script with a first line nor a binary for this machine.
    NotAProgram {
        /// The file.
        program: String,
        /// What it begins with, in hexadecimal.
        begins_with: String,
    },
    /// It is a binary for another processor.
    OtherProcessor {
        /// The program.
        program: String,
        /// What its header names (`e_machine`), such as `AArch64`.
        processor: String,
    },
    /// Anything else.
    Other {
        /// The program.
        program: String,
        /// The system's error number.
        errno: i32,
    },
}

/// A service that stopped answering and was ended for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stall {
    /// How long it had not answered, in milliseconds of the guest's clock.
    pub silent_ms: u64,
    /// What was asked of it; empty for a program that was to end by itself.
    pub asked: String,
    /// Whether it had answered before.
    pub was_ready: bool,
    /// The state of its main thread (proc(5): R, S, D, T …).
    pub state: String,
    /// The system call that it was in by number, where the kernel reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_call: Option<i64>,
    /// Where in the kernel it waited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_in: Option<String>,
    /// Command lines of what it had started and ran still, at most [`MAX_CHILDREN`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<String>,
}

/// What the guest's processor says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestCpu {
    /// CPUID: leaf, subleaf, then EAX, EBX, ECX, EDX. At most [`MAX_CPUID_LEAVES`].
    pub leaves: Vec<[u32; 6]>,
    /// XCR0; 0 when the kernel has not turned it on.
    pub xcr0: u64,
}

/// CPUID leaves that are taken from a guest.
pub const MAX_CPUID_LEAVES: usize = 64;
