//! Which devices a container may use: a hand-assembled BPF program on its cgroup.
//!
//! Docker's rules: any node may be made, which is what CAP_MKNOD is for, but only those of
//! [`ALLOWED`] may be opened. A node of a host disk in the container is inert.

/// A character device that every container may open, by major and perhaps minor number.
const ALLOWED: &[(u32, Option<u32>)] = &[
    (1, Some(3)), // null
    (1, Some(5)), // zero
    (1, Some(7)), // full
    (1, Some(8)), // random
    (1, Some(9)), // urandom
    (5, Some(0)), // tty
    (5, Some(1)), // console
    (5, Some(2)), // ptmx
    (136, None),  // pts/*
];

// `struct bpf_cgroup_dev_ctx` of `linux/bpf.h`: three words at these offsets.
const ACCESS_TYPE: u64 = 0;
const MAJOR: u64 = 4;
const MINOR: u64 = 8;
const BPF_DEVCG_ACC_MKNOD: u32 = 1;
const BPF_DEVCG_DEV_CHAR: u32 = 2;

// Registers: r1 is the context, r0 the verdict.
const ACCESS: u64 = 2;
const TYPE: u64 = 3;
const MAJ: u64 = 4;
const MIN: u64 = 5;

/// `struct bpf_insn`, packed into a word: opcode, registers, jump offset, immediate.
const fn instruction(code: u64, dst: u64, src: u64, offset: i16, immediate: u32) -> u64 {
    code | dst << 8 | src << 12 | (offset as u16 as u64) << 16 | (immediate as u64) << 32
}

const fn load_word(dst: u64, offset: u64) -> u64 {
    instruction(0x61, dst, 1, offset as i16, 0)
}

const fn jump_unless_equal(dst: u64, value: u32, over: i16) -> u64 {
    instruction(0x55, dst, 0, over, value)
}

/// `return verdict`: two instructions.
const fn verdict(value: u32) -> [u64; 2] {
    [
        instruction(0xb7, 0, 0, 0, value),
        instruction(0x95, 0, 0, 0, 0),
    ]
}

/// The program.
pub(super) fn program() -> Vec<u64> {
    let mut out = vec![
        load_word(ACCESS, ACCESS_TYPE),
        instruction(0xbc, TYPE, ACCESS, 0, 0), // w3 = w2
        instruction(0x54, TYPE, 0, 0, 0xffff), // w3 &= 0xffff
        instruction(0x74, ACCESS, 0, 0, 16),   // w2 >>= 16
        load_word(MAJ, MAJOR),
        load_word(MIN, MINOR),
        // Making a node and nothing else is always allowed.
        jump_unless_equal(ACCESS, BPF_DEVCG_ACC_MKNOD, 2),
    ];
    out.extend(verdict(1));
    out.push(jump_unless_equal(
        TYPE,
        BPF_DEVCG_DEV_CHAR,
        refuse_distance(),
    ));
    for &(major, minor) in ALLOWED {
        match minor {
            Some(minor) => out.extend([
                jump_unless_equal(MAJ, major, 3),
                jump_unless_equal(MIN, minor, 2),
            ]),
            None => out.push(jump_unless_equal(MAJ, major, 2)),
        }
        out.extend(verdict(1));
    }
    out.extend(verdict(0));
    out
}

/// How many instructions the rules of [`ALLOWED`] take.
fn refuse_distance() -> i16 {
    ALLOWED
        .iter()
        .map(|rule| if rule.1.is_some() { 4 } else { 3 })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interprets the program for an access (1 mknod, 2 read, 4 write) to a device.
    fn allowed(kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let program = program();
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0u32; 6];
        let mut at = 0;
        loop {
            let i = program[at];
            let (dst, src) = ((i >> 8 & 15) as usize, (i >> 12 & 15) as usize);
            let (offset, immediate) = ((i >> 16) as i16, (i >> 32) as u32);
            at += 1;
            match i & 0xff {
                0x61 => registers[dst] = context[offset as usize / 4],
                0xbc => registers[dst] = registers[src],
                0x54 => registers[dst] &= immediate,
                0x74 => registers[dst] >>= immediate,
                0x55 if registers[dst] != immediate => at += offset as usize,
                0x55 => {}
                0xb7 => registers[dst] = immediate,
                0x95 => return registers[0] == 1,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn dockers_rules() {
        const BLOCK: u32 = 1;
        const CHAR: u32 = 2;
        assert!(allowed(CHAR, 6, 1, 3));
        assert!(allowed(CHAR, 7, 1, 9));
        assert!(allowed(CHAR, 6, 5, 2));
        assert!(allowed(CHAR, 6, 136, 40));
        assert!(!allowed(CHAR, 2, 1, 1), "mem");
        assert!(!allowed(CHAR, 2, 10, 232), "kvm");
        assert!(!allowed(BLOCK, 2, 8, 0), "disk");
        assert!(!allowed(BLOCK, 2, 1, 3), "a disk with null's numbers");
        assert!(allowed(BLOCK, 1, 8, 0), "mknod of a disk");
        assert!(!allowed(BLOCK, 3, 8, 0), "mknod and read of a disk");
    }
}
