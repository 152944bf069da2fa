//! Virtual CPUs: a named thread each, and a way to get a thread out of the guest.
//!
//! A pause is a kick ([`kick`]) after which the thread takes orders until one of them is to go on.

pub(crate) mod kick;
pub(crate) mod xsave;

use crate::arch;
use crate::devices::Bus;
use crate::error::VmError;
use crate::outcome::{InternalError, Outcome};
use crate::stats::Counters;
use crate::thread::Thread;
use crate::vm::ending::Ending;
use kick::Kick;
use kvm_bindings::{KVM_CAP_PRE_FAULT_MEMORY, KVMIO, kvm_pre_fault_memory};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Instant;
use vm_memory::GuestAddress;
use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use vmm_sys_util::ioctl_iowr_nr;

ioctl_iowr_nr!(KVM_PRE_FAULT_MEMORY, KVMIO, 0xd5, kvm_pre_fault_memory);

/// Most calls of `KVM_PRE_FAULT_MEMORY` in a row that map nothing. The guest gets the page when it
/// touches it.
const MAX_IN_VAIN: u32 = 16;

/// A virtual CPU that does not run yet.
#[derive(Debug)]
pub(crate) struct Vcpu {
    index: u8,
    fd: VcpuFd,
}

impl Vcpu {
    pub(crate) fn new(vm: &VmFd, index: u8) -> Result<Self, VmError> {
        let fd = vm
            .create_vcpu(index.into())
            .map_err(VmError::kvm("KVM_CREATE_VCPU"))?;
        Ok(Self { index, fd })
    }

    /// For the architecture's registers.
    pub(crate) const fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// To have memory mapped from another thread, until this one runs.
    pub(crate) fn mapper(&self) -> io::Result<Mapper> {
        // SAFETY: the descriptor is open for as long as `self` is borrowed.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd.as_raw_fd()) };
        fd.try_clone_to_owned().map(Mapper)
    }

    /// Start the thread.
    pub(crate) fn start(
        mut self,
        bus: Arc<Bus>,
        vm: Arc<VmFd>,
        counters: Arc<Counters>,
        ending: Arc<Ending>,
    ) -> Result<VcpuThread, VmError> {
        kick::install_handler().map_err(VmError::setup("the kick signal"))?;
        let kick = Arc::new(Kick::default());
        ending.add_kick(Arc::clone(&kick));
        let own_kick = Arc::clone(&kick);
        let (orders, received) = channel();
        let builder = std::thread::Builder::new()
            .name(format!("vcpu{}", self.index))
            .stack_size(256 << 10);
        let body = move || {
            let _armed = own_kick.arm(&mut self.fd);
            let context = Context {
                bus: &bus,
                vm: &vm,
                counters: &counters,
                ending: &ending,
                kick: &own_kick,
                orders: &received,
            };
            if ending.outcome().is_none()
                && let Some(outcome) = run(&mut self.fd, &context)
            {
                ending.end(outcome);
            }
        };
        let thread =
            Thread::spawn(builder, body).map_err(VmError::setup("a virtual CPU's thread"))?;
        Ok(VcpuThread {
            kick,
            orders: Some(orders),
            thread: Some(thread),
        })
    }
}

/// Has KVM map memory for a virtual CPU that does not run.
#[derive(Debug)]
pub(crate) struct Mapper(OwnedFd);

impl Mapper {
    /// The capability that this needs (Documentation/virt/kvm/api.rst, KVM_PRE_FAULT_MEMORY).
    pub(crate) const CAPABILITY: libc::c_ulong = KVM_CAP_PRE_FAULT_MEMORY as libc::c_ulong;

