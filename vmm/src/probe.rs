//! Whether this host's KVM can run a Linux kernel: found out by running a tiny guest.
//!
//! That `/dev/kvm` opens and makes virtual CPUs says little. A KVM without hardware support behind
//! it interprets guest kernel code, slowly, and gives up at instructions that its interpreter
//! lacks. So the probe runs, one after the other, instructions that every Linux kernel uses, in
//! 64-bit kernel mode, with interrupt handlers in place, and then counts how many plain
//! instructions a second such code gets. All of it takes some milliseconds on a good host and
//! about a hundred on a bad one.

mod guest;

use crate::memory::{GuestMemory, HugePages, MemoryError, add_ram_slots};
use guest::{ANSWER_PORT, FAULT_PORT, Test};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd, VmFd};
use std::fmt;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// A guest that does not come back after this long never will.
const LIMIT: Duration = Duration::from_secs(10);
/// Fewer instructions a second than this are no hardware's: a kernel would take minutes to boot.
const SLOW_PER_S: u64 = 30_000_000;

/// What is wrong with KVM, if anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A kernel will run.
    Usable,
    /// There is no `/dev/kvm`.
    Missing,
    /// This user may not open it.
    Forbidden,
    /// It does not do what it should; the text says which step failed.
    Broken(String),
    /// Guests run, but not code that a kernel consists of.
    Incapable,
    /// The tiny guest never came back.
    Stuck,
}

/// How a tested instruction went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As the manual says.
    Works,
    /// The CPU that KVM shows does not have it.
    Absent,
    /// Something else came out than the manual says.
    Wrong,
    /// It raised this exception in the guest.
    Exception(u8),
    /// KVM gave up (`KVM_EXIT_INTERNAL_ERROR`).
    InternalError,
    /// The guest was shut down (triple fault).
    Shutdown,
    /// The guest left in another, unexpected way.
    Unexpected,
}

impl Outcome {
    /// Whether a kernel can live with it.
    #[must_use]
    pub const fn is_fine(self) -> bool {
        matches!(self, Self::Works | Self::Absent)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Works => f.write_str("works"),
            Self::Absent => f.write_str("not offered"),
            Self::Wrong => f.write_str("gives a wrong result"),
            Self::Exception(vector) => write!(f, "raises exception {vector}"),
            Self::InternalError => f.write_str("ends in an internal error of KVM"),
            Self::Shutdown => f.write_str("ends in a triple fault"),
            Self::Unexpected => f.write_str("ends in an unexpected exit"),
        }
    }
}

/// What the probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The sum of it.
    pub verdict: Verdict,
    /// `KVM_GET_API_VERSION`.
    pub api_version: Option<i32>,
    /// Each instruction and how it went.
    pub instructions: Vec<(&'static str, Outcome)>,
    /// Speed of plain code in guest kernel mode, instructions a second.
    pub instructions_per_s: Option<u64>,
    /// How long the probe took.
    pub elapsed: Duration,
}

impl Report {
    const fn bare(verdict: Verdict) -> Self {
        Self {
            verdict,
            api_version: None,
            instructions: Vec::new(),
            instructions_per_s: None,
            elapsed: Duration::ZERO,
        }
    }

    /// The verdict in a sentence, without a full stop.
    #[must_use]
    pub fn explain(&self) -> String {
        match &self.verdict {
            Verdict::Usable => "KVM runs guest kernel code".to_owned(),
            Verdict::Missing => "there is no /dev/kvm".to_owned(),
            Verdict::Forbidden => "/dev/kvm may not be opened by this user".to_owned(),
            Verdict::Broken(step) => format!("KVM is there, but {step} failed"),
            Verdict::Stuck => "KVM is there, but a tiny guest never came back from it".to_owned(),
            Verdict::Incapable => self.explain_incapable(),
        }
    }

