//! Deaths by a signal that the processor or the kernel raised for what the program did, from its
//! core dump.

use anteroom_guest_protocol::{Fault, MAX_INSTRUCTION, Mapping, ProcessExit, Sender};
use anteroom_session::{Cause, named_signal};

use super::claim::{Access, AtAddress, Claim, Diagnosis, Dumped};
use super::instruction::{Decoded, Kind, Refused, decode};
use super::numbers::{BY_PROCESSES, NO_SI_CODE, SI_USER};
use super::{Death, output, processor, signal};

/// `si_code` of sigaction(2).
const SI_KERNEL: i32 = 128;
pub(crate) const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const BUS_ADRERR: i32 = 2;
const SYS_SECCOMP: i32 = 1;

/// Addresses below are a null pointer's: Linux maps nothing there (vm.mmap_min_addr).
pub(crate) const NULL_PAGE: u64 = 64 * 1024;

/// How far from the stack pointer an access may be that used up the stack.
const STACK_REACH: u64 = 64 * 1024;

/// Where in `struct user_regs_struct` the number of the system call is.
pub(crate) const ORIG_RAX: usize = 15;

/// Says why, by a core dump.
pub fn explain(death: &Death<'_>, fault: &Fault) -> Diagnosis {
    let decoded = decoded(fault);
    let decoded = decoded.as_ref();
    let diagnosis = match fault.signal {
        signal if fault.code == NO_SI_CODE => signal::explain(death, signal),
        6 if fault.sender == Some(Sender::Itself) => signal::aborted(death),
        // The kernel sends the one as its own, the other in the name of who wrote.
        24 if fault.code == SI_KERNEL => signal::limit(death, 24),
        25 if fault.code == SI_USER && fault.sender == Some(Sender::Itself) => {
            signal::limit(death, 25)
        }
        signal if fault.code <= 0 && (of_processor(signal) || fault.sender.is_some()) => {
            sent(death, fault)
        }
        4 => illegal(death, fault, decoded),
        5 => trapped(death, fault),
        7 => bus(fault),
        8 => arithmetic(fault),
        11 => memory(fault, decoded),
        31 if fault.code == SYS_SECCOMP => {
            let number = fault.registers.get(ORIG_RAX).copied();
            let number = number.and_then(|number| i64::try_from(number).ok());
            Diagnosis::new(Cause::ForbiddenSystemCall, [of(Dumped::ForbiddenCall(number))])
        }
        31 => Diagnosis::new(Cause::Unknown, [stopped(fault)]).unknown(),
        other => signal::explain(death, other),
    };
    diagnosis.resting_on(seen(fault, decoded))
}

/// Signals that a processor or the kernel raises for what a program does.
fn of_processor(signal: i32) -> bool {
    [4, 5, 7, 8, 11, 31].contains(&signal)
}

fn of(dumped: Dumped) -> Claim {
    Claim::Dumped(dumped)
}

pub(crate) fn decoded(fault: &Fault) -> Option<Decoded> {
    let bytes = hex::decode(&fault.instruction).ok()?;
    decode(&bytes[..bytes.len().min(MAX_INSTRUCTION)], fault.instruction_pointer)
}

/// Beginning of every sentence about an instruction: by what signal, in which thread.
fn stopped(fault: &Fault) -> Claim {
    let program = fault.program.rsplit('/').next().unwrap_or_default();
    let is_first = fault.thread.is_empty() || program.starts_with(&fault.thread);
    let thread = (!is_first).then(|| fault.thread.clone());
    of(Dumped::Stopped { signal: fault.signal, thread })
}

fn instruction(fault: &Fault, decoded: &Decoded) -> Claim {
    of(Dumped::Instruction { text: decoded.text.clone(), place: place(fault) })
}

fn illegal(death: &Death<'_>, fault: &Fault, decoded: Option<&Decoded>) -> Diagnosis {
    let mut claims = vec![stopped(fault)];
    let Some(decoded) = decoded else {
        claims.push(of(match fault.instruction.as_str() {
            "" => Dumped::InstructionUnread,
            bytes => Dumped::NoInstruction { bytes: bytes.to_owned(), place: place(fault) },
        }));
        return Diagnosis::new(Cause::BadInstruction, claims);
    };
    if decoded.kind == Kind::Trap {
        return trap(death, fault, &decoded.text);
    }
    claims.push(instruction(fault, decoded));
    let standing = processor::held_to(death.cpu, &decoded.needs);
    let Claim::CpuLacks { features, .. } = &standing else {
        claims.push(standing);
        return Diagnosis::new(Cause::BadInstruction, claims).unknown();
    };
    let names: Vec<&str> = features.iter().map(|feature| feature.name()).collect();
    let names = names.join(" and ");
    claims.extend([of(Dumped::Needs(features.clone())), standing]);
    Diagnosis::new(Cause::MissingCpuFeature, claims)
        .advise(format!("use a build that does not need {names}, or a CPU profile with it"))
}

