//! BPF programs on a container's control group: which devices it may use, and whether it may set the
//! kernel's parameters. Hand-assembled; loading them is the caller's.

use hullbox_protocol::{DeviceAccess, DeviceKind, DeviceRule};

/// `BPF_PROG_TYPE_CGROUP_DEVICE` of `linux/bpf.h`.
pub const DEVICE_PROGRAM: u32 = 15;
/// `BPF_CGROUP_DEVICE`: where one of those is attached.
pub const DEVICE_HOOK: u32 = 6;
/// `BPF_PROG_TYPE_CGROUP_SYSCTL`.
pub const PARAMETER_PROGRAM: u32 = 23;
/// `BPF_CGROUP_SYSCTL`.
pub const PARAMETER_HOOK: u32 = 18;

const fn character(major: u32, minor: Option<u32>) -> DeviceRule {
    DeviceRule {
        kind: Some(DeviceKind::Char),
        major: Some(major),
        minor,
        access: DeviceAccess::ALL,
    }
}

/// What every container may do, as Docker has it: make any node, which is what CAP_MKNOD is for, and
/// use these. A node of a disk is inert.
pub const EVERYBODY: [DeviceRule; 10] = [
    DeviceRule {
        kind: None,
        major: None,
        minor: None,
        access: DeviceAccess {
            read: false,
            write: false,
            make: true,
        },
    },
    character(1, Some(3)), // null
    character(1, Some(5)), // zero
    character(1, Some(7)), // full
    character(1, Some(8)), // random
    character(1, Some(9)), // urandom
    character(5, Some(0)), // tty
    character(5, Some(1)), // console
    character(5, Some(2)), // ptmx
    character(136, None),  // pts/*
];

/// What a microVM has for itself besides.
pub const IN_A_VM: [DeviceRule; 2] = [
    character(10, Some(229)), // fuse
    character(10, Some(200)), // net/tun
];

// `struct bpf_cgroup_dev_ctx`: three words at these offsets.
const ACCESS_TYPE: i16 = 0;
const MAJOR: i16 = 4;
const MINOR: i16 = 8;

// Registers: r0 is the verdict, r1 the context and later scratch, r10 the end of the stack.
const SCRATCH: u64 = 1;
const ACCESS: u64 = 2;
const TYPE: u64 = 3;
const MAJ: u64 = 4;
const MIN: u64 = 5;

/// `struct bpf_insn`, packed into a word: opcode, registers, jump offset, immediate.
const fn instruction(code: u64, dst: u64, src: u64, offset: i16, immediate: u32) -> u64 {
    code | dst << 8 | src << 12 | (offset as u16 as u64) << 16 | (immediate as u64) << 32
}

const fn load_word(dst: u64, src: u64, offset: i16) -> u64 {
    instruction(0x61, dst, src, offset, 0)
}

const fn jump_if_equal(dst: u64, value: u32, over: i16) -> u64 {
    instruction(0x15, dst, 0, over, value)
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

const fn access_bits(access: DeviceAccess) -> u32 {
    // BPF_DEVCG_ACC_*.
    access.make as u32 | (access.read as u32) << 1 | (access.write as u32) << 2
}

/// The program that allows what one of the rules does, and nothing else.
#[must_use]
pub fn devices<'a>(rules: impl IntoIterator<Item = &'a DeviceRule>) -> Vec<u64> {
    let mut out = vec![
        load_word(ACCESS, 1, ACCESS_TYPE),
        load_word(MAJ, 1, MAJOR),
        load_word(MIN, 1, MINOR),
        instruction(0xbc, TYPE, ACCESS, 0, 0), // w3 = w2
        instruction(0x54, TYPE, 0, 0, 0xffff), // w3 &= 0xffff
        instruction(0x74, ACCESS, 0, 0, 16),   // w2 >>= 16
    ];
    for rule in rules {
        out.extend(one_rule(rule));
    }
    out.extend(verdict(0));
    out
}

fn one_rule(rule: &DeviceRule) -> Vec<u64> {
    let kind = rule.kind.map(|kind| match kind {
        DeviceKind::Block => 1,
        DeviceKind::Char => 2,
    });
    let refused = !access_bits(rule.access) & 0b111;
    let mut conditions: Vec<(u64, u32)> = [(TYPE, kind), (MAJ, rule.major), (MIN, rule.minor)]
        .into_iter()
        .filter_map(|(register, value)| Some((register, value?)))
        .collect();
    let mut out = Vec::new();
    if refused != 0 {
        out.push(instruction(0xbc, SCRATCH, ACCESS, 0, 0));
        out.push(instruction(0x54, SCRATCH, 0, 0, refused));
        conditions.insert(0, (SCRATCH, 0));
    }
    let mut over = conditions.len() as i16 + 1;
    for (register, value) in conditions {
        out.push(jump_unless_equal(register, value, over));
        over -= 1;
    }
    out.extend(verdict(1));
    out
}

