//! Classic BPF for seccomp (`linux/filter.h`, `linux/seccomp.h`).

use super::profile::Argument;

/// An assembled filter.
pub(crate) type Filter = Vec<libc::sock_filter>;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Verdict {
    /// It goes ahead.
    Allow,
    /// It fails with this error number.
    Errno(u16),
    /// It goes ahead if its first argument is right, and fails with EPERM otherwise.
    If(Argument),
}

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// Low half of the first argument, on a little-endian machine.
const FIRST_ARGUMENT: u32 = 16;

// `AUDIT_ARCH_*` of `linux/audit.h`.
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
/// Numbers from here on are of the x32 ABI, which shares the architecture word of x86-64.
const X32_BIT: u32 = 0x4000_0000;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQ: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_GT: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const JUMP_GE: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const JUMP_SET: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const fn op(code: u16, k: u32) -> libc::sock_filter {
    branch(code, k, 0, 0)
}

const fn branch(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

const fn errno(number: u16) -> libc::sock_filter {
    op(RETURN, libc::SECCOMP_RET_ERRNO | number as u32)
}

const ALLOW: libc::sock_filter = op(RETURN, libc::SECCOMP_RET_ALLOW);
const REFUSE: libc::sock_filter = errno(libc::EPERM as u16);

/// Puts the two architectures' tables behind a look at the architecture word. A program of any
/// other architecture is killed: its numbers mean something else.
pub(super) fn assemble(x86_64: &[(u32, Verdict)], i386: &[(u32, Verdict)]) -> Filter {
    let mut native = vec![
        op(LOAD, NUMBER),
        // x32 is a compile-time rarity that distributions leave off; it stays off.
        branch(JUMP_GE, X32_BIT, 0, 1),
        errno(libc::ENOSYS as u16),
    ];
    search(x86_64, &mut native);
    let mut filter = vec![
        op(LOAD, ARCHITECTURE),
        branch(JUMP_EQ, X86_64, 3, 0),
        branch(JUMP_EQ, I386, 1, 0),
        op(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        op(JUMP, native.len() as u32),
    ];
    filter.append(&mut native);
    filter.push(op(LOAD, NUMBER));
    search(i386, &mut filter);
    filter
}

/// A binary search for the run of numbers that the accumulator falls into.
fn search(runs: &[(u32, Verdict)], out: &mut Filter) {
    match runs {
        [] => out.push(REFUSE),
        [(_, verdict)] => decide(*verdict, out),
        _ => {
            let (low, high) = runs.split_at(runs.len() / 2);
            let mut left = Filter::new();
            search(low, &mut left);
            let from = high.first().map_or(0, |run| run.0);
            match u8::try_from(left.len()) {
                Ok(over) => out.push(branch(JUMP_GE, from, over, 0)),
                // Conditional jumps reach 255 instructions; further is for the plain one.
                Err(_) => {
                    out.push(branch(JUMP_GE, from, 0, 1));
                    out.push(op(JUMP, left.len() as u32));
                }
            }
            out.append(&mut left);
            search(high, out);
        }
    }
}

fn decide(verdict: Verdict, out: &mut Filter) {
    match verdict {
        Verdict::Allow => out.push(ALLOW),
        Verdict::Errno(number) => out.push(errno(number)),
        Verdict::If(Argument::NoneOf(bits)) => out.extend([
            op(LOAD, FIRST_ARGUMENT),
            branch(JUMP_SET, bits, 0, 1),
            REFUSE,
            ALLOW,
        ]),
        Verdict::If(Argument::In(ranges)) => {
            out.push(op(LOAD, FIRST_ARGUMENT));
            for &(first, last) in ranges {
                out.extend([
                    branch(JUMP_GE, first, 0, 2),
                    branch(JUMP_GT, last, 1, 0),
                    ALLOW,
                ]);
            }
            out.push(REFUSE);
        }
    }
}
