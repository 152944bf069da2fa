//! What a virtual CPU and the machine around it hold between two instructions.
//!
//! The order of the calls is not free. Asking for the state of activity comes first, because KVM
//! settles pending INIT and SIPI then. On the way back CPUID comes before everything that is
//! checked against it, the TSC before the deadline that is compared with it, the local APIC before
//! that deadline, and events last.

use crate::error::VmError;
use crate::vcpu::xsave::set_xsave;
use kvm_bindings::{
    CpuId, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    KVM_MAX_CPUID_ENTRIES, Msrs, kvm_clock_data, kvm_cpuid_entry2, kvm_debugregs, kvm_irqchip,
    kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
    kvm_xsave,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};

const MSR_TSC: u32 = 0x10;
const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// MSRs of one `KVM_SET_MSRS`; KVM takes 255.
const MSRS_AT_ONCE: usize = 128;
/// Most MSRs, and CPUID entries, of a state. KVM itself has fewer.
const MAX_ENTRIES: usize = 1024;
/// How far the TSC's frequency may be from that of the template, in millionths. Linux itself
/// takes a source of time for good within 500.
const TSC_TOLERANCE_PPM: u64 = 250;

/// All of a virtual CPU.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct VcpuState {
    cpuid: Vec<kvm_cpuid_entry2>,
    mp_state: kvm_mp_state,
    regs: kvm_regs,
    sregs: kvm_sregs,
    debug_regs: kvm_debugregs,
    events: kvm_vcpu_events,
    xsave: kvm_xsave,
    xcrs: Option<kvm_xcrs>,
    lapic: kvm_lapic_state,
    msrs: Vec<kvm_msr_entry>,
    tsc_khz: Option<u32>,
}

/// What virtual CPUs share: interrupt controllers and clock. There is no PIT.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MachineState {
    chips: Vec<kvm_irqchip>,
    clock: kvm_clock_data,
}

impl VcpuState {
    /// Guest physical address of its page tables, with flags in the lowest bits (CR3).
    pub(super) const fn page_table_root(&self) -> u64 {
        self.sregs.cr3
    }
}

/// A state that cannot be of a machine of ours.
fn odd(what: &'static str) -> VmError {
    VmError::Kvm {
        what,
        source: std::io::ErrorKind::InvalidData.into(),
    }
}

/// The MSRs that make up a virtual CPU's state on this host.
pub(crate) fn state_msrs(kvm: &Kvm) -> Result<Vec<u32>, VmError> {
    let list = kvm
        .get_msr_index_list()
        .map_err(VmError::kvm("KVM_GET_MSR_INDEX_LIST"))?;
    Ok(list.as_slice().to_vec())
}

/// Take the state of a virtual CPU that does not run.
pub(crate) fn save_vcpu(vcpu: &VcpuFd, msrs: &[u32]) -> Result<VcpuState, VmError> {
    let mp_state = vcpu
        .get_mp_state()
        .map_err(VmError::kvm("KVM_GET_MP_STATE"))?;
    let cpuid = vcpu
        .get_cpuid2(KVM_MAX_CPUID_ENTRIES)
        .map_err(VmError::kvm("KVM_GET_CPUID2"))?;
    Ok(VcpuState {
        mp_state,
        cpuid: cpuid.as_slice().to_vec(),
        regs: vcpu.get_regs().map_err(VmError::kvm("KVM_GET_REGS"))?,
        sregs: vcpu.get_sregs().map_err(VmError::kvm("KVM_GET_SREGS"))?,
        debug_regs: vcpu
            .get_debug_regs()
            .map_err(VmError::kvm("KVM_GET_DEBUGREGS"))?,
        events: vcpu
            .get_vcpu_events()
            .map_err(VmError::kvm("KVM_GET_VCPU_EVENTS"))?,
        xsave: vcpu.get_xsave().map_err(VmError::kvm("KVM_GET_XSAVE"))?,
        // Not every processor has any.
        xcrs: vcpu.get_xcrs().ok(),
        lapic: vcpu.get_lapic().map_err(VmError::kvm("KVM_GET_LAPIC"))?,
        msrs: read_msrs(vcpu, msrs)?,
        tsc_khz: vcpu.get_tsc_khz().ok(),
    })
}

