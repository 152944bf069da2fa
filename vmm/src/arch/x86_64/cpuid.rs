//! The processor that the guest sees: the host's, as far as KVM can offer it, as one socket with
//! as many single-threaded cores as there are virtual CPUs.

use crate::error::VmError;
use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2,
};
use kvm_ioctls::Kvm;

const LEAF_FEATURES: u32 = 1;
const LEAF_CACHES: u32 = 4;
const LEAF_MWAIT: u32 = 5;
const LEAF_PERFMON: u32 = 0xa;
const LEAF_TOPOLOGY: u32 = 0xb;
const LEAF_XSTATE: u32 = 0xd;
const LEAF_TOPOLOGY_V2: u32 = 0x1f;
const LEAF_KVM_FEATURES: u32 = 0x4000_0001;
const LEAF_EXT_FEATURES: u32 = 0x8000_0001;
/// Shadow of `LEAF_PERFMON`: architectural extensions of Intel's performance monitoring.
const LEAF_PERFMON_V2: u32 = 0x23;
/// AMD's secure virtual machine: what a host of nested guests could use.
const LEAF_SVM: u32 = 0x8000_000a;
/// AMD's instruction-based sampling, and its performance monitoring, version 2.
const LEAF_IBS: u32 = 0x8000_001b;
const LEAF_AMD_PERFMON: u32 = 0x8000_0022;
const LEAF_EXT_SIZES: u32 = 0x8000_0008;
const LEAF_AMD_CACHES: u32 = 0x8000_001d;
const LEAF_AMD_TOPOLOGY: u32 = 0x8000_001e;

const ECX1_MWAIT: u32 = 1 << 3;
const ECX1_VMX: u32 = 1 << 5;
const ECX1_PDCM: u32 = 1 << 15;
const ECX1_X2APIC: u32 = 1 << 21;
const ECX1_TSC_DEADLINE: u32 = 1 << 24;
const ECX1_XSAVE: u32 = 1 << 26;
const ECX1_HYPERVISOR: u32 = 1 << 31;
const EDX1_HTT: u32 = 1 << 28;
/// KVM_FEATURE_ASYNC_PF, _VMEXIT and _INT (Linux, Documentation/virt/kvm/x86/cpuid.rst).
const EAX_KVM_ASYNC_PF: u32 = 1 << 4 | 1 << 10 | 1 << 14;
const ECX_EXT_CMP_LEGACY: u32 = 1 << 1;
const ECX_EXT_SVM: u32 = 1 << 2;
/// IBS, and PerfCtrExtCore, PerfCtrExtNB, PerfTsc and PerfCtrExtLLC: performance counters, whose
/// state is not saved (AMD64 Architecture Programmer's Manual volume 3, Fn8000_0001_ECX).
const ECX_EXT_PERF: u32 = 1 << 10 | 1 << 23 | 1 << 24 | 1 << 27 | 1 << 28;

const VENDOR_AMD_EBX: u32 = u32::from_le_bytes(*b"Auth");

const LEVEL_SMT: u32 = 1;
const LEVEL_CORE: u32 = 2;

/// What all virtual CPUs have in common.
#[derive(Debug)]
pub(crate) struct CpuModel {
    entries: Vec<kvm_cpuid_entry2>,
    vcpus: u8,
    amd: bool,
    max_leaf: u32,
}

impl CpuModel {
    /// Ask KVM what it can offer.
    pub(crate) fn new(kvm: &Kvm, vcpus: u8) -> Result<Self, VmError> {
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(VmError::kvm("KVM_GET_SUPPORTED_CPUID"))?;
        Ok(Self::from_entries(supported.as_slice(), vcpus))
    }