    /// Map whole pages as a read of the guest would: those that are its own to be written to, too.
    pub(crate) fn map(&self, start: GuestAddress, bytes: u64) -> io::Result<()> {
        let range = kvm_pre_fault_memory {
            gpa: start.0,
            size: bytes,
            ..Default::default()
        };
        map_all(range, |left| {
            // SAFETY: KVM reads and writes this structure alone, and it is one of its own; the
            // guest's memory does not change.
            match unsafe { ioctl_with_mut_ref(&self.0, KVM_PRE_FAULT_MEMORY(), left) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        })
    }
}

/// Have KVM map a range, in as many calls as that takes. KVM says EINTR or EAGAIN where it was
/// disturbed, and what is left is up to date then; it may say so of the same page for ever.
fn map_all(
    mut left: kvm_pre_fault_memory,
    mut call: impl FnMut(&mut kvm_pre_fault_memory) -> io::Result<()>,
) -> io::Result<()> {
    let mut in_vain = 0;
    while left.size > 0 {
        let before = left.size;
        let result = call(&mut left);
        in_vain = if left.size < before { 0 } else { in_vain + 1 };
        match result {
            Err(error) if in_vain == MAX_IN_VAIN => return Err(error),
            Ok(()) if in_vain == MAX_IN_VAIN => return Err(io::ErrorKind::WouldBlock.into()),
            Ok(()) => {}
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN) => {}
                _ => return Err(error),
            },
        }
    }
    Ok(())
}

/// What a virtual CPU that is paused is told.
#[derive(Debug)]
enum Order {
    /// Tell your state: these MSRs, and all else.
    Save(Arc<[u32]>, SyncSender<Result<arch::VcpuState, VmError>>),
    /// Go on.
    Resume,
}

/// A virtual CPU that runs.
#[derive(Debug)]
pub(crate) struct VcpuThread {
    kick: Arc<Kick>,
    orders: Option<Sender<Order>>,
    thread: Option<Thread>,
}

impl VcpuThread {
    /// Get the thread out of the guest, for good.
    pub(crate) fn kick(&self) {
        self.kick.kick();
    }

    /// Get the thread out of the guest until [`Self::resume`]. It is out when it answers.
    pub(crate) fn pause(&self) {
        self.kick.pauses.fetch_add(1, Ordering::SeqCst);
        self.kick.kick();
    }

    /// The state of a paused virtual CPU. Waits until the thread has left the guest, but not beyond
    /// the deadline.
    pub(crate) fn save(
        &self,
        msrs: &Arc<[u32]>,
        deadline: Instant,
    ) -> Result<arch::VcpuState, VmError> {
        let (sender, answer) = sync_channel(1);
        self.order(Order::Save(Arc::clone(msrs), sender));
        let left = deadline.saturating_duration_since(Instant::now());
        answer.recv_timeout(left).unwrap_or_else(|error| {
            Err(match error {
                RecvTimeoutError::Timeout => VmError::Silent("a virtual CPU"),
                // Its thread ended, and with it the VM.
                RecvTimeoutError::Disconnected => VmError::Ended,
            })
        })
    }

    /// Let the thread go on.
    pub(crate) fn resume(&self) {
        self.order(Order::Resume);
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // A thread that has ended needs no orders.
            let _ = orders.send(order);
        }
    }

    /// Wait for the thread's end. False: it does not come out of KVM before the deadline, and is
    /// left to itself.
    pub(crate) fn join_until(&mut self, deadline: Instant) -> bool {
        // A paused thread waits for orders.
        self.orders = None;
        self.thread
            .take()
            .is_none_or(|thread| thread.join_until(deadline))
    }
}

/// What an exit may need.
struct Context<'a> {
    bus: &'a Bus,
    vm: &'a VmFd,
    counters: &'a Counters,
    ending: &'a Ending,
    kick: &'a Kick,
    orders: &'a Receiver<Order>,
}

/// Run the guest until something ends it; `None` if that was elsewhere.
fn run(fd: &mut VcpuFd, context: &Context<'_>) -> Option<Outcome> {
    loop {
        let outcome = match fd.run() {
            Ok(exit) => handle(exit, context),
            Err(error) => match error.errno() {
                // A kick follows an end. Any other signal is the business of its own handler.
                libc::EINTR if context.ending.outcome().is_some() => return None,
                libc::EINTR if context.kick.pauses.load(Ordering::SeqCst) > 0 => {
                    if !obey(fd, context) {
                        return None;
                    }
                    Step::Continue
                }
                libc::EINTR => Step::Continue,
                libc::EAGAIN => Step::Continue,
                errno => Step::End(Outcome::InternalError(InternalError::Run { errno })),
            },
        };
        match outcome {
            Step::Continue => {}
            Step::InternalError => return Some(internal_error(fd)),
            Step::End(outcome) => return Some(outcome),
        }
    }
}

