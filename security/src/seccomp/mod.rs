//! The seccomp filter of a container: Docker's default profile or one of the user's, resolved for its
//! capabilities and assembled into classic BPF.
//!
//! In a microVM the kernel that is protected is the container's own. There the default profile also
//! allows what namespaces of a user's own take (bubblewrap, browsers, nested containers without
//! privileges), which Docker's refuses, and what reaches nothing but that kernel's memory.
//!
//! The filter is a binary search over the call number, so that a call costs some eight
//! comparisons whatever its number, and the kernel's cache of calls that are always allowed
//! takes over after the first look.

mod assemble;
mod custom;
mod numbers;
mod profile;

pub use assemble::Filter;

use assemble::{Comparison, Condition, Rule, Verdict, runs};
pub use custom::Profile;
use hullbox_model::isolation::Isolation;
use hullbox_model::value::ValueError;
use profile::Argument;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which system calls of a container are filtered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub enum Seccomp {
    /// By Docker's default profile; not at all if the container is privileged.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// By a profile of the user's.
    Profile(Profile),
}

impl Seccomp {
    /// Reads a profile in Docker's form or OCI's.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        Profile::parse(text).map(Self::Profile)
    }

    /// The filter, as [`hullbox_protocol::Access`] carries it.
    #[must_use]
    pub fn filter(&self, isolation: Isolation, capabilities: u64, privileged: bool) -> Vec<u8> {
        match self {
            Self::Default if !privileged => to_bytes(&filter_for(isolation, capabilities)),
            Self::Profile(profile) => to_bytes(&profile.filter(capabilities)),
            Self::Default | Self::Unconfined => Vec::new(),
        }
    }
}

/// Eight bytes an instruction, as the kernel has it in memory.
fn to_bytes(filter: &Filter) -> Vec<u8> {
    let instruction = |i: &libc::sock_filter| {
        let [code, k] = [i.code.to_le_bytes().to_vec(), i.k.to_le_bytes().to_vec()];
        [code, vec![i.jt, i.jf], k].concat()
    };
    filter.iter().flat_map(instruction).collect()
}

/// The other way; a rest that is no instruction is left out.
#[must_use]
pub fn from_bytes(bytes: &[u8]) -> Filter {
    let (whole, _) = bytes.as_chunks::<8>();
    let instruction = |bytes: &[u8; 8]| libc::sock_filter {
        code: u16::from_le_bytes([bytes[0], bytes[1]]),
        jt: bytes[2],
        jf: bytes[3],
        k: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    };
    whole.iter().map(instruction).collect()
}

/// The default filter for a container that holds `capabilities` (a bit mask).
fn filter_for(isolation: Isolation, capabilities: u64) -> Filter {
    let x86_64 = verdicts(isolation, capabilities, |&(_, number, _)| number);
    let i386 = verdicts(isolation, capabilities, |&(_, _, number)| number);
    assemble::assemble(&x86_64, Some(&i386))
}

/// A filter for a process of our own, which makes none but these calls (names between blanks).
#[must_use]
pub fn filter_of(calls: &str) -> Filter {
    let allowed = |name| calls.split_whitespace().any(|allowed| allowed == name);
    let known = numbers::CALLS.iter().filter_map(|call| {
        let verdict = if allowed(call.0) {
            Verdict::ALLOW
        } else {
            Verdict::errno(libc::EPERM)
        };
        Some((u32::try_from(call.1).ok()?, verdict))
    });
    let refused = Verdict::errno(libc::EPERM);
    assemble::assemble(&runs(known, &refused), Some(&[(0, refused.clone())]))
}

/// What an argument of a call has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Must {
    /// One of these.
    Equal(&'static [u64]),
    /// Without any of these bits.
    Lack(u64),
}

/// A filter that kills a process of our own at any call but these: names between blanks, and those
/// with a name, an argument's number and what that must be, one of which has to hold.
#[must_use]
pub fn killing_filter_of(calls: &str, with_argument: &[(&str, u32, Must)]) -> Filter {
    let kill = Verdict::Return(libc::SECCOMP_RET_KILL_PROCESS);
    let allowed = |name: &str| calls.split_whitespace().any(|allowed| allowed == name);
    let known = numbers::CALLS.iter().filter_map(|&(name, number, _)| {
        let rules: Vec<Rule> = with_argument
            .iter()
            .filter(|(of, ..)| *of == name)
            .flat_map(|&(_, argument, must)| rules_of(argument, must))
            .collect();
        let verdict = match (allowed(name), rules.is_empty()) {
            (true, _) => Verdict::ALLOW,
            (false, false) => Verdict::Rules(rules, libc::SECCOMP_RET_KILL_PROCESS),
            (false, true) => kill.clone(),
        };
        Some((u32::try_from(number).ok()?, verdict))
    });
    assemble::assemble(&runs(known, &kill), None)
}

fn rules_of(argument: u32, must: Must) -> Vec<Rule> {
    let rule = |comparison, value| Rule {
        conditions: vec![Condition {
            argument,
            comparison,
            value,
        }],
        action: libc::SECCOMP_RET_ALLOW,
    };
    match must {
        Must::Equal(values) => values
            .iter()
            .map(|&value| rule(Comparison::Equal, value))
            .collect(),
        Must::Lack(bits) => vec![rule(Comparison::MaskedEqual(bits), 0)],
    }
}

/// Of a call in one of the two tables.
type NumberOf = fn(&(&'static str, i16, i16)) -> i16;

/// What is to be done from each number on, until the next one: sorted, starting at 0.
fn verdicts(isolation: Isolation, capabilities: u64, number_of: NumberOf) -> Vec<(u32, Verdict)> {
    let number = |name: &str| {
        let at = numbers::CALLS
            .binary_search_by(|call| call.0.cmp(name))
            .ok()?;
        u32::try_from(number_of(numbers::CALLS.get(at)?)).ok()
    };
    // What has no rule is refused.
    let mut table: BTreeMap<u32, Verdict> = numbers::CALLS
        .iter()
        .filter_map(|call| Some((number(call.0)?, Verdict::errno(libc::EPERM))))
        .collect();
    let mut set = |name: &str, verdict: Verdict| {
        if let Some(entry) = number(name).and_then(|nr| table.get_mut(&nr)) {
            *entry = verdict;
        }
    };
    for &(name, argument) in profile::WITH_ARGUMENT {
        set(name, Verdict::If(argument));
    }
    for name in profile::ABSENT {
        set(name, Verdict::errno(libc::ENOSYS));
    }
    for name in profile::ALWAYS.split_whitespace() {
        set(name, Verdict::ALLOW);
    }
    for &(capability, names) in profile::WITH_CAPABILITY {
        if capabilities >> capability & 1 == 1 {
            names
                .split_whitespace()
                .for_each(|name| set(name, Verdict::ALLOW));
        }
    }
    if isolation == Isolation::Vm {
        for name in profile::IN_A_VM.split_whitespace() {
            set(name, Verdict::ALLOW);
        }
        set("socket", Verdict::If(profile::SOCKETS_IN_A_VM));
    }
    runs(table, &Verdict::errno(libc::EPERM))
}

impl PartialEq for Argument {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::NoneOf(a), Self::NoneOf(b)) => a == b,
            (Self::In(a), Self::In(b)) => a == b,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