    fn from_entries(supported: &[kvm_cpuid_entry2], vcpus: u8) -> Self {
        let basic = supported.iter().find(|entry| entry.function == 0);
        let max_leaf = basic.map_or(0, |entry| entry.eax);
        let amd = basic.is_some_and(|entry| entry.ebx == VENDOR_AMD_EBX);
        let mut entries: Vec<_> = supported
            .iter()
            .filter(|entry| !matches!(entry.function, LEAF_TOPOLOGY | LEAF_TOPOLOGY_V2))
            .copied()
            .collect();
        for entry in &mut entries {
            match entry.function {
                LEAF_FEATURES => {
                    // No nested virtualisation, and no MWAIT that would hold the host's CPU.
                    entry.ecx &= !(ECX1_MWAIT | ECX1_VMX | ECX1_PDCM);
                    entry.ecx |= ECX1_X2APIC | ECX1_TSC_DEADLINE | ECX1_HYPERVISOR;
                }
                // A guest that hears of pages that are on their way waits to hear of their arrival. One
                // that was saved in between, or is restored while its memory is still being read,
                // may wait for ever: Firecracker's issue 3020 is one that did.
                LEAF_KVM_FEATURES => entry.eax &= !EAX_KVM_ASYNC_PF,
                LEAF_EXT_FEATURES => {
                    entry.ecx &= !(ECX_EXT_SVM | ECX_EXT_PERF);
                    if amd && vcpus > 1 {
                        entry.ecx |= ECX_EXT_CMP_LEGACY;
                    }
                }
                LEAF_MWAIT | LEAF_PERFMON | LEAF_PERFMON_V2 | LEAF_SVM | LEAF_IBS
                | LEAF_AMD_PERFMON => {
                    (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
                }
                _ => {}
            }
        }
        Self {
            entries,
            vcpus,
            amd,
            max_leaf,
        }
    }

    /// The features that XCR0 may enable; `None` for a processor without XSAVE.
    pub(crate) fn xcr0(&self) -> Option<u64> {
        let find = |function| {
            self.entries
                .iter()
                .find(|entry| entry.function == function && entry.index == 0)
        };
        find(LEAF_FEATURES).filter(|entry| entry.ecx & ECX1_XSAVE != 0)?;
        find(LEAF_XSTATE)
            .map(|entry| u64::from(entry.edx) << 32 | u64::from(entry.eax))
            .filter(|xcr0| *xcr0 != 0)
    }

    /// Bits of an APIC id that number the cores.
    fn core_bits(&self) -> u32 {
        u32::from(self.vcpus).next_power_of_two().trailing_zeros()
    }

    /// What one virtual CPU answers.
    pub(crate) fn for_vcpu(&self, index: u8) -> Result<CpuId, VmError> {
        CpuId::from_entries(&self.entries_for(index)).map_err(|_| VmError::Kvm {
            what: "a list of CPUID entries",
            source: std::io::ErrorKind::InvalidInput.into(),
        })
    }

    fn entries_for(&self, index: u8) -> Vec<kvm_cpuid_entry2> {
        let apic_id = u32::from(index);
        let count = u32::from(self.vcpus);
        let ids = 1 << self.core_bits();
        let mut entries = self.entries.clone();
        for entry in &mut entries {
            match entry.function {
                LEAF_FEATURES => {
                    entry.ebx = (entry.ebx & 0xffff) | count << 16 | apic_id << 24;
                    if count > 1 {
                        entry.edx |= EDX1_HTT;
                    } else {
                        entry.edx &= !EDX1_HTT;
                    }
                }
                LEAF_CACHES if entry.eax & 0x1f != 0 => {
                    entry.eax = (entry.eax & 0x3fff) | (ids - 1) << 26 | self.sharing(entry.eax);
                }
                LEAF_AMD_CACHES if entry.eax & 0x1f != 0 => {
                    entry.eax = (entry.eax & 0x3fff) | self.sharing(entry.eax);
                }
                LEAF_EXT_SIZES if self.amd => {
                    entry.ecx = (entry.ecx & !0xf0ff) | (count - 1) | self.core_bits() << 12;
                }
                LEAF_AMD_TOPOLOGY => {
                    entry.eax = apic_id;
                    // One thread in a core, one node in the socket.
                    entry.ebx = apic_id;
                    entry.ecx = 0;
                }
                _ => {}
            }
        }
        for leaf in [LEAF_TOPOLOGY, LEAF_TOPOLOGY_V2] {
            if self.max_leaf >= leaf {
                entries.extend(self.topology(leaf, apic_id));
            }
        }
        entries
    }

    /// Which cores share a cache, as bits 25 to 14 of its leaf: all share the third level, none
    /// the others.
    fn sharing(&self, cache: u32) -> u32 {
        let level = cache >> 5 & 7;
        if level >= 3 {
            ((1 << self.core_bits()) - 1) << 14
        } else {
            0
        }
    }

    /// Intel SDM volume 2, CPUID leaves 0BH and 1FH.
    fn topology(&self, leaf: u32, apic_id: u32) -> [kvm_cpuid_entry2; 3] {
        let entry = |index, shift, processors, level: u32| kvm_cpuid_entry2 {
            function: leaf,
            index,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax: shift,
            ebx: processors,
            ecx: index | level << 8,
            edx: apic_id,
            ..Default::default()
        };
        [
            entry(0, 0, 1, LEVEL_SMT),
            entry(1, self.core_bits(), u32::from(self.vcpus), LEVEL_CORE),
            entry(2, 0, 0, 0),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supported() -> Vec<kvm_cpuid_entry2> {
        let entry = |function, eax, ebx, ecx, edx| kvm_cpuid_entry2 {
            function,
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        };
        vec![
            entry(0, 0x1f, VENDOR_AMD_EBX, 0, 0),
            entry(1, 0, 0xffff_0800, ECX1_VMX | ECX1_MWAIT, EDX1_HTT),
            entry(4, 0x7c00_4163, 0, 0, 0),
            entry(0xa, 0x0730_0402, 0, 0, 0x603),
            entry(0xb, 1, 2, 3, 99),
            entry(LEAF_KVM_FEATURES, 0x0100_7efb, 0, 0, 0),
            entry(LEAF_EXT_FEATURES, 0, 0, ECX_EXT_SVM, 0),
            entry(LEAF_EXT_SIZES, 0x3030, 0, 0xf0ff, 0),
            entry(LEAF_AMD_TOPOLOGY, 7, 7, 7, 0),
        ]
    }

    fn find(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *entries
            .iter()
            .find(|entry| entry.function == function && entry.index == index)
            .unwrap()
    }

    #[test]
    fn every_vcpu_knows_its_place() {
        let model = CpuModel::from_entries(&supported(), 6);
        let entries = model.entries_for(5);
        let features = find(&entries, 1, 0);
        assert_eq!(features.ebx, 5 << 24 | 6 << 16 | 0x0800);
        assert_eq!(features.ecx & (ECX1_VMX | ECX1_MWAIT), 0);
        assert_ne!(features.ecx & ECX1_TSC_DEADLINE, 0);
        assert_eq!(find(&entries, LEAF_KVM_FEATURES, 0).eax, 0x0100_3aeb);
        assert_eq!(find(&entries, 4, 0).eax, 7 << 26 | 7 << 14 | 0x163);
        assert_eq!(find(&entries, 0xb, 0).edx, 5);
        assert_eq!(find(&entries, 0xb, 1).eax, 3);
        assert_eq!(find(&entries, 0x1f, 1).ebx, 6);
        assert_eq!(find(&entries, LEAF_EXT_SIZES, 0).ecx, 3 << 12 | 5);
        assert_eq!(find(&entries, LEAF_AMD_TOPOLOGY, 0).ebx, 5);
        assert_eq!(find(&entries, LEAF_EXT_FEATURES, 0).ecx, ECX_EXT_CMP_LEGACY);
        assert_eq!(entries.iter().filter(|e| e.function == 0xb).count(), 3);
    }

    /// What hosts of either vendor offer, with everything that a guest must not see.
    fn generous(vendor: u32) -> Vec<kvm_cpuid_entry2> {
        let all = |function| kvm_cpuid_entry2 {
            function,
            eax: u32::MAX,
            ebx: u32::MAX,
            ecx: u32::MAX,
            edx: u32::MAX,
            ..Default::default()
        };
        let mut entries: Vec<_> = (1..=0x23)
            .chain(0x8000_0001..=0x8000_0022)
            .map(all)
            .collect();
        let basic = kvm_cpuid_entry2 {
            eax: 0x23,
            ebx: vendor,
            ..Default::default()
        };
        entries.push(basic);
        entries
    }

    #[test]
    fn nested_virtualisation_and_performance_counters_are_hidden_on_both_vendors() {
        for vendor in [VENDOR_AMD_EBX, u32::from_le_bytes(*b"Genu")] {
            let model = CpuModel::from_entries(&generous(vendor), 2);
            let entries = model.entries_for(1);
            let features = find(&entries, LEAF_FEATURES, 0).ecx;
            assert_eq!(features & (1 << 3 | 1 << 5 | 1 << 15), 0, "{features:#x}");
            let extended = find(&entries, LEAF_EXT_FEATURES, 0).ecx;
            let hidden = 1 << 2 | 1 << 10 | 1 << 23 | 1 << 24 | 1 << 27 | 1 << 28;
            assert_eq!(extended & hidden, 0, "{extended:#x}");
            for leaf in [5, 0xa, 0x23, 0x8000_000a, 0x8000_001b, 0x8000_0022] {
                let found = find(&entries, leaf, 0);
                let registers = [found.eax, found.ebx, found.ecx, found.edx];
                assert_eq!(registers, [0; 4], "leaf {leaf:#x}");
            }
        }
    }

    #[test]
    fn one_vcpu_is_not_hyperthreaded() {
        let model = CpuModel::from_entries(&supported(), 1);
        let features = find(&model.entries_for(0), 1, 0);
        assert_eq!(features.edx & EDX1_HTT, 0);
    }
}