/// Read all that can be read: KVM lists MSRs that this very guest does not have.
fn read_msrs(vcpu: &VcpuFd, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, VmError> {
    let mut read = Vec::with_capacity(indices.len());
    let mut left = indices;
    while !left.is_empty() {
        let chunk = &left[..left.len().min(MSRS_AT_ONCE)];
        let entries: Vec<_> = chunk.iter().map(|index| entry(*index, 0)).collect();
        let mut msrs = Msrs::from_entries(&entries).map_err(|_| odd("a list of MSRs"))?;
        let done = vcpu
            .get_msrs(&mut msrs)
            .map_err(VmError::kvm("KVM_GET_MSRS"))?
            .min(chunk.len());
        read.extend_from_slice(&msrs.as_slice()[..done]);
        // KVM stops at the first that it cannot read.
        let stumbled = usize::from(done < chunk.len());
        left = &left[done + stumbled..];
    }
    Ok(read)
}

fn entry(index: u32, data: u64) -> kvm_msr_entry {
    kvm_msr_entry {
        index,
        data,
        ..Default::default()
    }
}

impl VcpuState {
    /// Whether it waits for an interrupt, or to be started by another one.
    pub(crate) const fn is_idle(&self) -> bool {
        self.mp_state.mp_state == kvm_bindings::KVM_MP_STATE_HALTED
            || self.mp_state.mp_state == kvm_bindings::KVM_MP_STATE_UNINITIALIZED
            || self.mp_state.mp_state == kvm_bindings::KVM_MP_STATE_INIT_RECEIVED
    }

    fn tsc(&self) -> u64 {
        let tsc = self.msrs.iter().find(|msr| msr.index == MSR_TSC);
        tsc.map_or(0, |msr| msr.data)
    }

    /// The MSRs of time, in the order in which they are written, if it is `tsc` now.
    ///
    /// KVM sets a deadline to zero when it raises the interrupt. Where it does so from its own timer
    /// (posted interrupts), that may be between the reading of the local APIC, in which the
    /// interrupt is not pending yet, and that of the MSRs: restored as they are, the interrupt is
    /// lost and the timer disarmed, and a guest that sleeps until then sleeps for ever. So a zero
    /// becomes the present: the interrupt comes at once. Linux copes with one too many, and KVM
    /// ignores the MSR where the timer is in another mode.
    fn msrs_of_time(&self, tsc: u64) -> Vec<kvm_msr_entry> {
        let mut msrs = vec![entry(MSR_TSC, tsc)];
        let deadline = self.msrs.iter().find(|msr| msr.index == MSR_TSC_DEADLINE);
        if let Some(deadline) = deadline {
            let due = if deadline.data == 0 {
                tsc
            } else {
                deadline.data
            };
            msrs.push(entry(MSR_TSC_DEADLINE, due));
        }
        msrs
    }

    /// A guest measures time with the frequency it found when it booted.
    fn check_tsc(&self, vcpu: &VcpuFd) -> Result<(), VmError> {
        let (Some(then), Ok(now)) = (self.tsc_khz, vcpu.get_tsc_khz()) else {
            return Ok(());
        };
        let (then, now) = (u64::from(then), u64::from(now));
        if then.abs_diff(now) * 1_000_000 <= TSC_TOLERANCE_PPM * then {
            return Ok(());
        }
        let then = u32::try_from(then).unwrap_or(u32::MAX);
        vcpu.set_tsc_khz(then)
            .map_err(VmError::kvm("KVM_SET_TSC_KHZ"))
    }
}

/// Give a fresh virtual CPU its state, but for the time.
pub(crate) fn restore_vcpu(state: &VcpuState, vcpu: &VcpuFd) -> Result<(), VmError> {
    if state.cpuid.len() > MAX_ENTRIES || state.msrs.len() > MAX_ENTRIES {
        return Err(odd("the size of a virtual CPU's state"));
    }
    let cpuid = CpuId::from_entries(&state.cpuid).map_err(|_| odd("a list of CPUID entries"))?;
    vcpu.set_cpuid2(&cpuid)
        .map_err(VmError::kvm("KVM_SET_CPUID2"))?;
    state.check_tsc(vcpu)?;
    vcpu.set_mp_state(state.mp_state)
        .map_err(VmError::kvm("KVM_SET_MP_STATE"))?;
    vcpu.set_sregs(&state.sregs)
        .map_err(VmError::kvm("KVM_SET_SREGS"))?;
    if let Some(xcrs) = &state.xcrs {
        vcpu.set_xcrs(xcrs).map_err(VmError::kvm("KVM_SET_XCRS"))?;
    }
    set_xsave(vcpu, &state.xsave)?;
    vcpu.set_regs(&state.regs)
        .map_err(VmError::kvm("KVM_SET_REGS"))?;
    vcpu.set_debug_regs(&state.debug_regs)
        .map_err(VmError::kvm("KVM_SET_DEBUGREGS"))?;
    vcpu.set_lapic(&state.lapic)
        .map_err(VmError::kvm("KVM_SET_LAPIC"))?;
    let of_time = [MSR_TSC, MSR_TSC_DEADLINE];
    let timeless = |msr: &&kvm_msr_entry| !of_time.contains(&msr.index);
    let msrs: Vec<_> = state.msrs.iter().filter(timeless).copied().collect();
    write_msrs(vcpu, &msrs)?;
    vcpu.set_vcpu_events(&state.events)
        .map_err(VmError::kvm("KVM_SET_VCPU_EVENTS"))
}

fn write_msrs(vcpu: &VcpuFd, mut left: &[kvm_msr_entry]) -> Result<(), VmError> {
    while !left.is_empty() {
        let chunk = &left[..left.len().min(MSRS_AT_ONCE)];
        let entries: Vec<_> = chunk.iter().map(|msr| entry(msr.index, msr.data)).collect();
        let msrs = Msrs::from_entries(&entries).map_err(|_| odd("a list of MSRs"))?;
        let done = vcpu.set_msrs(&msrs).map_err(VmError::kvm("KVM_SET_MSRS"))?;
        left = &left[done.min(chunk.len())..];
        if done < chunk.len() {
            // Some can be read and not be written. What was zero is zero.
            if left[0].data != 0 {
                return Err(odd("an MSR that cannot be restored"));
            }
            left = &left[1..];
        }
    }
    Ok(())
}

/// Let time go on where it stood: to the guest none has passed. The last thing before it runs.
///
/// The states were read one after the other, while time went on: the latest TSC is that of all.
/// A deadline is compared with it and comes after it.
pub(crate) fn restore_time<'a>(
    vm: &VmFd,
    machine: &MachineState,
    states: &[VcpuState],
    vcpus: impl Iterator<Item = &'a VcpuFd>,
) -> Result<(), VmError> {
    let clock = kvm_clock_data {
        clock: machine.clock.clock,
        ..Default::default()
    };
    vm.set_clock(&clock)
        .map_err(VmError::kvm("KVM_SET_CLOCK"))?;
    let tsc = states.iter().map(VcpuState::tsc).max().unwrap_or(0);
    for (state, vcpu) in states.iter().zip(vcpus) {
        write_msrs(vcpu, &state.msrs_of_time(tsc))?;
        // The guest's watchdogs are told that it stood still. A guest without kvmclock has no use
        // for it, and KVM says so.
        let _ = vcpu.kvmclock_ctrl();
    }
    Ok(())
}

