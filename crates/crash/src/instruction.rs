//! One instruction: its text, what it needs of a processor, what it does to memory.

use std::collections::BTreeSet;

use anteroom_cpu::{CpuProfile, Feature, Standing};
use iced_x86::{
    Code, Decoder, DecoderOptions, Formatter, Instruction, InstructionInfoFactory, IntelFormatter,
    Mnemonic, OpAccess,
};

/// A decoded instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// In Intel's syntax.
    pub text: String,
    /// What a processor must have to execute it, beyond what each x86-64 one has.
    pub needs: BTreeSet<Feature>,
    /// What it is for, as far as that explains a fault.
    pub kind: Kind,
    /// Whether it writes memory.
    pub writes_memory: bool,
    /// Bytes.
    pub length: usize,
}

/// What an instruction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is there to stop the program: `ud2` and its like, `int3`.
    Trap,
    /// Only a kernel may execute it.
    Privileged,
    /// Calls, pushes, returns: what uses the stack.
    Stack,
    /// Anything else.
    Other,
}

/// The first instruction of `bytes`, taken from address `ip`; `None` when they are none.
#[must_use]
pub fn decode(bytes: &[u8], ip: u64) -> Option<Decoded> {
    let mut decoder = Decoder::with_ip(64, bytes, ip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    (!instruction.is_invalid()).then(|| describe(&instruction))
}

fn describe(instruction: &Instruction) -> Decoded {
    let mut text = String::new();
    let mut formatter = IntelFormatter::new();
    formatter.options_mut().set_space_after_operand_separator(true);
    formatter.format(instruction, &mut text);
    let mut info = InstructionInfoFactory::new();
    let writes = |access| {
        matches!(
            access,
            OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite
        )
    };
    let writes_memory =
        info.info(instruction).used_memory().iter().any(|memory| writes(memory.access()));
    Decoded {
        text,
        needs: needs(instruction),
        kind: kind(instruction),
        writes_memory,
        length: instruction.len(),
    }
}

fn kind(instruction: &Instruction) -> Kind {
    match instruction.code() {
        Code::Ud2
        | Code::Ud0
        | Code::Ud0_r16_rm16
        | Code::Ud0_r32_rm32
        | Code::Ud0_r64_rm64
        | Code::Ud1_r16_rm16
        | Code::Ud1_r32_rm32
        | Code::Ud1_r64_rm64
        | Code::Int3 => Kind::Trap,
        _ if instruction.is_privileged() => Kind::Privileged,
        _ if instruction.is_stack_instruction() => Kind::Stack,
        _ => Kind::Other,
    }
}

/// What an instruction needs beyond the base of x86-64. Names that [`Feature`] does not know are of
/// that base, or of no program that runs as a user.
pub(crate) fn needs(instruction: &Instruction) -> BTreeSet<Feature> {
    // These run as BSF, BSR and nothing on processors without them, with other results and no fault.
    if matches!(instruction.mnemonic(), Mnemonic::Tzcnt | Mnemonic::Lzcnt | Mnemonic::Prefetchw) {
        return BTreeSet::new();
    }
    instruction
        .cpuid_features()
        .iter()
        .filter_map(|feature| Feature::from_name(&format!("{feature:?}")))
        .collect()
}

/// Which of `needs` the processor lacks for certain.
pub(crate) fn missing(needs: &BTreeSet<Feature>, cpu: &CpuProfile) -> Vec<Feature> {
    needs.iter().copied().filter(|feature| cpu.standing(*feature) == Standing::Off).collect()
}
