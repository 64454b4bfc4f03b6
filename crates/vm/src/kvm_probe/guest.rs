//! The probe's guest: 32 KiB of memory, one processor, put straight into 64-bit mode.

use std::time::{Duration, Instant};

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_segment, kvm_sregs, kvm_userspace_memory_region};
use kvm_ioctls::{Error, Kvm, VcpuExit, VcpuFd, VmFd};
use memmap2::MmapMut;

use super::KvmObstacle;

/// Turns of the timed loop, two instructions each.
const TURNS: u32 = 100_000;

/// Instructions of the timed loop.
pub(super) const LOOP_INSTRUCTIONS: u64 = TURNS as u64 * 2;

/// Where things lie in the guest's memory; the first 2 MiB are mapped to themselves.
const PML4: usize = 0x1000;
const PDPT: usize = 0x2000;
const DIRECTORY: usize = 0x3000;
const IDT: usize = 0x4000;
const GDT: usize = 0x4800;
const HANDLER: usize = 0x4c00;
const LOOP: usize = 0x5000;
const INSTRUCTIONS: usize = 0x5800;
const DATA: usize = 0x6000;
const PROGRESS: usize = 0x7000;
const STACK: usize = 0x8000;
const MEMORY: usize = 0x8000;

const CODE_SELECTOR: u16 = 0x08;
const DATA_SELECTOR: u16 = 0x10;

const HLT: u8 = 0xf4;

/// Name and encoding of what a stock kernel runs early and what emulators have been seen to miss.
/// `rdi` points at zeroed, aligned memory; all other registers are zero but `rax`, which is 1.
const CHECKED: [(&str, &[u8]); 4] = [
    ("fxsave", &[0x48, 0x0f, 0xae, 0x07]),
    ("fxrstor", &[0x48, 0x0f, 0xae, 0x0f]),
    ("int3", &[0xcc]),
    ("cmpxchg16b", &[0xf0, 0x48, 0x0f, 0xc7, 0x0f]),
];

/// The same, where the processor has XSAVE. Component 0 alone, which is always on.
const CHECKED_XSAVE: [(&str, &[u8]); 2] =
    [("xsave", &[0x48, 0x0f, 0xae, 0x27]), ("xrstor", &[0x48, 0x0f, 0xae, 0x2f])];

/// A VM that only ever runs the probe. Fields are dropped in this order: memory last.
pub(super) struct Guest {
    vcpu: VcpuFd,
    _vm: VmFd,
    memory: MmapMut,
    names: Vec<&'static str>,
}

