//! The seccomp filter of a container: Docker's default profile, resolved for its capabilities
//! and assembled into classic BPF.
//!
//! The filter is a binary search over the call number, so that a call costs some eight
//! comparisons whatever its number, and the kernel's cache of calls that are always allowed
//! takes over after the first look.

mod assemble;
mod numbers;
mod profile;

pub(crate) use assemble::Filter;

use assemble::Verdict;
use profile::Argument;

/// The filter for a container that holds `capabilities` (a bit mask).
#[must_use]
pub(crate) fn filter_for(capabilities: u64) -> Filter {
    let x86_64 = verdicts(capabilities, |&(_, number, _)| number);
    let i386 = verdicts(capabilities, |&(_, _, number)| number);
    assemble::assemble(&x86_64, &i386)
}

/// A filter for a process of our own, which makes none but these calls (names between blanks).
#[must_use]
pub(crate) fn filter_of(calls: &str) -> Filter {
    let last = numbers::CALLS.iter().map(|call| call.1).max().unwrap_or(0);
    let mut table =
        vec![Verdict::Errno(libc::EPERM as u16); usize::try_from(last).unwrap_or(0) + 1];
    for name in calls.split_whitespace() {
        if let Some(entry) = number(name, |call| call.1).and_then(|nr| table.get_mut(nr as usize)) {
            *entry = Verdict::Allow;
        }
    }
    table.push(Verdict::Errno(libc::ENOSYS as u16));
    assemble::assemble(&runs(table), &[(0, Verdict::Errno(libc::EPERM as u16))])
}

/// Of a name in one of the two tables.
type NumberOf = fn(&(&'static str, i16, i16)) -> i16;

fn number(name: &str, number_of: NumberOf) -> Option<u32> {
    let at = numbers::CALLS
        .binary_search_by(|call| call.0.cmp(name))
        .ok()?;
    u32::try_from(number_of(numbers::CALLS.get(at)?)).ok()
}

/// What is to be done from each number on, until the next one: sorted, starting at 0.
fn verdicts(capabilities: u64, number_of: NumberOf) -> Vec<(u32, Verdict)> {
    let number = |name: &str| number(name, number_of);
    let newest = numbers::CALLS.iter().map(number_of).max().unwrap_or(0);
    let newest = usize::try_from(newest).unwrap_or(0);
    // What has no rule is refused; what is newer than the table does not exist, so that
    // programs which probe for it fall back.
    let mut table = vec![Verdict::Errno(libc::EPERM as u16); newest + 1];
    let mut set = |name: &str, verdict: Verdict| {
        if let Some(entry) = number(name).and_then(|nr| table.get_mut(nr as usize)) {
            *entry = verdict;
        }
    };
    for &(name, argument) in profile::WITH_ARGUMENT {
        set(name, Verdict::If(argument));
    }
    for name in profile::ABSENT {
        set(name, Verdict::Errno(libc::ENOSYS as u16));
    }
    for name in profile::ALWAYS.split_whitespace() {
        set(name, Verdict::Allow);
    }
    for &(capability, names) in profile::WITH_CAPABILITY {
        if capabilities >> capability & 1 == 1 {
            names
                .split_whitespace()
                .for_each(|name| set(name, Verdict::Allow));
        }
    }
    table.push(Verdict::Errno(libc::ENOSYS as u16));
    runs(table)
}

/// A verdict for each number, as the numbers from which on another holds.
fn runs(table: Vec<Verdict>) -> Vec<(u32, Verdict)> {
    let mut runs: Vec<(u32, Verdict)> = Vec::new();
    for (nr, verdict) in (0u32..).zip(table) {
        if runs.last().is_none_or(|&(_, last)| last != verdict) {
            runs.push((nr, verdict));
        }
    }
    runs
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