/// An instruction that is there to stop the program.
fn trap(death: &Death<'_>, fault: &Fault, instruction: &str) -> Diagnosis {
    let instruction = instruction.to_owned();
    let trapped = of(Dumped::Trap { instruction, place: place(fault) });
    if let Some(complaint) = processor::complaint(death) {
        return processor::explain(death, vec![trapped], complaint);
    }
    match output::said(death.lines()) {
        Some(said) => Diagnosis::new(said.cause, [trapped, Claim::LastMessage(said.line)]),
        None => Diagnosis::new(Cause::DeliberateTrap, [trapped]),
    }
}

/// SIGTRAP leaves the instruction pointer behind the `int3`.
fn trapped(death: &Death<'_>, fault: &Fault) -> Diagnosis {
    if fault.code == SI_KERNEL {
        return trap(death, fault, "int3");
    }
    let claims = [stopped(fault), of(Dumped::At(place(fault))), of(Dumped::NothingTraces)];
    Diagnosis::new(Cause::Unknown, claims)
}

fn memory(fault: &Fault, decoded: Option<&Decoded>) -> Diagnosis {
    if fault.code == SI_KERNEL {
        return general_protection(fault, decoded);
    }
    let (address, place) = (fault.address, place(fault));
    if is_stack_overflow(fault) {
        let stack_pointer = fault.stack_pointer;
        let used_up = of(Dumped::StackUsedUp { place, address, stack_pointer });
        return Diagnosis::new(Cause::StackOverflow, [used_up]).advise(
            "this is most likely an endless recursion; a larger stack (ulimit -s) only helps if the recursion ends",
        );
    }
    let (at, within) = (at_address(fault), of(Dumped::In(place)));
    let access = || of(Dumped::Access { access: access(decoded), address });
    let claims = if address == fault.instruction_pointer {
        vec![stopped(fault), of(Dumped::Jumped(address)), of(Dumped::Holds(at))]
    } else if address < NULL_PAGE && at == AtAddress::Nothing {
        vec![stopped(fault), access(), of(Dumped::NullPointer), within]
    } else {
        vec![stopped(fault), access(), within, of(Dumped::Holds(at))]
    };
    Diagnosis::new(Cause::BadMemoryAccess, claims)
}

/// The processor's general protection: the kernel knows no address, the registers may.
fn general_protection(fault: &Fault, decoded: Option<&Decoded>) -> Diagnosis {
    let Some(decoded) = decoded else {
        let unread = of(Dumped::RefusedUnread(place(fault)));
        return Diagnosis::new(Cause::BadMemoryAccess, [stopped(fault), unread]);
    };
    let (cause, why) = match decoded.refused(&fault.registers) {
        Some(Refused::NotCanonical(address)) => {
            (Cause::BadMemoryAccess, Dumped::NotCanonical(address))
        }
        Some(Refused::NotAligned(address, size)) => {
            (Cause::BadMemoryAccess, Dumped::NotAligned(address, size))
        }
        None if decoded.kind == Kind::Privileged => (Cause::BadInstruction, Dumped::ForKernelAlone),
        None if !decoded.uses_memory() => (Cause::BadInstruction, Dumped::RefusedWithoutMemory),
        None if fault.registers.is_empty() => (Cause::BadMemoryAccess, Dumped::RefusedUnseen),
        None => (Cause::BadMemoryAccess, Dumped::RefusedUnknown),
    };
    Diagnosis::new(cause, [stopped(fault), instruction(fault, decoded), of(why)])
}

/// What an instruction did at the address: where it reads one place and writes another, only that it
/// used it.
pub(crate) fn access(decoded: Option<&Decoded>) -> Access {
    match decoded {
        Some(decoded) if decoded.kind == Kind::Stack => Access::Stack,
        Some(decoded) if decoded.only_writes() => Access::Wrote,
        Some(decoded) if decoded.uses_memory() && !decoded.writes_memory => Access::Read,
        _ => Access::Used,
    }
}

