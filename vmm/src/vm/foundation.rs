//! What of a VM depends on nothing but its size and its kernel.
//!
//! It is most of the work: the kernel's memory has to be found, cleared and filled. A caller that
//! knows the size before it knows the disks can have it done meanwhile.

use super::premapping::Premapping;
use crate::arch;
use crate::boot::{self, Copies, LoadError, Placement};
use crate::config::VmShape;
use crate::error::VmError;
use crate::memory::{Extent, GuestMemory, HugePages, add_ram_slots};
use crate::snapshot::{Lesson, Snapshot, VmState, descriptors};
use crate::vcpu::Vcpu;
use kvm_ioctls::{Kvm, VmFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use vm_memory::{Bytes, GuestAddress};

/// A VM with its memory, its kernel in there and its virtual CPUs, but without any device.
#[derive(Debug)]
pub struct Foundation {
    shape: VmShape,
    parts: Parts,
    steps: Vec<(Step, Instant)>,
}

/// A step of laying a foundation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The guest's memory was laid out.
    MemoryMap,
    /// The VM, its virtual CPUs and interrupt controllers were made.
    VmCreate,
    /// A kernel was put into the memory, partly while the VM was made.
    KernelLoad,
    /// Virtual CPUs and interrupt controllers got back what was saved.
    StateRestore,
}

/// What it is made of.
#[derive(Debug)]
pub(super) struct Parts {
    // NOTE: fields are dropped in order. Virtual CPUs and the VM go before the memory they use.
    pub(super) vcpus: Vec<Vcpu>,
    pub(super) vm: Arc<VmFd>,
    pub(super) memory: GuestMemory,
    /// The first memory slot that is free.
    pub(super) next_slot: u32,
    pub(super) contents: Contents,
}

/// What is in the memory.
#[derive(Debug)]
pub(super) enum Contents {
    /// A kernel that is to boot.
    Kernel {
        /// Ranges that every guest soon touches.
        first_touched: Vec<(u64, u64)>,
        /// Where the initramfs is, and its length.
        initramfs: Option<(GuestAddress, u64)>,
    },
    /// A guest that ran before; its virtual CPUs have everything back but the time.
    Guest {
        state: Box<VmState>,
        /// What it can tell the next ones, if they do not know yet.
        lesson: Option<Lesson>,
        /// What those before it have told is being made use of.
        premapping: Option<Premapping>,
    },
}