type Step<T> = Result<T, (&'static str, Error)>;

fn step<T>(operation: &'static str, result: Result<T, Error>) -> Step<T> {
    result.map_err(|error| (operation, error))
}

impl Guest {
    /// The operation that failed, and why.
    pub(super) fn new() -> Step<Self> {
        let kvm = step("opening /dev/kvm", Kvm::new())?;
        let vm = step("creating a VM with /dev/kvm", kvm.create_vm())?;
        // Older Intel processors want three pages for themselves.
        step("placing the task segment", vm.set_tss_address(0xfffb_d000))?;
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
        let cpuid = step("asking for the processor's features", cpuid)?;
        let xsave =
            cpuid.as_slice().iter().any(|leaf| leaf.function == 1 && leaf.ecx >> 26 & 1 == 1);
        let memory = MmapMut::map_anon(MEMORY)
            .map_err(|error| Error::new(error.raw_os_error().unwrap_or_default()));
        let mut memory = step("taking memory", memory)?;
        let names = fill(&mut memory, xsave);
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: MEMORY as u64,
            userspace_addr: memory.as_mut_ptr() as u64,
        };
        // SAFETY: the mapping is this long, outlives the VM (dropped after it), and nothing else
        // uses it while the guest runs.
        #[expect(unsafe_code, reason = "KVM takes memory by its address")]
        let given = unsafe { vm.set_user_memory_region(region) };
        step("giving memory to the VM", given)?;
        let vcpu = step("creating a processor", vm.create_vcpu(0))?;
        step("setting its features", vcpu.set_cpuid2(&cpuid))?;
        let mut special = step("reading its registers", vcpu.get_sregs())?;
        enter_long_mode(&mut special, xsave);
        step("setting its registers", vcpu.set_sregs(&special))?;
        Ok(Self { vcpu, _vm: vm, memory, names })
    }

    /// How long the loop took.
    pub(super) fn run_loop(&mut self) -> Result<Duration, KvmObstacle> {
        let started = Instant::now();
        self.run_from(LOOP)
            .map_err(|exit| KvmObstacle::Instruction { instruction: "dec", exit })?;
        Ok(started.elapsed())
    }

    /// Runs each checked instruction once.
    pub(super) fn run_instructions(&mut self) -> Result<(), KvmObstacle> {
        self.run_from(INSTRUCTIONS).map_err(|exit| {
            let reached = usize::from(self.memory[PROGRESS]);
            let instruction = self.names.get(reached).copied().unwrap_or("hlt");
            KvmObstacle::Instruction { instruction, exit }
        })
    }

    /// Runs to the next `hlt`; the error is how it left instead.
    fn run_from(&mut self, entry: usize) -> Result<(), String> {
        let mut registers = self.vcpu.get_regs().map_err(|error| error.to_string())?;
        registers.rip = entry as u64;
        registers.rsp = STACK as u64;
        registers.rflags = 2;
        registers.rdi = DATA as u64;
        (registers.rax, registers.rbx, registers.rcx, registers.rdx) = (1, 0, 0, 0);
        self.vcpu.set_regs(&registers).map_err(|error| error.to_string())?;
        match self.vcpu.run() {
            Ok(VcpuExit::Hlt) => Ok(()),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Tables and programs; the names of the checked instructions, in order.
fn fill(memory: &mut [u8], xsave: bool) -> Vec<&'static str> {
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE: u64 = 0x80;
    let mut put = |at: usize, bytes: &[u8]| memory[at..at + bytes.len()].copy_from_slice(bytes);
    put(PML4, &(PDPT as u64 | PRESENT_WRITABLE).to_le_bytes());
    put(PDPT, &(DIRECTORY as u64 | PRESENT_WRITABLE).to_le_bytes());
    put(DIRECTORY, &(LARGE | PRESENT_WRITABLE).to_le_bytes());
    // Flat 64-bit code and data (Intel SDM volume 3, 3.4.5).
    put(GDT + 8, &0x00af_9b00_0000_ffff_u64.to_le_bytes());
    put(GDT + 16, &0x00cf_9300_0000_ffff_u64.to_le_bytes());
    // An interrupt gate for the breakpoint exception (6.14.1); its handler only returns.
    let gate = (HANDLER as u64) | u64::from(CODE_SELECTOR) << 16 | 0x8e00 << 32;
    put(IDT + 3 * 16, &gate.to_le_bytes());
    put(HANDLER, &[0x48, 0xcf]);

    // mov ecx, TURNS; back: dec ecx; jnz back; hlt
    let mut code = vec![0xb9];
    code.extend(TURNS.to_le_bytes());
    code.extend([0xff, 0xc9, 0x75, 0xfc, HLT]);
    put(LOOP, &code);

    let extra: &[(&str, &[u8])] = if xsave { &CHECKED_XSAVE } else { &[] };
    let mut program = Vec::new();
    let mut names = Vec::new();
    for (number, (name, bytes)) in (0_u8..).zip(CHECKED.iter().chain(extra)) {
        // mov byte [PROGRESS], number
        program.extend([0xc6, 0x04, 0x25]);
        program.extend([0x00, 0x70, 0x00, 0x00]);
        program.push(number);
        program.extend(*bytes);
        names.push(*name);
    }
    program.push(HLT);
    put(INSTRUCTIONS, &program);
    names
}

fn enter_long_mode(special: &mut kvm_sregs, xsave: bool) {
    let code = kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: CODE_SELECTOR,
        type_: 11,
        present: 1,
        s: 1,
        l: 1,
        g: 1,
        ..kvm_segment::default()
    };
    let data = kvm_segment { selector: DATA_SELECTOR, type_: 3, l: 0, db: 1, ..code };
    special.cs = code;
    (special.ds, special.es, special.ss) = (data, data, data);
    (special.gdt.base, special.gdt.limit) = (GDT as u64, 23);
    (special.idt.base, special.idt.limit) = (IDT as u64, 4 * 16 - 1);
    special.cr3 = PML4 as u64;
    // Page size extension (PAE), FXSAVE and SSE exceptions; XSAVE where there is one.
    special.cr4 = 1 << 5 | 1 << 9 | 1 << 10 | u64::from(xsave) << 18;
    // Protection, coprocessor, native errors, paging.
    special.cr0 = 1 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 31;
    // Long mode enabled and active.
    special.efer = 1 << 8 | 1 << 10;
}
