//! Whether the evidence holds what is claimed; written beside the code that claims.

use anteroom_cpu::{CpuProfile, Standing};
use anteroom_guest_protocol::{Fault, Mapping, OutOfMemory, ProcessExit, Sender};

use crate::claim::{Access, AtAddress, Claim, Dumped};
use crate::fault::{
    NULL_PAGE, ORIG_RAX, SEGV_MAPERR, access, at_address, decoded, is_stack_overflow, place,
};
use crate::instruction::{Decoded, Kind, Refused};
use crate::numbers::{BY_PROCESSES, NO_SI_CODE};
use crate::signal::of_group;
use crate::{Cpu, Death, lines};

pub fn is_carried(claim: &Claim, death: &Death<'_>) -> bool {
    let evidence = death.evidence;
    let exited = |code: i32| death.exit == Some(ProcessExit::Exited { code });
    let signalled = |signal: i32| death.exit == Some(ProcessExit::Signalled { signal });
    let fault = evidence.fault.as_deref().filter(|fault| signalled(fault.signal));
    let said = |line: &str| death.last_lines.is_some_and(|lines| has_text(lines, line));
    let silent =
        || death.last_lines.is_some_and(|lines| lines.iter().all(|line| line.trim().is_empty()));
    match claim {
        Claim::Exited(code) => exited(*code),
        Claim::EndedWithoutError => exited(0),
        Claim::EndedBy(signal) => signalled(*signal),
        Claim::AbortedItself => {
            fault.is_some_and(|f| f.signal == 6 && f.sender == Some(Sender::Itself))
        }
        Claim::After(lived) => death.lived_ms == *lived,
        Claim::GoneUnseen => death.exit.is_none(),
        Claim::NotStarted(failure) => evidence.not_started.as_ref() == Some(failure),
        Claim::LastMessage(line) | Claim::OwnMessage(line) | Claim::AmongLast(line) => said(line),
        Claim::LastLine(line) => {
            let lines = death.last_lines.unwrap_or_default();
            let last = lines.iter().rfind(|line| !line.trim().is_empty());
            last.is_some_and(|last| *line == lines::quoted(last))
        }
        Claim::CouldNotStart(line) => said(line) && exited(127),
        Claim::Complaint { phrase, .. } => said(phrase),
        Claim::PrintedNothing => silent(),
        Claim::OutputUnseen => death.last_lines.is_none(),
        Claim::KeptMessage(text) => fault
            .and_then(|fault| fault.last_message.clone())
            .is_some_and(|kept| has_text(&[kept], text)),
        Claim::CaughtFault { lived, exit, line, .. } => {
            death.lived_ms == *lived && death.exit == Some(*exit) && said(line)
        }
        Claim::ShellCouldNot(code) => exited(*code) && [126, 127].contains(code),
        Claim::ShellsChild(signal) => exited(128 + signal),
        // Where the dump says who sent it, nothing typical is left to say.
        Claim::Typical(signal) => {
            signalled(*signal) && fault.is_none_or(|fault| fault.sender.is_none())
        }
        Claim::SomebodySent(signal) => signalled(*signal) && [1, 2, 3, 10, 12, 15].contains(signal),
        Claim::NoDump => fault.is_none() && death.exit.is_some(),
        Claim::DumpWithoutCause => fault.is_some_and(|fault| fault.code == NO_SI_CODE),
        Claim::Killers { log_read } => {
            signalled(9)
                && evidence.kernel_log_read == *log_read
                && evidence.out_of_memory.is_none()
        }
        Claim::LimitReached(24) => fault.is_some_and(|f| f.signal == 24 && f.code == 128),
        Claim::LimitReached(signal) => fault.is_some_and(|f| {
            f.signal == *signal && f.code == 0 && f.sender == Some(Sender::Itself)
        }),
        Claim::KilledForMemory
        | Claim::ChildKilledForMemory { .. }
        | Claim::MemoryLimit(_)
        | Claim::GroupLimit
        | Claim::NoMemoryLeft
        | Claim::MemoryPeak(_) => {
            evidence.out_of_memory.as_ref().is_some_and(|oom| is_of_memory(claim, oom, death.exit))
        }
        Claim::Unanswering(stall) | Claim::Doing(stall) => evidence.stall.as_ref() == Some(stall),
        Claim::CpuLacks { .. }
        | Claim::CpuHasAll { .. }
        | Claim::CpuLeavesToHost { .. }
        | Claim::CpuUnknown => is_of_cpu(claim, death.cpu),
        Claim::Dumped(dumped) => fault.is_some_and(|fault| is_dumped(dumped, fault)),
        Claim::Sent { signal, lived, sender } => {
            death.lived_ms == *lived
                && fault.is_some_and(|fault| {
                    fault.signal == *signal
                        && fault.sender == *sender
                        && BY_PROCESSES.contains(&fault.code)
                })
        }
        Claim::SentByCode(code) => {
            fault.is_some_and(|f| f.code == *code && *code < 0 && !BY_PROCESSES.contains(code))
        }
    }
}