/// Take what the virtual CPUs share.
pub(crate) fn save_machine(vm: &VmFd) -> Result<MachineState, VmError> {
    let mut chips = Vec::with_capacity(3);
    for chip_id in [
        KVM_IRQCHIP_PIC_MASTER,
        KVM_IRQCHIP_PIC_SLAVE,
        KVM_IRQCHIP_IOAPIC,
    ] {
        let mut chip = kvm_irqchip {
            chip_id,
            ..Default::default()
        };
        vm.get_irqchip(&mut chip)
            .map_err(VmError::kvm("KVM_GET_IRQCHIP"))?;
        chips.push(chip);
    }
    let clock = vm.get_clock().map_err(VmError::kvm("KVM_GET_CLOCK"))?;
    Ok(MachineState { chips, clock })
}

/// Give a fresh machine its interrupt controllers' state.
pub(crate) fn restore_chips(state: &MachineState, vm: &VmFd) -> Result<(), VmError> {
    let ids: Vec<_> = state.chips.iter().map(|chip| chip.chip_id).collect();
    if ids
        != [
            KVM_IRQCHIP_PIC_MASTER,
            KVM_IRQCHIP_PIC_SLAVE,
            KVM_IRQCHIP_IOAPIC,
        ]
    {
        return Err(odd("the interrupt controllers"));
    }
    for chip in &state.chips {
        vm.set_irqchip(chip)
            .map_err(VmError::kvm("KVM_SET_IRQCHIP"))?;
    }
    Ok(())
}

