//! Classic BPF for seccomp (`linux/filter.h`, `linux/seccomp.h`).

use super::profile::Argument;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An assembled filter.
pub type Filter = Vec<libc::sock_filter>;

/// What happens to a call.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// The kernel is told this (`SECCOMP_RET_*`).
    Return(u32),
    /// It goes ahead if its first argument is right, and fails with EPERM otherwise.
    If(Argument),
    /// What the first rule says that holds, or else this.
    Rules(Vec<Rule>, u32),
}

impl Verdict {
    /// It goes ahead.
    pub(super) const ALLOW: Self = Self::Return(libc::SECCOMP_RET_ALLOW);

    /// It fails with this error number.
    pub(super) const fn errno(number: i32) -> Self {
        Self::Return(libc::SECCOMP_RET_ERRNO | number.unsigned_abs())
    }
}

/// What happens to a call whose arguments are so.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rule {
    /// All must hold.
    pub(super) conditions: Vec<Condition>,
    /// What the kernel is told.
    pub(super) action: u32,
}

/// A condition on a whole argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Condition {
    /// Its number, from 0 to 5.
    pub(super) argument: u32,
    /// How the argument is compared.
    pub(super) comparison: Comparison,
    /// With what.
    pub(super) value: u64,
}

/// Comparisons of libseccomp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    /// Of these bits of the argument.
    MaskedEqual(u64),
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
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
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

/// Puts the architectures' tables behind a look at the architecture word. A program of any other
/// architecture, or of one without a table, is killed: its numbers mean something else.
pub(super) fn assemble(x86_64: &[(u32, Verdict)], i386: Option<&[(u32, Verdict)]>) -> Filter {
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
    match i386 {
        Some(i386) => {
            filter.push(op(LOAD, NUMBER));
            search(i386, &mut filter);
        }
        None => filter.push(op(RETURN, libc::SECCOMP_RET_KILL_PROCESS)),
    }
    filter
}

/// What is to be done from each number on, given what is to be done with those that are known, and with
/// those between them. What is newer than all does not exist, so that programs which probe for it fall
/// back.
pub(super) fn runs(
    known: impl IntoIterator<Item = (u32, Verdict)>,
    between: &Verdict,
) -> Vec<(u32, Verdict)> {
    let known: BTreeMap<u32, Verdict> = known.into_iter().collect();
    let newest = known.keys().next_back().copied().unwrap_or(0);
    let verdicts = (0..=newest).map(|nr| (nr, known.get(&nr).unwrap_or(between)));
    let beyond = Verdict::errno(libc::ENOSYS);
    let mut runs: Vec<(u32, Verdict)> = Vec::new();
    for (nr, verdict) in verdicts.chain([(newest + 1, &beyond)]) {
        if runs.last().is_none_or(|(_, last)| last != verdict) {
            runs.push((nr, verdict.clone()));
        }
    }
    runs
}

/// A binary search for the run of numbers that the accumulator falls into.
fn search(runs: &[(u32, Verdict)], out: &mut Filter) {
    match runs {
        [] => out.push(REFUSE),
        [(_, verdict)] => decide(verdict, out),
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

fn decide(verdict: &Verdict, out: &mut Filter) {
    match *verdict {
        Verdict::Return(value) => out.push(op(RETURN, value)),
        Verdict::Rules(ref rules, otherwise) => {
            for rule in rules {
                out.extend(one_rule(rule));
            }
            out.push(op(RETURN, otherwise));
        }
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

/// Where a comparison goes on.
#[derive(Clone, Copy)]
enum Next {
    /// With the next instruction.
    On,
    /// Behind the condition: it holds.
    Holds,
    /// Behind the rule: it does not.
    Fails,
}

/// Instructions of a rule, which falls through to the next one where a condition does not hold.
fn one_rule(rule: &Rule) -> Filter {
    let conditions: Vec<_> = rule.conditions.iter().map(one_condition).collect();
    let length: usize = conditions.iter().map(Vec::len).sum();
    let mut out = Filter::new();
    for condition in conditions {
        let behind = out.len() + condition.len();
        for (code, k, jt, jf) in condition {
            let from = out.len() + 1;
            // Six conditions of six instructions each: far less than a jump reaches.
            let distance = |next| match next {
                Next::On => 0,
                Next::Holds => (behind - from) as u8,
                Next::Fails => (length + 1 - from) as u8,
            };
            out.push(branch(code, k, distance(jt), distance(jf)));
        }
    }
    out.push(op(RETURN, rule.action));
    out
}

type Step = (u16, u32, Next, Next);

/// Compares the halves of a 64-bit argument, the high one first.
fn one_condition(condition: &Condition) -> Vec<Step> {
    use Next::{Fails, Holds, On};
    // Of the argument's high half, the low one's word lies before it.
    let low_word = FIRST_ARGUMENT + 8 * condition.argument;
    let load = |word| (LOAD, word, On, On);
    let (high, low) = ((condition.value >> 32) as u32, condition.value as u32);
    let two_halves = |first: Step, second: Option<Step>, last: Step| {
        let mut steps = vec![load(low_word + 4), first];
        steps.extend(second);
        steps.extend([load(low_word), last]);
        steps
    };
    let same_high = Some((JUMP_EQ, high, On, Fails));
    match condition.comparison {
        Comparison::Equal => two_halves(
            (JUMP_EQ, high, On, Fails),
            None,
            (JUMP_EQ, low, Holds, Fails),
        ),
        Comparison::NotEqual => two_halves(
            (JUMP_EQ, high, On, Holds),
            None,
            (JUMP_EQ, low, Fails, Holds),
        ),
        Comparison::Greater => two_halves(
            (JUMP_GT, high, Holds, On),
            same_high,
            (JUMP_GT, low, Holds, Fails),
        ),
        Comparison::GreaterOrEqual => two_halves(
            (JUMP_GT, high, Holds, On),
            same_high,
            (JUMP_GE, low, Holds, Fails),
        ),
        Comparison::Less => two_halves(
            (JUMP_GT, high, Fails, On),
            Some((JUMP_EQ, high, On, Holds)),
            (JUMP_GE, low, Fails, Holds),
        ),
        Comparison::LessOrEqual => two_halves(
            (JUMP_GT, high, Fails, On),
            Some((JUMP_EQ, high, On, Holds)),
            (JUMP_GT, low, Fails, Holds),
        ),
        Comparison::MaskedEqual(mask) => vec![
            load(low_word + 4),
            (AND, (mask >> 32) as u32, On, On),
            (JUMP_EQ, high, On, Fails),
            load(low_word),
            (AND, mask as u32, On, On),
            (JUMP_EQ, low, Holds, Fails),
        ],
    }
}
