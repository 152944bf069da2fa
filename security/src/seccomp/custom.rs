//! A user's own profile, in the form of Docker's `default.json` or of an OCI specification.

use super::assemble::{self, Comparison, Condition, Filter, Rule, Verdict};
use super::numbers;
use crate::caps;
use hullbox_model::value::ValueError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most instructions that the kernel takes (BPF_MAXINSNS).
const MAX_INSTRUCTIONS: usize = 4096;
/// Most rules of a profile.
const MAX_RULES: usize = 4096;
/// Number of a system call's last argument.
const LAST_ARGUMENT: u32 = 5;

/// What a profile says, with its words understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// What the kernel is told of a call without a rule (`SECCOMP_RET_*`).
    default: u32,
    /// 32-bit programs are judged as well, and not killed.
    thirty_two_bits: bool,
    rules: Vec<Entry>,
}

/// Some calls, what happens to them, and when that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    names: Vec<String>,
    action: u32,
    /// All must hold.
    conditions: Vec<Condition>,
    /// The container must have these capabilities, a bit mask.
    needs: u64,
    /// And none of these.
    without: u64,
}

// The file's own form. What is not named here says nothing about x86-64.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<ArchMap>>,
    syscalls: Option<Vec<TextEntry>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TextEntry {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<TextArgument>>,
    includes: Option<Filters>,
    excludes: Option<Filters>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TextArgument {
    index: u32,
    value: u64,
    value_two: Option<u64>,
    op: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filters {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

impl Profile {
    pub(super) fn parse(text: &str) -> Result<Self, ValueError> {
        let text: Text = serde_json::from_str(text)
            .map_err(|error| ValueError::new(format!("not a seccomp profile: {error}")))?;
        let architectures = text.architectures.unwrap_or_default();
        let mapped = text.arch_map.unwrap_or_default();
        let subordinate = mapped
            .into_iter()
            .filter(|map| map.architecture == "SCMP_ARCH_X86_64")
            .flat_map(|map| map.sub_architectures.unwrap_or_default());
        let thirty_two_bits = architectures
            .into_iter()
            .chain(subordinate)
            .any(|name| name == "SCMP_ARCH_X86");
        let mut rules = Vec::new();
        for entry in text.syscalls.unwrap_or_default() {
            rules.extend(Entry::parse(entry)?);
            if rules.len() > MAX_RULES {
                return Err(ValueError::new("the seccomp profile has too many rules"));
            }
        }
        let profile = Self {
            default: action(&text.default_action, text.default_errno_ret)?,
            thirty_two_bits,
            rules,
        };
        // With all that capabilities could open it is as long as it gets.
        let length = profile.filter(caps::ALL).len().max(profile.filter(0).len());
        match length {
            ..=MAX_INSTRUCTIONS => Ok(profile),
            _ => Err(ValueError::new(format!(
                "the seccomp profile is too long: {length} instructions, and the kernel takes \
                 {MAX_INSTRUCTIONS}"
            ))),
        }
    }

    pub(super) fn filter(&self, capabilities: u64) -> Filter {
        let x86_64 = self.verdicts(capabilities, |call| call.1);
        if !self.thirty_two_bits {
            return assemble::assemble(&x86_64, None);
        }
        let i386 = self.verdicts(capabilities, |call| call.2);
        assemble::assemble(&x86_64, Some(&i386))
    }

    fn verdicts(
        &self,
        capabilities: u64,
        number_of: impl Fn(&(&'static str, i16, i16)) -> i16,
    ) -> Vec<(u32, Verdict)> {
        let counts =
            |entry: &&Entry| entry.needs & !capabilities == 0 && entry.without & capabilities == 0;
        let mut calls: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
        for entry in self.rules.iter().filter(counts) {
            for name in &entry.names {
                calls.entry(name).or_default().push(entry);
            }
        }
        let judged = numbers::CALLS.iter().filter_map(|call| {
            let number = u32::try_from(number_of(call)).ok()?;
            let entries = calls.get(call.0);
            let verdict = entries.map_or(Verdict::Return(self.default), |e| self.judge(e));
            Some((number, verdict))
        });
        assemble::runs(judged, &Verdict::Return(self.default))
    }

    /// Conditions in their order; then what holds without any.
    fn judge(&self, entries: &[&Entry]) -> Verdict {
        let always = entries.iter().find(|entry| entry.conditions.is_empty());
        let otherwise = always.map_or(self.default, |entry| entry.action);
        let rules: Vec<_> = entries
            .iter()
            .filter(|entry| !entry.conditions.is_empty())
            .map(|entry| Rule {
                conditions: entry.conditions.clone(),
                action: entry.action,
            })
            .collect();
        match rules.is_empty() {
            true => Verdict::Return(otherwise),
            false => Verdict::Rules(rules, otherwise),
        }
    }
}

impl Entry {
    /// One entry of the file as entries of ours; none if it is about other machines.
    fn parse(text: TextEntry) -> Result<Vec<Self>, ValueError> {
        let (includes, excludes) = (
            text.includes.unwrap_or_default(),
            text.excludes.unwrap_or_default(),
        );
        // No kernel that we run on is as old as those that profiles tell apart.
        let _ = includes.min_kernel;
        let names_us = |arches: &Option<Vec<String>>| {
            let ours = |arch: &String| arch == "amd64" || arch == "SCMP_ARCH_X86_64";
            arches.as_ref().map(|arches| arches.iter().any(ours))
        };
        if names_us(&includes.arches) == Some(false)
            || names_us(&excludes.arches) == Some(true)
            || excludes.min_kernel.is_some()
        {
            return Ok(Vec::new());
        }
        let mut names = text.names.unwrap_or_default();
        names.extend(text.name);
        let entry = Self {
            names,
            action: action(&text.action, text.errno_ret)?,
            conditions: Vec::new(),
            needs: mask(includes.caps)?,
            without: mask(excludes.caps)?,
        };
        let conditions: Vec<_> = text
            .args
            .unwrap_or_default()
            .iter()
            .map(condition)
            .collect::<Result<_, _>>()?;
        // As runc has it: two conditions on one argument are alternatives.
        let twice = |condition: &Condition| {
            let same = conditions
                .iter()
                .filter(|c| c.argument == condition.argument);
            same.count() > 1
        };
        if conditions.iter().any(twice) {
            let alone = |condition: &Condition| Self {
                conditions: vec![*condition],
                ..entry.clone()
            };
            return Ok(conditions.iter().map(alone).collect());
        }
        Ok(vec![Self {
            conditions,
            ..entry
        }])
    }
}

fn mask(names: Option<Vec<String>>) -> Result<u64, ValueError> {
    let names = names.unwrap_or_default();
    caps::resolve(&names, &["ALL".to_owned()])
}

fn condition(text: &TextArgument) -> Result<Condition, ValueError> {
    if text.index > LAST_ARGUMENT {
        return Err(ValueError::new("a system call has six arguments"));
    }
    let two = text.value_two.unwrap_or_default();
    let comparison = match &*text.op {
        "SCMP_CMP_EQ" => Comparison::Equal,
        "SCMP_CMP_NE" => Comparison::NotEqual,
        "SCMP_CMP_GT" => Comparison::Greater,
        "SCMP_CMP_GE" => Comparison::GreaterOrEqual,
        "SCMP_CMP_LT" => Comparison::Less,
        "SCMP_CMP_LE" => Comparison::LessOrEqual,
        "SCMP_CMP_MASKED_EQ" => Comparison::MaskedEqual(text.value),
        other => {
            return Err(ValueError::new(format!(
                "the seccomp profile compares by {other:?}, which does not exist"
            )));
        }
    };
    Ok(Condition {
        argument: text.index,
        comparison,
        value: match comparison {
            Comparison::MaskedEqual(_) => two,
            _ => text.value,
        },
    })
}

fn action(text: &str, errno: Option<u32>) -> Result<u32, ValueError> {
    let errno = errno.unwrap_or(libc::EPERM.unsigned_abs()) & libc::SECCOMP_RET_DATA;
    Ok(match text {
        "SCMP_ACT_ALLOW" => libc::SECCOMP_RET_ALLOW,
        "SCMP_ACT_ERRNO" => libc::SECCOMP_RET_ERRNO | errno,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => libc::SECCOMP_RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => libc::SECCOMP_RET_KILL_PROCESS,
        "SCMP_ACT_TRAP" => libc::SECCOMP_RET_TRAP,
        "SCMP_ACT_TRACE" => libc::SECCOMP_RET_TRACE | errno,
        "SCMP_ACT_LOG" => libc::SECCOMP_RET_LOG,
        other => {
            return Err(ValueError::new(format!(
                "the seccomp profile asks for {other:?}, which is not supported"
            )));
        }
    })
}