    fn explain_incapable(&self) -> String {
        let bad: Vec<_> = self
            .instructions
            .iter()
            .filter(|(_, outcome)| !outcome.is_fine())
            .map(|(name, outcome)| format!("{name} {outcome}"))
            .collect();
        let mut reasons = Vec::new();
        if !bad.is_empty() {
            reasons.push(bad.join(", "));
        }
        if let Some(speed) = self.instructions_per_s.filter(|speed| *speed < SLOW_PER_S) {
            reasons.push(format!(
                "guest kernel code is interpreted at {:.1} million instructions a second",
                millions(speed)
            ));
        }
        format!(
            "/dev/kvm opens, but no hardware virtualisation is behind it: {}",
            reasons.join("; ")
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rounded figure for people")]
fn millions(count: u64) -> f64 {
    count as f64 / 1e6
}

/// Probes this host's KVM.
#[must_use]
pub fn probe() -> Report {
    let start = Instant::now();
    let (send, receive) = mpsc::channel();
    // In a thread of its own, which is left behind when the guest never returns.
    let spawned = thread::Builder::new()
        .name("kvm-probe".to_owned())
        .spawn(move || {
            // Nobody listens any more after a timeout.
            let _ = send.send(run());
        });
    let mut report = match spawned {
        Err(_) => Report::bare(Verdict::Broken("starting a thread".to_owned())),
        Ok(_) => receive
            .recv_timeout(LIMIT)
            .unwrap_or_else(|_| Report::bare(Verdict::Stuck)),
    };
    report.elapsed = start.elapsed();
    report
}

fn run() -> Report {
    let mut report = Report::bare(Verdict::Usable);
    let kvm = match Kvm::new() {
        Ok(kvm) => kvm,
        Err(error) => {
            report.verdict = match error.errno() {
                libc::ENOENT => Verdict::Missing,
                libc::EACCES | libc::EPERM => Verdict::Forbidden,
                _ => Verdict::Broken(format!("opening it ({error})")),
            };
            return report;
        }
    };
    report.api_version = Some(kvm.get_api_version());
    if let Err(step) = examine(&kvm, &mut report) {
        report.verdict = Verdict::Broken(step);
        return report;
    }
    let slow = report
        .instructions_per_s
        .is_some_and(|speed| speed < SLOW_PER_S);
    let bad = report
        .instructions
        .iter()
        .any(|(_, outcome)| !outcome.is_fine());
    if slow || bad {
        report.verdict = Verdict::Incapable;
    }
    report
}

/// Fields of a probe's guest are dropped in order: the vCPU, the VM, and only then its memory.
struct Guest {
    vcpu: VcpuFd,
    _vm: VmFd,
    memory: GuestMemory,
}

fn examine(kvm: &Kvm, report: &mut Report) -> Result<(), String> {
    if report.api_version != Some(12) {
        return Err("the check of its API version".to_owned());
    }
    if !kvm.check_extension(Cap::UserMemory) {
        return Err("the check for user memory".to_owned());
    }
    let cpuid = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(|error| format!("asking for CPU features ({error})"))?;
    let mut guest = Guest::new(kvm, &cpuid)?;
    for test in guest::TESTS {
        let outcome = if test.is_offered(&cpuid) {
            guest.run_test(test)?
        } else {
            Outcome::Absent
        };
        report.instructions.push((test.name, outcome));
    }
    report.instructions_per_s = guest.speed()?;
    Ok(())
}

impl Guest {
    fn new(kvm: &Kvm, cpuid: &CpuId) -> Result<Self, String> {
        let failed = |step: &'static str| move |error| format!("{step} ({error})");
        let vm = kvm.create_vm().map_err(failed("creating a VM"))?;
        let memory = guest::memory_ranges();
        let memory = GuestMemory::new(&memory, HugePages::Never)
            .and_then(|memory| add_ram_slots(&vm, &memory).map(|_| memory))
            .map_err(|error: MemoryError| format!("giving a VM memory ({error})"))?;
        guest::load(memory.ram()).map_err(|error| format!("filling memory ({error})"))?;
        let vcpu = vm.create_vcpu(0).map_err(failed("creating a vCPU"))?;
        vcpu.set_cpuid2(cpuid)
            .map_err(failed("setting CPU features"))?;
        Ok(Self {
            vcpu,
            _vm: vm,
            memory,
        })
    }

    /// Starts at a routine, in 64-bit kernel mode with everything as it was at the beginning.
    fn enter(&mut self, routine: &[u8]) -> Result<(), String> {
        guest::load_routine(self.memory.ram(), routine)
            .map_err(|error| format!("filling memory ({error})"))?;
        let failed = |error: kvm_ioctls::Error| format!("setting vCPU registers ({error})");
        let mut sregs = self.vcpu.get_sregs().map_err(failed)?;
        guest::kernel_mode(&mut sregs);
        self.vcpu.set_sregs(&sregs).map_err(failed)?;
        self.vcpu.set_regs(&guest::registers()).map_err(failed)
    }

    fn run_test(&mut self, test: &Test) -> Result<Outcome, String> {
        self.enter(test.code)?;
        Ok(match self.vcpu.run() {
            Ok(VcpuExit::IoOut(ANSWER_PORT, [answer])) if *answer == test.answer => Outcome::Works,
            Ok(VcpuExit::IoOut(ANSWER_PORT, _)) => Outcome::Wrong,
            Ok(VcpuExit::IoOut(FAULT_PORT, [vector])) => Outcome::Exception(*vector),
            Ok(VcpuExit::InternalError) => Outcome::InternalError,
            Ok(VcpuExit::Shutdown) => Outcome::Shutdown,
            Ok(_) => Outcome::Unexpected,
            Err(error) => return Err(format!("running a vCPU ({error})")),
        })
    }

    /// Instructions a second of a counting loop, `None` when not even that runs.
    fn speed(&mut self) -> Result<Option<u64>, String> {
        let mut best = None;
        // Few rounds at first: where they are interpreted, more would take long. Several times,
        // because others use this CPU too, and a pause of ours is not KVM's.
        for _ in 0..3 {
            best = best.max(self.time_rounds(20_000)?);
            if best.is_none_or(|speed| speed >= SLOW_PER_S) {
                break;
            }
        }
        // Where they are not interpreted, few are over too soon to be timed well.
        if best.is_some_and(|speed| speed >= SLOW_PER_S) {
            best = best.max(self.time_rounds(10_000_000)?);
        }
        Ok(best)
    }

    fn time_rounds(&mut self, rounds: u32) -> Result<Option<u64>, String> {
        self.enter(&guest::counting_loop(rounds))?;
        let begin = Instant::now();
        match self.vcpu.run() {
            Ok(VcpuExit::IoOut(ANSWER_PORT, _)) => {}
            Ok(_) => return Ok(None),
            Err(error) => return Err(format!("running a vCPU ({error})")),
        }
        let elapsed = begin.elapsed().as_nanos().max(1);
        let instructions = u128::from(rounds) * guest::INSTRUCTIONS_PER_ROUND;
        Ok(u64::try_from(instructions * 1_000_000_000 / elapsed).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_is_quick_and_has_words() {
        let report = probe();
        assert!(report.elapsed < LIMIT, "{report:?}");
        assert!(!report.explain().is_empty());
        // Whatever this host offers, an incapable KVM must have a reason.
        if report.verdict == Verdict::Incapable {
            let explained = report.explain();
            assert!(
                explained.contains(": ") && !explained.ends_with(": "),
                "{explained}"
            );
        }
        println!("{}\n{report:#?}", report.explain());
    }
}