/// The program that lets parameters of the kernel (`/proc/sys`) be read and not written, but for
/// those of network and user namespaces, in which the kernel itself asks who owns the namespace.
///
/// It judges whatever mount of /proc somebody comes by: in a user namespace of their own, anybody can
/// have one in which nothing is covered.
#[must_use]
pub fn parameters() -> Vec<u64> {
    /// `bpf_sysctl_get_name`.
    const GET_NAME: u32 = 101;
    const STACK: u64 = 10;
    let name = |text: &[u8; 4]| u32::from_le_bytes(*text);
    let mut out = vec![
        load_word(2, 1, 0), // whether it is a write
        jump_if_equal(2, 0, 11),
        instruction(0x7a, STACK, 0, -8, 0), // eight zero bytes, which the helper wants
        instruction(0xbf, 2, STACK, 0, 0),
        instruction(0x07, 2, 0, 0, -8i32 as u32),
        instruction(0xb7, 3, 0, 0, 8),
        instruction(0xb7, 4, 0, 0, 0), // the name from its beginning: what fits is enough
        instruction(0x85, 0, 0, 0, GET_NAME),
        load_word(2, STACK, -8),
        jump_if_equal(2, name(b"net/"), 3),
        jump_if_equal(2, name(b"user"), 2),
    ];
    out.extend(verdict(0));
    out.extend(verdict(1));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interprets a device program for an access (1 mknod, 2 read, 4 write) to a device.
    fn allowed(program: &[u64], kind: u32, access: u32, major: u32, minor: u32) -> bool {
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

    const BLOCK: u32 = 1;
    const CHAR: u32 = 2;

    #[test]
    fn dockers_rules() {
        let program = devices(&EVERYBODY);
        let allowed = |kind, access, major, minor| allowed(&program, kind, access, major, minor);
        assert!(allowed(CHAR, 6, 1, 3));
        assert!(allowed(CHAR, 7, 1, 9));
        assert!(allowed(CHAR, 6, 5, 2));
        assert!(allowed(CHAR, 6, 136, 40));
        assert!(!allowed(CHAR, 2, 1, 1), "mem");
        assert!(!allowed(CHAR, 2, 10, 232), "kvm");
        assert!(!allowed(CHAR, 6, 10, 229), "fuse of a host");
        assert!(!allowed(BLOCK, 2, 8, 0), "disk");
        assert!(!allowed(BLOCK, 2, 1, 3), "a disk with null's numbers");
        assert!(allowed(BLOCK, 1, 8, 0), "mknod of a disk");
        assert!(!allowed(BLOCK, 3, 8, 0), "mknod and read of a disk");
    }

    #[test]
    fn a_device_may_be_used_as_its_rule_says() {
        let own = [
            DeviceRule {
                kind: Some(DeviceKind::Block),
                major: Some(7),
                minor: Some(3),
                access: DeviceAccess {
                    read: true,
                    write: false,
                    make: false,
                },
            },
            DeviceRule {
                kind: Some(DeviceKind::Char),
                major: Some(10),
                minor: None,
                access: DeviceAccess::ALL,
            },
        ];
        let program = devices(EVERYBODY.iter().chain(&own));
        let allowed = |kind, access, major, minor| allowed(&program, kind, access, major, minor);
        assert!(allowed(BLOCK, 2, 7, 3));
        assert!(!allowed(BLOCK, 4, 7, 3), "read-only");
        assert!(!allowed(BLOCK, 6, 7, 3));
        assert!(!allowed(BLOCK, 2, 7, 4));
        assert!(allowed(CHAR, 7, 10, 232));
        assert!(!allowed(BLOCK, 2, 10, 232));
        let program = devices(EVERYBODY.iter().chain(&IN_A_VM));
        assert!(super::tests::allowed(&program, CHAR, 6, 10, 200), "tun");
    }

    #[test]
    fn parameters_jump_to_their_verdicts() {
        let program = parameters();
        assert_eq!(program.len(), 15);
        let target = |at: usize| at + 1 + usize::try_from((program[at] >> 16) as i16).unwrap();
        for jump in [1, 9, 10] {
            assert_eq!(target(jump), 13, "{jump}");
        }
        assert_eq!(program[11] >> 32, 0, "refused");
        assert_eq!(program[13] >> 32, 1, "allowed");
    }
}