impl Foundation {
    /// Lay it. A second thread helps for as long as this takes.
    ///
    /// # Errors
    /// See [`VmError`]. Nothing is left behind then.
    pub fn new(shape: VmShape) -> Result<Self, VmError> {
        let ranges = arch::layout::ram_ranges(shape.memory.bytes());
        let huge = HugePages::of_host();
        let memory = GuestMemory::new(&ranges, huge).map_err(VmError::Memory)?;
        let mut steps = vec![(Step::MemoryMap, Instant::now())];
        // Pages of a file are small pages, and the guest leaves for each of them, twice where it
        // writes: some 6000 of 8300 exits of a boot. A copy in huge pages costs a few dozen. Only
        // where there are no huge pages is sharing the host's page cache the better bargain.
        let placement = match huge {
            HugePages::Advise => Placement::Copy,
            HugePages::Never => Placement::Map,
        };
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source: LoadError| VmError::Load { path, source }
        };
        let mut copies = Copies::default();
        let kernel = boot::load_kernel(&memory, &shape.kernel, placement, &mut copies)
            .map_err(failed(&shape.kernel))?;
        let initramfs = match &shape.initramfs {
            Some(path) => Some(
                boot::load_initramfs(&memory, &kernel, path, placement, &mut copies)
                    .map_err(failed(path))?,
            ),
            None => None,
        };
        let (machine, copied) = std::thread::scope(|scope| {
            let carry = || copies.carry(&memory);
            let help = || {
                let carried = copies.carry(&memory);
                // Its first act is to clear what follows the image.
                memory.populate(kernel.end.0 - 1, kernel.end.0);
                carried
            };
            let helper = std::thread::Builder::new().name("load".into());
            // Without a second thread, the first one does it all.
            let helper = helper.spawn_scoped(scope, help);
            let machine = machine(&shape, &memory, kernel.entry);
            steps.push((Step::VmCreate, Instant::now()));
            // The boot tables will lie in a page of their own: have it cleared now, too.
            let _ = memory.ram().write_obj(0u8, arch::layout::ZERO_PAGE);
            let mut copied = carry();
            if let Ok(helper) = helper {
                match helper.join() {
                    Ok(theirs) => copied = copied.and(theirs),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            (machine, copied)
        });
        copied.map_err(|(error, path)| failed(path)(error))?;
        steps.push((Step::KernelLoad, Instant::now()));
        let (vcpus, vm, next_slot) = machine?;
        let first_touched = match huge {
            HugePages::Advise => boot::first_touched(&memory, initramfs),
            HugePages::Never => Vec::new(),
        };
        let parts = Parts {
            vcpus,
            vm,
            memory,
            next_slot,
            contents: Contents::Kernel {
                first_touched,
                initramfs,
            },
        };
        Ok(Self {
            shape,
            parts,
            steps,
        })
    }

    /// Lay it with what a snapshot holds in place of a kernel. Of the shape only virtual CPUs and
    /// memory matter; its files are what a caller would boot otherwise.
    ///
    /// # Errors
    /// See [`VmError`]. Nothing is left behind then.
    pub fn restore(shape: VmShape, snapshot: Snapshot) -> Result<Self, VmError> {
        if snapshot.vcpus() != shape.vcpus || snapshot.memory() != shape.memory {
            return Err(VmError::Snapshot("it has another shape"));
        }
        let ranges = arch::layout::ram_ranges(shape.memory.bytes());
        let memory = GuestMemory::new(&ranges, HugePages::of_host()).map_err(VmError::Memory)?;
        for extent in &snapshot.extents {
            memory
                .map_saved(&snapshot.memory, extent)
                .map_err(VmError::Memory)?;
        }
        for hole in small_holes(&snapshot.extents) {
            memory.in_small_pages(&hole);
        }
        let mut steps = vec![(Step::MemoryMap, Instant::now())];
        let kvm = Kvm::new().map_err(|error| VmError::OpenKvm(error.into()))?;
        // What a guest that is to tell the next ones touches must be seen.
        let (lesson, mut premapping) = match snapshot.touched {
            Some(mut touched) => {
                if let Some(first) = snapshot.state.vcpus.first() {
                    touched.extend(descriptors(&memory, &snapshot.extents, first));
                }
                let begun = Premapping::begin(&kvm, &memory, &snapshot.extents, touched);
                (None, begun)
            }
            None => {
                let lesson = Lesson::new(&memory, &snapshot.extents, &snapshot.dir);
                (Some(lesson), None)
            }
        };
        let (vcpus, vm, next_slot) =
            restored_machine(&kvm, &shape, &memory, &snapshot.state, &mut steps)?;
        if let (Some(premapping), Some(first)) = (&mut premapping, vcpus.first()) {
            premapping.go_on(first);
        }
        let parts = Parts {
            vcpus,
            vm,
            memory,
            next_slot,
            contents: Contents::Guest {
                state: Box::new(snapshot.state),
                lesson,
                premapping,
            },
        };
        Ok(Self {
            shape,
            parts,
            steps,
        })
    }

    /// What was done when, in that order.
    #[must_use]
    pub fn steps(&self) -> &[(Step, Instant)] {
        &self.steps
    }

    /// Whether it is a guest that ran before.
    #[must_use]
    pub const fn is_restored(&self) -> bool {
        matches!(self.parts.contents, Contents::Guest { .. })
    }

    /// What it was made for.
    pub(super) const fn shape(&self) -> &VmShape {
        &self.shape
    }

    pub(super) fn into_parts(self) -> Parts {
        self.parts
    }
}

/// The VM with its virtual CPUs, the first of them at the kernel's entry, and the first free slot.
fn machine(
    shape: &VmShape,
    memory: &GuestMemory,
    entry: GuestAddress,
) -> Result<(Vec<Vcpu>, Arc<VmFd>, u32), VmError> {
    let kvm = Kvm::new().map_err(|error| VmError::OpenKvm(error.into()))?;
    let (vm, next_slot) = empty_machine(&kvm, memory)?;
    let count = shape.vcpus.get();
    let model = arch::CpuModel::new(&kvm, count)?;
    let mut vcpus = Vec::with_capacity(count.into());
    for index in 0..count {
        let vcpu = Vcpu::new(&vm, index)?;
        let entry = (index == 0).then_some(entry);
        arch::setup_vcpu(vcpu.fd(), index, &model, entry)?;
        vcpus.push(vcpu);
    }
    Ok((vcpus, vm, next_slot))
}

/// The same with everything as it was saved, but for the time.
fn restored_machine(
    kvm: &Kvm,
    shape: &VmShape,
    memory: &GuestMemory,
    state: &VmState,
    steps: &mut Vec<(Step, Instant)>,
) -> Result<(Vec<Vcpu>, Arc<VmFd>, u32), VmError> {
    if !arch::can_restore(kvm) {
        return Err(VmError::Snapshot("this host's KVM cannot restore any"));
    }
    let (vm, next_slot) = empty_machine(kvm, memory)?;
    let vcpus = (0..shape.vcpus.get())
        .map(|index| Vcpu::new(&vm, index))
        .collect::<Result<Vec<_>, _>>()?;
    steps.push((Step::VmCreate, Instant::now()));
    for (vcpu, state) in vcpus.iter().zip(&state.vcpus) {
        arch::restore_vcpu(state, vcpu.fd())?;
    }
    arch::restore_chips(&state.machine, &vm)?;
    steps.push((Step::StateRestore, Instant::now()));
    Ok((vcpus, vm, next_slot))
}

/// A VM with memory and interrupt controllers, and the first free slot.
fn empty_machine(kvm: &Kvm, memory: &GuestMemory) -> Result<(Arc<VmFd>, u32), VmError> {
    let vm = Arc::new(create_vm(kvm)?);
    let next_slot = add_ram_slots(&vm, memory).map_err(VmError::Memory)?;
    arch::create_irqchip(&vm)?;
    Ok((vm, next_slot))
}

/// Creating a VM fails with EINTR when a signal arrives meanwhile.
fn create_vm(kvm: &Kvm) -> Result<VmFd, VmError> {
    loop {
        match kvm.create_vm() {
            Err(error) if error.errno() == libc::EINTR => {}
            result => return result.map_err(VmError::kvm("KVM_CREATE_VM")),
        }
    }
}

/// Memory without contents between memory with some: where it is this small, a guest takes a page here and
/// there of it, and a huge page for each would be most of what an idle guest has of its own.
fn small_holes(extents: &[Extent]) -> Vec<Extent> {
    const MAX_HOLE: u64 = 4 << 20;
    let hole = |pair: &[Extent]| {
        let [before, behind] = pair else { return None };
        let start = before.start.checked_add(before.bytes)?;
        let bytes = behind.start.checked_sub(start)?;
        (1..=MAX_HOLE)
            .contains(&bytes)
            .then_some(Extent { start, bytes })
    };
    extents.windows(2).filter_map(hole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_found_between_extents_and_large_ones_left() {
        let extent = |start: u64, bytes: u64| Extent {
            start: start << 20,
            bytes: bytes << 20,
        };
        let holes = small_holes(&[
            extent(0, 12),
            extent(16, 4),
            extent(20, 2),
            extent(24, 2),
            extent(100, 2),
        ]);
        assert_eq!(holes, [extent(12, 4), extent(22, 2)]);
        assert_eq!(small_holes(&[extent(0, 2)]), []);
    }
}