fn is_of_memory(claim: &Claim, oom: &OutOfMemory, ended: Option<ProcessExit>) -> bool {
    match claim {
        Claim::KilledForMemory => oom.child.is_none(),
        Claim::ChildKilledForMemory { child, exit } => {
            oom.child.as_ref() == Some(child) && ended == *exit
        }
        Claim::MemoryLimit(limit) => oom.limit == Some(*limit) && of_group(&oom.line),
        Claim::GroupLimit => oom.limit.is_none() && of_group(&oom.line),
        Claim::NoMemoryLeft => !of_group(&oom.line),
        Claim::MemoryPeak(peak) => oom.peak == Some(*peak),
        _ => false,
    }
}

fn is_of_cpu(claim: &Claim, cpu: Option<&Cpu>) -> bool {
    let is_cpu = |name: &String, holds: &dyn Fn(&CpuProfile) -> bool| {
        cpu.is_some_and(|cpu| cpu.name == *name && holds(&cpu.profile))
    };
    match claim {
        Claim::CpuLacks { cpu, features } => is_cpu(cpu, &|profile| {
            features.iter().all(|feature| profile.standing(*feature) == Standing::Off)
        }),
        Claim::CpuHasAll { cpu, features } => is_cpu(cpu, &|profile| {
            features.iter().all(|feature| profile.standing(*feature) == Standing::On)
        }),
        Claim::CpuLeavesToHost { cpu, features } => is_cpu(cpu, &|profile| {
            features.iter().any(|feature| profile.standing(*feature) == Standing::AsHost)
        }),
        Claim::CpuUnknown => cpu.is_none(),
        _ => false,
    }
}

