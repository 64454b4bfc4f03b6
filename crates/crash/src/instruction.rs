//! One instruction: its text, what it needs of a processor, what it does to memory.

use std::collections::BTreeSet;

use anteroom_cpu::{CpuProfile, Feature, Standing};
use iced_x86::{
    Code, Decoder, DecoderOptions, EncodingKind, Formatter, Instruction, InstructionInfoFactory,
    IntelFormatter, Mnemonic, OpAccess, OpKind, Register, UsedMemory,
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
    /// What it reads and writes in memory: each address is computed from registers.
    pub(crate) accesses: Vec<Access>,
}

/// One use of memory by an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    memory: UsedMemory,
    writes: bool,
    /// Bytes.
    size: u64,
    /// Whether an address that is no multiple of the size is refused.
    aligned: bool,
}

/// What the processor's manual says of an address that it refuses without asking the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Bits 47 to 63 are not alike (48-bit addresses; Intel SDM volume 1, 3.3.7.1).
    NotCanonical(u64),
    /// It is no multiple of this many bytes.
    NotAligned(u64, u64),
}

impl Decoded {
    pub(crate) fn uses_memory(&self) -> bool {
        !self.accesses.is_empty()
    }

    /// Whether all memory that it uses it writes.
    pub(crate) fn only_writes(&self) -> bool {
        self.uses_memory() && self.accesses.iter().all(|access| access.writes)
    }

    /// The address that the processor refused, as the registers of the fault have it: `registers` in
    /// the order of `struct user_regs_struct`.
    pub(crate) fn refused(&self, registers: &[u64]) -> Option<Refused> {
        self.accesses.iter().find_map(|access| {
            let value = |register: Register, _, _| match register {
                // In 64-bit code only these two have a base; the others are at zero.
                Register::FS => registers.get(21).copied(),
                Register::GS => registers.get(22).copied(),
                Register::CS | Register::DS | Register::ES | Register::SS => Some(0),
                _ => {
                    let at = place_of(register.full_register())?;
                    let whole = *registers.get(at)?;
                    Some(if register.size() == 4 { whole & 0xffff_ffff } else { whole })
                }
            };
            let address = access.memory.virtual_address(0, value)?;
            let sign = address >> 47;
            match () {
                () if sign != 0 && sign != 0x1_ffff => Some(Refused::NotCanonical(address)),
                () if access.aligned && access.size > 0 && !address.is_multiple_of(access.size) => {
                    Some(Refused::NotAligned(address, access.size))
                }
                () => None,
            }
        })
    }
}

/// Where a general register is in `struct user_regs_struct` (arch/x86/include/asm/user_64.h).
fn place_of(register: Register) -> Option<usize> {
    const ORDER: [Register; 20] = [
        Register::R15,
        Register::R14,
        Register::R13,
        Register::R12,
        Register::RBP,
        Register::RBX,
        Register::R11,
        Register::R10,
        Register::R9,
        Register::R8,
        Register::RAX,
        Register::RCX,
        Register::RDX,
        Register::RSI,
        Register::RDI,
        Register::None,
        Register::RIP,
        Register::None,
        Register::None,
        Register::RSP,
    ];
    ORDER.iter().position(|known| *known == register && register != Register::None)
}

/// Whether an instruction refuses addresses that are not aligned to what it takes: the moves that say
/// so by their names, and all of the older encoding that take 16 bytes and are no unaligned move
/// (Intel SDM volume 1, 10.8.3 and 14.9).
fn wants_alignment(instruction: &Instruction, size: u64) -> bool {
    use Mnemonic as M;
    match instruction.mnemonic() {
        M::Movaps
        | M::Movapd
        | M::Movdqa
        | M::Movntps
        | M::Movntpd
        | M::Movntdq
        | M::Movntdqa
        | M::Vmovaps
        | M::Vmovapd
        | M::Vmovdqa
        | M::Vmovdqa32
        | M::Vmovdqa64
        | M::Vmovntps
        | M::Vmovntpd
        | M::Vmovntdq
        | M::Vmovntdqa => true,
        M::Cmpxchg16b => true,
        M::Movups
        | M::Movupd
        | M::Movdqu
        | M::Lddqu
        | M::Pcmpestri
        | M::Pcmpestrm
        | M::Pcmpistri
        | M::Pcmpistrm
        | M::Maskmovdqu => false,
        _ => {
            size == 16
                && instruction.encoding() == EncodingKind::Legacy
                && (0..instruction.op_count()).any(|n| {
                    instruction.op_kind(n) == OpKind::Register
                        && instruction.op_register(n).is_xmm()
                })
        }
    }
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
    let used = info.info(instruction).used_memory().to_vec();
    let writes_memory = used.iter().any(|memory| writes(memory.access()));
    let accesses = used.into_iter().map(|memory| {
        let size = memory.memory_size().size() as u64;
        let writes = writes(memory.access());
        Access { memory, writes, size, aligned: wants_alignment(instruction, size) }
    });
    Decoded {
        text,
        needs: needs(instruction),
        kind: kind(instruction),
        writes_memory,
        length: instruction.len(),
        accesses: accesses.collect(),
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
