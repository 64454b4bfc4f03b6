//! Deaths by a signal that the processor or the kernel raised for what the program did, from its
//! core dump.

use anteroom_guest_protocol::{Fault, MAX_INSTRUCTION, Mapping, Sender};

use super::instruction::{Decoded, Kind, Refused, decode, missing};
use anteroom_session::{Cause, Confidence, Explanation};

use super::{Death, processor, seconds, signal, told, words};

/// `si_code` of sigaction(2), those that are the same for each signal.
const SI_KERNEL: i32 = 128;
const SEGV_ACCERR: i32 = 2;
const BUS_ADRERR: i32 = 2;
const FPE_INTDIV: i32 = 1;

/// Addresses below are a null pointer's: Linux maps nothing there (vm.mmap_min_addr).
const NULL_PAGE: u64 = 64 * 1024;

/// How far from the stack pointer an access may be that used up the stack.
const STACK_REACH: u64 = 64 * 1024;

/// Where in `struct user_regs_struct` the number of the system call is.
const ORIG_RAX: usize = 15;

/// Says why, by a core dump.
pub fn explain(death: &Death<'_>, fault: &Fault) -> Explanation {
    let decoded = decoded(fault);
    let by_other = matches!(fault.sender, Some(Sender::Process(_)));
    let of_processor = [4, 5, 7, 8, 11, 31].contains(&fault.signal);
    let explanation = match fault.signal {
        _ if fault.code <= 0 && (of_processor || by_other) => sent(death, fault),
        4 => illegal(death, fault, decoded.as_ref()),
        5 => trapped(death, fault),
        6 => signal::aborted(death, Confidence::Certain),
        7 => bus(death, fault),
        8 => arithmetic(death, fault),
        11 => memory(death, fault, decoded.as_ref()),
        // The kernel sends the one as its own, the other in the name of who wrote.
        24 if fault.code == SI_KERNEL => signal::limit(death, 24),
        25 if fault.code == SI_KERNEL || fault.sender == Some(Sender::Itself) => {
            signal::limit(death, 25)
        }
        31 => forbidden_call(death, fault),
        other => signal::explain(death, other),
    };
    explanation.resting_on(seen(fault, decoded.as_ref()))
}

fn decoded(fault: &Fault) -> Option<Decoded> {
    let bytes = hex::decode(&fault.instruction).ok()?;
    decode(&bytes[..bytes.len().min(MAX_INSTRUCTION)], fault.instruction_pointer)
}

/// Beginning of every sentence about an instruction: who, by what signal.
fn stopped(death: &Death<'_>, fault: &Fault, by: &str) -> String {
    let program = fault.program.rsplit('/').next().unwrap_or_default();
    let thread = match fault.thread.as_str() {
        "" => String::new(),
        thread if program.starts_with(thread) => String::new(),
        thread => format!(" in its thread {thread}"),
    };
    format!("{} was stopped by {by}{thread}", death.service)
}

fn illegal(death: &Death<'_>, fault: &Fault, decoded: Option<&Decoded>) -> Explanation {
    let place = place(fault);
    let Some(decoded) = decoded else {
        let what = if fault.instruction.is_empty() {
            "which one could not be read".to_owned()
        } else {
            format!("the bytes {} at {place} are none", fault.instruction)
        };
        return told(
            Cause::BadInstruction,
            Confidence::Unknown,
            format!("{}: {what}", stopped(death, fault, "an illegal instruction")),
        );
    };
    if decoded.kind == Kind::Trap {
        return trap(death, fault, &decoded.text);
    }
    let text = &decoded.text;
    let Some(cpu) = death.cpu else {
        return told(
            Cause::BadInstruction,
            Confidence::Unknown,
            format!(
                "{}: `{text}` at {place}; what its processor has is not known",
                stopped(death, fault, "an illegal instruction")
            ),
        );
    };
    let missing = missing(&decoded.needs, &cpu.profile);
    if missing.is_empty() {
        return told(
            Cause::BadInstruction,
            Confidence::Unknown,
            format!(
                "{}: `{text}` at {place}; {} has all that it needs, so why it was refused is not known",
                stopped(death, fault, "an illegal instruction"),
                cpu.name
            ),
        );
    }
    let names: Vec<&str> = missing.iter().map(|feature| feature.name()).collect();
    let names = names.join(" and ");
    told(
        Cause::MissingCpuFeature,
        Confidence::Certain,
        format!(
            "{}: `{text}` at {place} needs {names}; {} has no {names}",
            stopped(death, fault, "an illegal instruction"),
            cpu.name
        ),
    )
    .advise(&format!(
        "use an image with a build that does without {names}, or a CPU profile with it"
    ))
}

/// An instruction that is there to stop the program.
fn trap(death: &Death<'_>, fault: &Fault, instruction: &str) -> Explanation {
    let mut sentence = format!(
        "{} stopped itself: deliberate abort ({instruction}) in {}, not a missing CPU feature",
        death.service,
        place(fault)
    );
    if let Some(complaint) = processor::complaint(death.lines()) {
        let how = format!("{} stopped itself ({instruction})", death.service);
        return processor::explain(death, &how, &complaint);
    }
    if let Some(said) = words::said(death.lines()) {
        sentence.push_str(&format!("; its last words: {}", said.line));
        return told(said.cause, Confidence::Certain, sentence);
    }
    told(Cause::DeliberateTrap, Confidence::Certain, sentence)
}