fn is_dumped(dumped: &Dumped, fault: &Fault) -> bool {
    let decoded = decoded(fault);
    let is = |holds: &dyn Fn(&Decoded) -> bool| decoded.as_ref().is_some_and(holds);
    // The kernel or the processor raised it: nobody sent it.
    let raised = fault.code > 0;
    match dumped {
        Dumped::Stopped { signal, thread } => {
            raised && fault.signal == *signal && thread.as_ref().is_none_or(|t| fault.thread == *t)
        }
        Dumped::Instruction { text, place: at } => {
            raised && *at == place(fault) && is(&|decoded| decoded.text == *text)
        }
        Dumped::NoInstruction { bytes, place: at } => {
            *at == place(fault) && decoded.is_none() && fault.instruction == *bytes
        }
        Dumped::InstructionUnread => fault.instruction.is_empty(),
        Dumped::Needs(features) => {
            is(&|decoded| features.iter().all(|feature| decoded.needs.contains(feature)))
        }
        Dumped::Trap { instruction, place: at } => {
            let decoded = is(&|decoded| decoded.kind == Kind::Trap && decoded.text == *instruction);
            let by_trap = fault.signal == 5 && fault.code == 128 && instruction == "int3";
            raised && *at == place(fault) && (decoded || by_trap)
        }
        Dumped::At(at) | Dumped::In(at) => *at == place(fault),
        Dumped::NothingTraces => fault.signal == 5,
        Dumped::Access { access: did, address } => {
            let found = access(decoded.as_ref());
            let kept = match did {
                Access::Wrote => is(&|decoded| decoded.writes_memory),
                Access::Read => is(&|decoded| decoded.uses_memory() && !decoded.writes_memory),
                Access::Stack => is(&|decoded| decoded.kind == Kind::Stack),
                Access::Used => true,
            };
            found == *did && kept && raised && fault.code != 128 && fault.address == *address
        }
        Dumped::NullPointer => fault.address < NULL_PAGE && fault.code == SEGV_MAPERR,
        Dumped::Jumped(address) => {
            raised && fault.address == *address && fault.instruction_pointer == *address
        }
        Dumped::Holds(at) => {
            let inside = |m: &Mapping| (m.start..m.end).contains(&fault.address);
            let there = fault.near_address.as_ref().filter(|mapping| inside(mapping));
            let carried = match at {
                AtAddress::Nothing => there.is_none() && fault.code == SEGV_MAPERR,
                AtAddress::Forbidden(mapping) => fault.code == 2 && mapping.as_ref() == there,
                AtAddress::Mapped(mapping) => there == Some(mapping),
                AtAddress::Unknown => there.is_none(),
            };
            carried && *at == at_address(fault)
        }
        Dumped::StackUsedUp { place: at, address, stack_pointer } => {
            *at == place(fault)
                && fault.address == *address
                && fault.stack_pointer == *stack_pointer
                && address.abs_diff(*stack_pointer) <= NULL_PAGE
                && is_stack_overflow(fault)
        }
        Dumped::NotCanonical(_)
        | Dumped::NotAligned(..)
        | Dumped::ForKernelAlone
        | Dumped::RefusedWithoutMemory
        | Dumped::RefusedUnseen
        | Dumped::RefusedUnknown
        | Dumped::RefusedUnread(_) => is_refused(dumped, fault),
        Dumped::FileWithoutData { address, path } => {
            let mapping = fault.near_address.as_ref();
            fault.signal == 7
                && fault.code == 2
                && fault.address == *address
                && mapping.is_some_and(|m| m.path == *path && (m.start..m.end).contains(address))
        }
        Dumped::BadUse(address) => raised && fault.signal == 7 && fault.address == *address,
        Dumped::Arithmetic(code) => raised && fault.signal == 8 && fault.code == *code,
        Dumped::ForbiddenCall(number) => {
            let register = fault.registers.get(ORIG_RAX).and_then(|n| i64::try_from(*n).ok());
            fault.signal == 31 && fault.code == 1 && register == *number
        }
    }
}

/// Whether the processor refused it so: a general protection fault, for which Linux gives code 128.
fn is_refused(dumped: &Dumped, fault: &Fault) -> bool {
    let decoded = decoded(fault);
    let is = |holds: &dyn Fn(&Decoded) -> bool| decoded.as_ref().is_some_and(holds);
    let refused =
        |of: &Refused| is(&|decoded| decoded.refused(&fault.registers).as_ref() == Some(of));
    let protection = fault.signal == 11;
    fault.code == 128
        && match dumped {
            Dumped::NotCanonical(address) => refused(&Refused::NotCanonical(*address)),
            Dumped::NotAligned(address, size) => refused(&Refused::NotAligned(*address, *size)),
            Dumped::ForKernelAlone => protection && is(&|decoded| decoded.kind == Kind::Privileged),
            Dumped::RefusedWithoutMemory => protection && is(&|decoded| !decoded.uses_memory()),
            Dumped::RefusedUnseen => protection && fault.registers.is_empty(),
            Dumped::RefusedUnknown => protection && decoded.is_some(),
            Dumped::RefusedUnread(at) => protection && decoded.is_none() && *at == place(fault),
            _ => false,
        }
}

/// Whether each word of a quote stands in the lines.
fn has_text(lines: &[String], quote: &str) -> bool {
    let whole = quote.trim_end_matches('…');
    let phrase = whole.split_whitespace().map(|word| word.trim_matches(['(', ')']));
    phrase.into_iter().all(|word| lines.iter().any(|line| line.contains(word)))
}