/// Whether this KVM can do all of the above.
pub(crate) fn can_restore(kvm: &Kvm) -> bool {
    let needed = [Cap::MpState, Cap::VcpuEvents, Cap::Debugregs, Cap::Xsave];
    needed.into_iter().all(|cap| kvm.check_extension(cap))
}

#[cfg(test)]
impl VcpuState {
    /// One that no processor was ever in, for tests of files.
    pub(crate) fn example() -> Self {
        Self {
            cpuid: vec![kvm_cpuid_entry2::default(); 40],
            mp_state: kvm_mp_state::default(),
            regs: kvm_regs {
                rip: 0x1234,
                ..Default::default()
            },
            sregs: kvm_sregs::default(),
            debug_regs: kvm_debugregs::default(),
            events: kvm_vcpu_events::default(),
            xsave: kvm_xsave::default(),
            xcrs: Some(kvm_xcrs::default()),
            lapic: kvm_lapic_state::default(),
            msrs: vec![entry(MSR_TSC, 5), entry(0xc000_0080, 7)],
            tsc_khz: Some(2_000_000),
        }
    }
}

#[cfg(test)]
impl VcpuState {
    /// The same with page tables.
    pub(crate) fn example_at(page_table_root: u64) -> Self {
        let mut state = Self::example();
        state.sregs.cr3 = page_table_root;
        state
    }
}

#[cfg(test)]
impl MachineState {
    /// As above.
    pub(crate) fn example() -> Self {
        Self {
            chips: vec![kvm_irqchip::default(); 3],
            clock: kvm_clock_data::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_was_met_is_due_at_once_and_comes_after_the_tsc() {
        let written = |deadline| {
            let mut state = VcpuState::example();
            state.msrs.extend(deadline);
            let msrs = state.msrs_of_time(1000);
            let pairs = msrs.iter().map(|msr| (msr.index, msr.data));
            pairs.collect::<Vec<_>>()
        };
        assert_eq!(written(None), [(MSR_TSC, 1000)]);
        let still_to_come = written(Some(entry(MSR_TSC_DEADLINE, 5000)));
        assert_eq!(still_to_come, [(MSR_TSC, 1000), (MSR_TSC_DEADLINE, 5000)]);
        let met = written(Some(entry(MSR_TSC_DEADLINE, 0)));
        assert_eq!(met, [(MSR_TSC, 1000), (MSR_TSC_DEADLINE, 1000)]);
    }
}