/// SIGTRAP leaves the instruction pointer behind the `int3`.
fn trapped(death: &Death<'_>, fault: &Fault) -> Explanation {
    if fault.code == SI_KERNEL {
        return trap(death, fault, "int3");
    }
    told(
        Cause::Unknown,
        Confidence::Unknown,
        format!(
            "{} at {}; nothing that traces it is known",
            stopped(death, fault, &signal::name(5)),
            place(fault)
        ),
    )
}

fn memory(death: &Death<'_>, fault: &Fault, decoded: Option<&Decoded>) -> Explanation {
    let (address, place) = (fault.address, place(fault));
    let stopped = stopped(death, fault, "a bad memory access");
    let access = match decoded {
        Some(decoded) if decoded.writes_memory => "wrote to",
        Some(decoded) if decoded.kind == Kind::Stack => "used the stack at",
        _ => "read",
    };
    if fault.code == SI_KERNEL {
        return general_protection(&stopped, &place, decoded, &fault.registers);
    }
    if is_stack_overflow(fault) {
        return told(
            Cause::StackOverflow,
            Confidence::Likely,
            format!(
                "{} used up its stack (in {place}): {address:#x} is just below it, the stack pointer is {:#x}",
                death.service, fault.stack_pointer
            ),
        )
        .advise("a recursion without end most likely; a larger stack (ulimit -s) helps only where it ends");
    }
    let sentence = if address == fault.instruction_pointer {
        format!("{stopped}: it jumped to {address:#x}, {}", holds(fault))
    } else if address < NULL_PAGE {
        format!("{stopped}: it {access} address {address:#x}, a null pointer, in {place}")
    } else {
        format!("{stopped}: it {access} address {address:#x} in {place}, {}", holds(fault))
    };
    told(Cause::BadMemoryAccess, Confidence::Certain, sentence)
}

/// The processor's general protection: the kernel knows no address, the registers may.
fn general_protection(
    stopped: &str,
    place: &str,
    decoded: Option<&Decoded>,
    registers: &[u64],
) -> Explanation {
    let Some(decoded) = decoded else {
        return told(
            Cause::BadMemoryAccess,
            Confidence::Unknown,
            format!(
                "{stopped}: the processor refused the instruction at {place}, which could not be read"
            ),
        );
    };
    let text = &decoded.text;
    match decoded.refused(registers) {
        Some(Refused::NotCanonical(address)) => told(
            Cause::BadMemoryAccess,
            Confidence::Certain,
            format!(
                "{stopped}: `{text}` at {place} used {address:#x}, an address that no memory can have"
            ),
        ),
        Some(Refused::NotAligned(address, size)) => told(
            Cause::BadMemoryAccess,
            Confidence::Certain,
            format!(
                "{stopped}: `{text}` at {place} used {address:#x}, which is not aligned to {size} bytes as it must be"
            ),
        ),
        None if decoded.kind == Kind::Privileged => told(
            Cause::BadInstruction,
            Confidence::Certain,
            format!("{stopped}: `{text}` at {place} is for the kernel alone"),
        ),
        None if decoded.accesses.is_empty() => told(
            Cause::BadInstruction,
            Confidence::Likely,
            format!(
                "{stopped}: the processor refused `{text}` at {place}, which uses no memory; a program may not execute it so"
            ),
        ),
        None if registers.is_empty() => told(
            Cause::BadMemoryAccess,
            Confidence::Likely,
            format!(
                "{stopped}: the address that `{text}` at {place} uses is none that any memory can have, or is not aligned as it must be; the registers that would tell were not seen"
            ),
        ),
        None => told(
            Cause::BadMemoryAccess,
            Confidence::Unknown,
            format!(
                "{stopped}: the processor refused `{text}` at {place}, and its registers do not show why"
            ),
        ),
    }
}

/// What is at the address that was used.
fn holds(fault: &Fault) -> String {
    match &fault.near_address {
        Some(mapping) if (mapping.start..mapping.end).contains(&fault.address) => {
            let name = if mapping.path.is_empty() { "memory" } else { &mapping.path };
            let may =
                if fault.code == SEGV_ACCERR { "that may not be used so" } else { "that is there" };
            format!("{name} ({}) {may}", mapping.permissions)
        }
        _ => "where nothing is mapped".to_owned(),
    }
}

/// An access next to the stack pointer, where the stack has ended: in nothing, or in the guard page
/// that is mapped to catch it, with memory that may be written right above.
fn is_stack_overflow(fault: &Fault) -> bool {
    let near = fault.address.abs_diff(fault.stack_pointer) <= STACK_REACH;
    let Some(mapping) = &fault.near_address else { return false };
    let inside = (mapping.start..mapping.end).contains(&fault.address);
    let is_guard = inside && mapping.permissions.starts_with("---");
    let below_stack = !inside
        && mapping.permissions.starts_with("rw")
        && mapping.start.saturating_sub(fault.address) <= 2 * STACK_REACH
        && (mapping.path == "[stack]" || mapping.path.is_empty());
    near && (is_guard || below_stack)
}