/// What is at the address that was used.
pub(crate) fn at_address(fault: &Fault) -> AtAddress {
    let inside = |mapping: &&Mapping| (mapping.start..mapping.end).contains(&fault.address);
    match (fault.code, fault.near_address.as_ref().filter(inside)) {
        (SEGV_ACCERR, mapping) => AtAddress::Forbidden(mapping.cloned()),
        (_, Some(mapping)) => AtAddress::Mapped(mapping.clone()),
        (SEGV_MAPERR, None) => AtAddress::Nothing,
        (_, None) => AtAddress::Unknown,
    }
}

/// An access next to the stack pointer, where the stack has ended: in nothing, or in the guard page
/// that is mapped to catch it, with memory that may be written right above.
pub(crate) fn is_stack_overflow(fault: &Fault) -> bool {
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

fn bus(fault: &Fault) -> Diagnosis {
    let address = fault.address;
    let of_file = |mapping: &&Mapping| {
        mapping.path.starts_with('/') && (mapping.start..mapping.end).contains(&address)
    };
    let what = match (fault.code, fault.near_address.as_ref().filter(of_file)) {
        (BUS_ADRERR, Some(mapping)) => {
            Dumped::FileWithoutData { address, path: mapping.path.clone() }
        }
        _ => Dumped::BadUse(address),
    };
    let claims = [stopped(fault), of(what), of(Dumped::In(place(fault)))];
    Diagnosis::new(Cause::BadMemoryAccess, claims)
}

fn arithmetic(fault: &Fault) -> Diagnosis {
    let what = of(Dumped::Arithmetic(fault.code));
    Diagnosis::new(Cause::BadArithmetic, [stopped(fault), what, of(Dumped::In(place(fault)))])
}

/// A signal that was sent: perhaps by the program itself, whose handler caught one of the processor's
/// and reported it.
fn sent(death: &Death<'_>, fault: &Fault) -> Diagnosis {
    let (signal, lived, sender) = (fault.signal, death.lived_ms, fault.sender);
    if !BY_PROCESSES.contains(&fault.code) {
        let ended = [Claim::EndedBy(signal), Claim::After(lived), Claim::SentByCode(fault.code)];
        return Diagnosis::new(Cause::KilledBySignal, ended);
    }
    if sender == Some(Sender::Itself) {
        let Some((_, line)) = output::own_crash_report(death.lines()) else {
            return Diagnosis::new(Cause::Aborted, [Claim::Sent { signal, lived, sender }]);
        };
        let exit = ProcessExit::Signalled { signal };
        let caught = Claim::CaughtFault { signal: None, lived, exit, line };
        return Diagnosis::new(Cause::Aborted, [caught]);
    }
    Diagnosis::new(Cause::KilledBySignal, [Claim::Sent { signal, lived, sender }])
}

/// Where: `libfoo.so+0x1234 (function+0x56)`, by offset in the file, else by address.
pub(crate) fn place(fault: &Fault) -> String {
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
    // A sent signal has its sender where others have an address.
    let raised = match fault.code {
        NO_SI_CODE => String::new(),
        code @ ..=0 => format!(", code {code}"),
        code => format!(", code {code}, address {:#x}", fault.address),
    };
    let mut lines = vec![format!(
        "core dump of {}: {}{raised}, thread {}",
        fault.program,
        named_signal(fault.signal),
        fault.thread
    )];
    lines.extend(
        fault.last_message.as_deref().map(|text| format!("its C library's last message: {text}")),
    );
    if !fault.instruction.is_empty() {
        let meaning = match decoded {
            Some(decoded) => {
                let length = (2 * decoded.length).min(fault.instruction.len());
                let bytes = fault.instruction.get(..length).unwrap_or_default();
                format!("{bytes} = {}", decoded.text)
            }
            None => format!("{} = not an instruction", fault.instruction),
        };
        lines.push(format!("at {:#x}: {meaning}", fault.instruction_pointer));
    }
    if let Some(mapping) = &fault.code_mapping {
        let build = mapping.build_id.as_deref().unwrap_or("none");
        lines.push(format!("code of {} at {}, build id {build}", mapping.path, place(fault)));
    }
    lines.extend(fault.unseen.iter().map(|what| format!("not captured: {what}")));
    lines
}
