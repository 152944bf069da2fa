//! The probe's guest: page tables, descriptor tables, handlers, and one routine at a time.

use kvm_bindings::{CpuId, kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

/// A routine writes its answer here and stops.
pub const ANSWER_PORT: u16 = 0x10;
/// An exception's handler writes its number here and stops.
pub const FAULT_PORT: u16 = 0x11;
/// Instructions of [`counting_loop`] for each round.
pub const INSTRUCTIONS_PER_ROUND: u128 = 2;

// Where things are in the guest's memory.
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
const GDT: u64 = 0x4000;
const IDT: u64 = 0x5000;
const HANDLERS: u64 = 0x6000;
const STACK_TOP: u64 = 0x8000;
const ROUTINE: u64 = 0x8000;
/// Zeroed data for routines: 0x9000, and a page for XSAVE at 0xa000.
const DATA: u64 = 0x9000;
const MEMORY_BYTES: u64 = 0x10_0000;

const CODE_SELECTOR: u16 = 8;
const DATA_SELECTOR: u16 = 16;
/// Exception vectors of the architecture.
const VECTORS: u8 = 32;
const BREAKPOINT: u8 = 3;
const HANDLER_BYTES: u64 = 16;

/// A CPUID bit: leaf, register (0 to 3 are a to d), bit.
type Feature = (u32, usize, u32);

/// An instruction to try.
#[derive(Debug)]
pub struct Test {
    /// Its name.
    pub name: &'static str,
    /// A routine that uses it and answers.
    pub code: &'static [u8],
    /// The answer if it works.
    pub answer: u8,
    /// Where CPUID says that the CPU has it; `None` is always.
    feature: Option<Feature>,
}

impl Test {
    /// Whether the CPU that KVM shows has the instruction.
    pub fn is_offered(&self, cpuid: &CpuId) -> bool {
        let Some((leaf, register, bit)) = self.feature else {
            return true;
        };
        cpuid
            .as_slice()
            .iter()
            .find(|entry| entry.function == leaf && entry.index == 0)
            .is_some_and(|entry| {
                let registers = [entry.eax, entry.ebx, entry.ecx, entry.edx];
                registers[register] & (1 << bit) != 0
            })
    }
}

/// What kernels do early: patch themselves with `int3`, count bits, swap pairs, save vector state,
/// guard user memory.
pub const TESTS: &[Test] = &[
    Test {
        name: "int3",
        // xor ebx, ebx; int3 (its handler sets bl); mov al, bl; out ANSWER, al
        code: &[0x31, 0xdb, 0xcc, 0x88, 0xd8, 0xe6, 0x10, 0xf4],
        answer: 0x33,
        feature: None,
    },
    Test {
        name: "popcnt",
        // mov eax, 0xf0f0; popcnt eax, eax; out ANSWER, al
        code: &[
            0xb8, 0xf0, 0xf0, 0x00, 0x00, 0xf3, 0x0f, 0xb8, 0xc0, 0xe6, 0x10, 0xf4,
        ],
        answer: 8,
        feature: Some((1, 2, 23)),
    },
    Test {
        name: "cmpxchg16b",
        // xor eax, eax; xor edx, edx; xor ecx, ecx; mov ebx, 1; mov edi, DATA;
        // lock cmpxchg16b [rdi]; setz al; out ANSWER, al
        code: &[
            0x31, 0xc0, 0x31, 0xd2, 0x31, 0xc9, 0xbb, 0x01, 0x00, 0x00, 0x00, 0xbf, 0x00, 0x90,
            0x00, 0x00, 0xf0, 0x48, 0x0f, 0xc7, 0x0f, 0x0f, 0x94, 0xc0, 0xe6, 0x10, 0xf4,
        ],
        answer: 1,
        feature: Some((1, 2, 13)),
    },
    Test {
        name: "xsave/xrstor",
        // mov rax, cr4; or eax, OSXSAVE; mov cr4, rax; xor ecx, ecx; xor edx, edx; mov eax, 3;
        // xsetbv; mov edi, DATA + 0x1000; xsave64 [rdi]; xrstor64 [rdi]; mov al, 0x5a;
        // out ANSWER, al
        code: &[
            0x0f, 0x20, 0xe0, 0x0d, 0x00, 0x00, 0x04, 0x00, 0x0f, 0x22, 0xe0, 0x31, 0xc9, 0x31,
            0xd2, 0xb8, 0x03, 0x00, 0x00, 0x00, 0x0f, 0x01, 0xd1, 0xbf, 0x00, 0xa0, 0x00, 0x00,
            0x48, 0x0f, 0xae, 0x27, 0x48, 0x0f, 0xae, 0x2f, 0xb0, 0x5a, 0xe6, 0x10, 0xf4,
        ],
        answer: 0x5a,
        feature: Some((1, 2, 26)),
    },
    Test {
        name: "clac",
        // clac; mov al, 1; out ANSWER, al
        code: &[0x0f, 0x01, 0xca, 0xb0, 0x01, 0xe6, 0x10, 0xf4],
        answer: 1,
        feature: Some((7, 1, 20)),
    },
];

/// A routine of so many rounds of two instructions.
pub fn counting_loop(rounds: u32) -> Vec<u8> {
    // mov ecx, rounds; 1: dec ecx; jnz 1b; out ANSWER, al; hlt
    let mut code = vec![0xb9];
    code.extend_from_slice(&rounds.to_le_bytes());
    code.extend_from_slice(&[0xff, 0xc9, 0x75, 0xfc, 0xe6, 0x10, 0xf4]);
    code
}

/// The guest's memory.
pub const fn memory_ranges() -> [(u64, u64); 1] {
    [(0, MEMORY_BYTES)]
}

/// Fills in everything but the routine.
pub fn load<M: Bytes<GuestAddress, E = GuestMemoryError>>(
    memory: &M,
) -> Result<(), GuestMemoryError> {
    let word = |value: u64, at: u64| memory.write_slice(&value.to_le_bytes(), GuestAddress(at));
    // One page of 2 MiB, present and writable, covers it all.
    word(PDPT | 0b11, PML4)?;
    word(PD | 0b11, PDPT)?;
    word(0b1000_0011, PD)?;
    // Flat code and data, as `kernel_mode` loads them.
    word(0x00af_9b00_0000_ffff, GDT + u64::from(CODE_SELECTOR))?;
    word(0x00cf_9300_0000_ffff, GDT + u64::from(DATA_SELECTOR))?;
    for vector in 0..VECTORS {
        let handler = HANDLERS + u64::from(vector) * HANDLER_BYTES;
        // An interrupt gate, present: offset, selector, type, offset.
        let low = (handler & 0xffff)
            | u64::from(CODE_SELECTOR) << 16
            | 0x8e00 << 32
            | (handler >> 16 & 0xffff) << 48;
        word(low, IDT + u64::from(vector) * 16)?;
        word(0, IDT + u64::from(vector) * 16 + 8)?;
        let code: [u8; 5] = if vector == BREAKPOINT {
            [0xb3, 0x33, 0x48, 0xcf, 0xf4] // mov bl, 0x33; iretq
        } else {
            [0xb0, vector, 0xe6, 0x11, 0xf4] // mov al, vector; out FAULT, al; hlt
        };
        memory.write_slice(&code, GuestAddress(handler))?;
    }
    Ok(())
}

/// Puts a routine where execution starts, and zeroes the data it finds.
pub fn load_routine<M: Bytes<GuestAddress, E = GuestMemoryError>>(
    memory: &M,
    code: &[u8],
) -> Result<(), GuestMemoryError> {
    memory.write_slice(&[0; 0x2000], GuestAddress(DATA))?;
    memory.write_slice(code, GuestAddress(ROUTINE))
}

/// 64-bit mode at the highest privilege (Intel SDM volume 3, chapter 10.8).
pub fn kernel_mode(sregs: &mut kvm_sregs) {
    const CR0_PE_MP_ET_NE_PG: u64 = 1 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 31;
    const CR4_PAE_OSFXSR_OSXMMEXCPT: u64 = 1 << 5 | 1 << 9 | 1 << 10;
    const EFER_LME_LMA: u64 = 1 << 8 | 1 << 10;
    let segment = |selector, type_, long| kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: 1 - long,
        s: 1,
        l: long,
        g: 1,
        ..kvm_segment::default()
    };
    sregs.cs = segment(CODE_SELECTOR, 11, 1);
    let data = segment(DATA_SELECTOR, 3, 0);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.gdt.base = GDT;
    sregs.gdt.limit = 23;
    sregs.idt.base = IDT;
    sregs.idt.limit = u16::from(VECTORS) * 16 - 1;
    sregs.cr0 = CR0_PE_MP_ET_NE_PG;
    sregs.cr3 = PML4;
    sregs.cr4 = CR4_PAE_OSFXSR_OSXMMEXCPT;
    sregs.efer = EFER_LME_LMA;
}

/// At the start of the routine, interrupts off.
pub fn registers() -> kvm_regs {
    kvm_regs {
        rip: ROUTINE,
        rsp: STACK_TOP,
        rflags: 2,
        ..kvm_regs::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routines_answer_and_fit() {
        for test in TESTS {
            assert!(test.code.ends_with(&[0xe6, 0x10, 0xf4]), "{}", test.name);
            assert!((test.code.len() as u64) < DATA - ROUTINE);
        }
        assert!(counting_loop(1).len() < 32);
    }
}