fn bus(death: &Death<'_>, fault: &Fault) -> Explanation {
    let what = match (fault.code, &fault.near_address) {
        (BUS_ADRERR, Some(Mapping { path, .. })) if path.starts_with('/') => {
            format!(
                "it used {:#x} of {path}, which is mapped and has no data there: the file is shorter than it was, or its disk is full",
                fault.address
            )
        }
        _ => {
            format!("it used address {:#x} in a way that this memory does not allow", fault.address)
        }
    };
    told(
        Cause::BadMemoryAccess,
        Confidence::Certain,
        format!("{}: {what}, in {}", stopped(death, fault, "a bus error"), place(fault)),
    )
}

fn arithmetic(death: &Death<'_>, fault: &Fault) -> Explanation {
    let what = match fault.code {
        FPE_INTDIV => "it divided a whole number by zero, or the result was too large",
        _ => "an arithmetic exception that it had asked for",
    };
    told(
        Cause::BadArithmetic,
        Confidence::Certain,
        format!("{}: {what}, in {}", stopped(death, fault, "an arithmetic fault"), place(fault)),
    )
}

fn forbidden_call(death: &Death<'_>, fault: &Fault) -> Explanation {
    let number = fault.registers.get(ORIG_RAX).copied().and_then(|n| i64::try_from(n).ok());
    let call = match number {
        Some(number) => match signal::system_call(number) {
            Some(name) => format!("{name} (number {number})"),
            None => format!("number {number}"),
        },
        None => "that is not known".to_owned(),
    };
    told(
        Cause::ForbiddenSystemCall,
        Confidence::Certain,
        format!("{} made a system call that its own sandbox forbids: {call}", death.service),
    )
}

/// A signal of the processor's that some process sent: perhaps the program itself, whose handler
/// caught the first one and reported it.
fn sent(death: &Death<'_>, fault: &Fault) -> Explanation {
    let (service, lived) = (death.service, seconds(death.lived_ms));
    let name = signal::name(fault.signal);
    let certain = |cause, sentence| told(cause, Confidence::Certain, sentence);
    match (fault.sender, words::own_crash_report(death.lines())) {
        (Some(Sender::Itself), Some((_, line))) => told(
            Cause::Aborted,
            Confidence::Likely,
            format!(
                "{service} caught a fault of its own after {lived}, reported it and ended itself by {name}: {line}"
            ),
        ),
        (Some(Sender::Itself), None) => certain(
            Cause::Aborted,
            format!(
                "{service} ended itself by {name} after {lived}: it sent the signal to itself, the processor did not raise it"
            ),
        ),
        (Some(Sender::Process(pid)), _) => certain(
            Cause::KilledBySignal,
            format!(
                "{service} was ended by {name} after {lived}: a process sent it (number {pid}), the processor did not raise it"
            ),
        ),
        (None, _) => certain(
            Cause::KilledBySignal,
            format!(
                "{service} was ended by {name} after {lived}: a process sent it, the processor did not raise it"
            ),
        ),
    }
}

/// Where: `libfoo.so+0x1234 (function+0x56)`, by offset in the file, else by address.
fn place(fault: &Fault) -> String {
    let ip = fault.instruction_pointer;
    let Some(mapping) = fault.code_mapping.as_ref().filter(|mapping| !mapping.path.is_empty())
    else {
        return format!("{ip:#x}");
    };
    let name = mapping.path.rsplit('/').next().unwrap_or(&mapping.path);
    let offset = ip.saturating_sub(mapping.start).saturating_add(mapping.file_offset);
    match &fault.symbol {
        Some(symbol) => format!("{name}+{offset:#x} ({}+{:#x})", symbol.name, symbol.offset),
        None => format!("{name}+{offset:#x}"),
    }
}

/// The evidence, a line each.
fn seen(fault: &Fault, decoded: Option<&Decoded>) -> Vec<String> {
    let mut lines = vec![format!(
        "core dump of {}: {}, code {}, address {:#x}, thread {}",
        fault.program,
        signal::name(fault.signal),
        fault.code,
        fault.address,
        fault.thread
    )];
    if !fault.instruction.is_empty() {
        let meaning = match decoded {
            Some(decoded) => {
                let length = (2 * decoded.length).min(fault.instruction.len());
                let bytes = fault.instruction.get(..length).unwrap_or_default();
                format!("{bytes} = {}", decoded.text)
            }
            None => format!("{} = no instruction", fault.instruction),
        };
        lines.push(format!("at {:#x}: {meaning}", fault.instruction_pointer));
    }
    if let Some(mapping) = &fault.code_mapping {
        let build = mapping.build_id.as_deref().unwrap_or("none");
        lines.push(format!("code of {} at {}, build id {build}", mapping.path, place(fault)));
    }
    lines.extend(fault.unseen.iter().map(|what| format!("not seen: {what}")));
    lines
}
