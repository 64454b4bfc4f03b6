//! What is said by a core dump.

use anteroom_cpu::Feature;
use anteroom_guest_protocol::Mapping;
use anteroom_session::{Confidence, named_signal};

use super::names;
use crate::numbers;

/// `si_code` of sigaction(2).
pub(crate) const FPE_INTDIV: i32 = 1;
const FPE_FLOATING: std::ops::RangeInclusive<i32> = 3..=8;

/// A claim that a core dump carries. Places are the instruction's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Dumped {
    /// The processor's or the kernel's signal, and in which thread where it is another than the
    /// program's first.
    Stopped {
        signal: i32,
        thread: Option<String>,
    },
    Instruction {
        text: String,
        place: String,
    },
    NoInstruction {
        bytes: String,
        place: String,
    },
    InstructionUnread,
    Needs(Vec<Feature>),
    Trap {
        instruction: String,
        place: String,
    },
    At(String),
    NothingTraces,
    Access {
        access: Access,
        address: u64,
    },
    NullPointer,
    Jumped(u64),
    In(String),
    Holds(AtAddress),
    StackUsedUp {
        place: String,
        address: u64,
        stack_pointer: u64,
    },
    NotCanonical(u64),
    NotAligned(u64, u64),
    ForKernelAlone,
    RefusedWithoutMemory,
    RefusedUnseen,
    RefusedUnknown,
    RefusedUnread(String),
    FileWithoutData {
        address: u64,
        path: String,
    },
    BadUse(u64),
    Arithmetic(i32),
    ForbiddenCall(Option<i64>),
}

/// What an instruction did at an address, as far as all that it does there is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Wrote,
    Read,
    Stack,
    Used,
}

/// What is at an address that was used.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AtAddress {
    Nothing,
    /// Memory whose permissions do not allow it.
    Forbidden(Option<Mapping>),
    Mapped(Mapping),
    Unknown,
}

impl Dumped {
    pub(super) fn allows(&self) -> Confidence {
        match self {
            Self::NoInstruction { .. }
            | Self::InstructionUnread
            | Self::NothingTraces
            | Self::RefusedUnknown
            | Self::RefusedUnread(_) => Confidence::Unknown,
            Self::StackUsedUp { .. } | Self::RefusedWithoutMemory | Self::RefusedUnseen => {
                Confidence::Likely
            }
            _ => Confidence::Certain,
        }
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Stopped { signal, thread } => stopped(*signal, thread.as_deref()),
            Self::Instruction { text, place } => format!(": `{text}` at {place}"),
            Self::NoInstruction { bytes, place } => format!(": the bytes {bytes} at {place} are not an instruction"),
            Self::InstructionUnread => ": the instruction could not be read".to_owned(),
            Self::Needs(features) => format!(" needs {}", names(features)),
            Self::Trap { instruction, place } => format!(
                "aborted itself on purpose ({instruction} at {place}), not because of a missing CPU feature"
            ),
            Self::At(place) => format!(" at {place}"),
            Self::NothingTraces => "; nothing shows that a debugger was attached".to_owned(),
            Self::Access { access, address } => {
                let did = match access {
                    Access::Wrote => "wrote to",
                    Access::Read => "read",
                    Access::Stack => "used the stack at",
                    Access::Used => "used",
                };
                format!(": it {did} address {address:#x}")
            }
            Self::NullPointer => ", a null pointer,".to_owned(),
            Self::Jumped(address) => format!(": it jumped to {address:#x}"),
            Self::In(place) => format!(" in {place}"),
            Self::Holds(at) => holds(at),
            Self::StackUsedUp { place, address, stack_pointer } => format!(
                "overflowed its stack in {place}: the address {address:#x} is just below the stack, and the stack pointer is {stack_pointer:#x}"
            ),
            Self::NotCanonical(address) => {
                format!(" used {address:#x}, which is not a valid address")
            }
            Self::NotAligned(address, size) => {
                format!(" used {address:#x}, which is not aligned to {size} bytes as required")
            }
            Self::ForKernelAlone => " is reserved for the kernel".to_owned(),
            Self::RefusedWithoutMemory => {
                ", which uses no memory, was refused by the processor: programs may not execute it in this form"
                    .to_owned()
            }
            Self::RefusedUnseen => {
                " used an address that is not valid or not aligned as required; the registers that would show which were not captured"
                    .to_owned()
            }
            Self::RefusedUnknown => {
                " was refused by the processor, and its registers do not show why".to_owned()
            }
            Self::RefusedUnread(place) => {
                format!(": the processor refused the instruction at {place}; the instruction could not be read")
            }
            Self::FileWithoutData { address, path } => format!(
                ": it used {address:#x} of {path}, which is mapped but has no data there: the file was truncated, its disk is full, or it could not be read,"
            ),
            Self::BadUse(address) => {
                format!(": it used address {address:#x} in a way that the memory there does not allow,")
            }
            Self::Arithmetic(FPE_INTDIV) => {
                ": an integer division by zero, or with a result that is too large,".to_owned()
            }
            Self::Arithmetic(code) if FPE_FLOATING.contains(code) => {
                ": a floating-point exception that it had enabled,".to_owned()
            }
            Self::Arithmetic(_) => String::new(),
            Self::ForbiddenCall(number) => {
                let call = match number {
                    Some(number) => match numbers::system_call(*number) {
                        Some(name) => format!("{name} (number {number})"),
                        None => format!("number {number}"),
                    },
                    None => "which one is unknown".to_owned(),
                };
                format!("made a system call that its seccomp filter forbids: {call}")
            }
        }
    }
}

fn stopped(number: i32, thread: Option<&str>) -> String {
    let by = match number {
        4 => "an illegal instruction".to_owned(),
        7 => "a bus error".to_owned(),
        8 => "an arithmetic fault".to_owned(),
        11 => "a bad memory access".to_owned(),
        number => named_signal(number),
    };
    let thread = thread.map_or(String::new(), |thread| format!(" in its thread {thread}"));
    format!("crashed with {by}{thread}")
}

fn holds(at: &AtAddress) -> String {
    match at {
        AtAddress::Nothing => ", where nothing is mapped".to_owned(),
        AtAddress::Forbidden(Some(mapping)) => {
            format!(", in {}, which does not allow this access", named(mapping))
        }
        AtAddress::Forbidden(None) => ", in memory that does not allow this access".to_owned(),
        AtAddress::Mapped(mapping) => format!(", where {} is mapped", named(mapping)),
        AtAddress::Unknown => "; what is there is unknown".to_owned(),
    }
}

fn named(mapping: &Mapping) -> String {
    let name = if mapping.path.is_empty() { "memory" } else { &mapping.path };
    format!("{name} ({})", mapping.permissions)
}