/// Take orders while paused; false if there will be no more.
fn obey(fd: &mut VcpuFd, context: &Context<'_>) -> bool {
    loop {
        match context.orders.recv() {
            Ok(Order::Save(msrs, answer)) => {
                // Whoever asked may have gone.
                let _ = answer.send(arch::save_vcpu(fd, &msrs));
            }
            Ok(Order::Resume) => {
                // A pause that comes after this sets it again.
                fd.set_kvm_immediate_exit(0);
                if context.kick.pauses.fetch_sub(1, Ordering::SeqCst) > 1 {
                    continue;
                }
                // Whoever ends the VM says so before kicking.
                return context.ending.outcome().is_none();
            }
            Err(_) => return false,
        }
    }
}

/// What follows an exit.
enum Step {
    Continue,
    InternalError,
    End(Outcome),
}

fn handle(exit: VcpuExit<'_>, context: &Context<'_>) -> Step {
    match exit {
        VcpuExit::MmioWrite(address, data) => {
            context.counters.mmio_write_exits.add(1);
            context.bus.mmio_write(address, data);
            Step::Continue
        }
        VcpuExit::MmioRead(address, data) => {
            context.counters.mmio_read_exits.add(1);
            context.bus.mmio_read(address, data);
            Step::Continue
        }
        VcpuExit::IoOut(port, data) => {
            context.counters.io_exits.add(1);
            let orderly = || arch::interrupts_torn_down(context.vm);
            match context.bus.ports.write(port, data, orderly) {
                Some(outcome) => Step::End(outcome),
                None => Step::Continue,
            }
        }
        VcpuExit::IoIn(port, data) => {
            context.counters.io_exits.add(1);
            context.bus.ports.read(port, data);
            Step::Continue
        }
        other => {
            context.counters.other_exits.add(1);
            match other {
                VcpuExit::Shutdown => Step::End(Outcome::TripleFault),
                VcpuExit::InternalError => Step::InternalError,
                VcpuExit::FailEntry(reason, _) => {
                    Step::End(Outcome::InternalError(InternalError::FailEntry { reason }))
                }
                VcpuExit::Intr | VcpuExit::IrqWindowOpen => Step::Continue,
                exit => Step::End(Outcome::InternalError(InternalError::UnexpectedExit(
                    format!("{exit:?}"),
                ))),
            }
        }
    }
}

fn internal_error(fd: &mut VcpuFd) -> Outcome {
    // SAFETY: `KVM_RUN` just reported an internal error, for which this is the union's member;
    // every bit pattern is valid for its integers.
    let suberror = unsafe { fd.get_kvm_run().__bindgen_anon_1.internal.suberror };
    let rip = arch::instruction_pointer(fd);
    Outcome::InternalError(InternalError::Kvm { suberror, rip })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: kvm_pre_fault_memory = kvm_pre_fault_memory {
        gpa: 0x1000,
        size: 0x4000,
        flags: 0,
        padding: [0; 5],
    };

    #[test]
    fn mapping_goes_on_while_it_gets_on_and_no_longer() {
        let again = || Err(io::Error::from_raw_os_error(libc::EAGAIN));
        let mut calls = 0;
        // A page at a time, each after many disturbances.
        let mapped = map_all(RANGE, |left| {
            calls += 1;
            if calls % (MAX_IN_VAIN - 1) == 0 {
                (left.gpa, left.size) = (left.gpa + 0x1000, left.size - 0x1000);
            }
            again()
        });
        assert!(mapped.is_ok());
        assert_eq!(calls, 4 * (MAX_IN_VAIN - 1));
        for errno in [libc::EAGAIN, libc::EINTR] {
            let mut calls = 0;
            let stuck = map_all(RANGE, |_| {
                calls += 1;
                Err(io::Error::from_raw_os_error(errno))
            });
            assert_eq!(stuck.unwrap_err().raw_os_error(), Some(errno));
            assert_eq!(calls, MAX_IN_VAIN);
        }
        // A kernel that says it did and did not.
        assert!(map_all(RANGE, |_| Ok(())).is_err());
        let mut calls = 0;
        let refused = map_all(RANGE, |_| {
            calls += 1;
            Err(io::Error::from_raw_os_error(libc::EFAULT))
        });
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EFAULT));
        assert_eq!(calls, 1);
    }
}
