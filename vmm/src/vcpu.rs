//! Virtual CPUs: a named thread each, and a way to get a thread out of the guest.
//!
//! A kick sets `immediate_exit` in the memory that a virtual CPU shares with KVM and sends the
//! thread a real-time signal whose handler does nothing. Whether the thread is in the guest, on
//! its way in or on its way out, its next or present `KVM_RUN` returns with EINTR.

use crate::arch;
use crate::devices::Bus;
use crate::error::VmError;
use crate::outcome::{InternalError, Outcome};
use crate::stats::Counters;
use crate::vm::Ending;
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread::JoinHandle;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler, unblock_signal};

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

    /// Start the thread.
    pub(crate) fn start(
        mut self,
        bus: Arc<Bus>,
        vm: Arc<VmFd>,
        counters: Arc<Counters>,
        ending: Arc<Ending>,
    ) -> Result<VcpuThread, VmError> {
        install_kick_handler().map_err(VmError::setup("the kick signal"))?;
        let kick = Arc::new(Kick::default());
        ending.add_kick(Arc::clone(&kick));
        let own_kick = Arc::clone(&kick);
        let thread = std::thread::Builder::new()
            .name(format!("vcpu{}", self.index))
            .stack_size(256 << 10)
            .spawn(move || {
                let _armed = own_kick.arm(&mut self.fd);
                let context = Context {
                    bus: &bus,
                    vm: &vm,
                    counters: &counters,
                    ending: &ending,
                };
                if ending.outcome().is_none()
                    && let Some(outcome) = run(&mut self.fd, &context)
                {
                    ending.end(outcome);
                }
            })
            .map_err(VmError::setup("a virtual CPU's thread"))?;
        Ok(VcpuThread {
            kick,
            thread: Some(thread),
        })
    }
}

/// A virtual CPU that runs.
#[derive(Debug)]
pub(crate) struct VcpuThread {
    kick: Arc<Kick>,
    thread: Option<JoinHandle<()>>,
}

impl VcpuThread {
    /// Get the thread out of the guest, for good.
    pub(crate) fn kick(&self) {
        self.kick.kick();
    }

    /// Wait for the thread's end.
    pub(crate) fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic was reported by the panic hook; there is nothing to add.
            let _ = thread.join();
        }
    }
}

/// What an exit may need.
struct Context<'a> {
    bus: &'a Bus,
    vm: &'a VmFd,
    counters: &'a Counters,
    ending: &'a Ending,
}

/// Run the guest until something ends it; `None` if that was elsewhere.
fn run(fd: &mut VcpuFd, context: &Context<'_>) -> Option<Outcome> {
    loop {
        let outcome = match fd.run() {
            Ok(exit) => handle(exit, context),
            Err(error) => match error.errno() {
                // A kick follows an end. Any other signal is the business of its own handler.
                libc::EINTR if context.ending.outcome().is_some() => return None,
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

/// Where to kick: only while the thread runs.
#[derive(Debug, Default)]
pub(crate) struct Kick(Mutex<Target>);

#[derive(Debug, Default)]
enum Target {
    /// The thread has not armed itself yet.
    #[default]
    Unarmed,
    /// It was kicked before that.
    Early,
    Armed {
        immediate_exit: *const AtomicU8,
        thread: libc::pthread_t,
    },
    /// The thread has ended.
    Gone,
}

// SAFETY: the pointer is used only under the mutex and only while the target is armed, which ends
// before what it points to does.
unsafe impl Send for Target {}

impl Kick {
    /// Make this thread the target, until the guard is dropped.
    fn arm(&self, fd: &mut VcpuFd) -> Armed<'_> {
        let byte: *mut u8 = &raw mut fd.get_kvm_run().immediate_exit;
        // A blocked signal would still be noticed, since KVM looks for pending ones only among
        // those that are not blocked: unblock it. Without it, the guest's next exit ends it.
        let _ = unblock_signal(SIGRTMIN());
        let mut target = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let early = matches!(*target, Target::Early);
        *target = Target::Armed {
            immediate_exit: byte.cast(),
            // SAFETY: takes nothing and always succeeds.
            thread: unsafe { libc::pthread_self() },
        };
        drop(target);
        if early {
            self.kick();
        }
        Armed(self)
    }

    /// Get the thread out of the guest, for good.
    pub(crate) fn kick(&self) {
        let mut target = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *target {
            Target::Armed {
                immediate_exit,
                thread,
            } => {
                // SAFETY: while armed, the shared memory of the virtual CPU is mapped: its owner
                // lives on the target thread's stack below the guard. KVM only reads the byte.
                unsafe { &*immediate_exit }.store(1, Ordering::Release);
                // SAFETY: while armed, the thread has not ended, and the signal has a handler.
                unsafe { libc::pthread_kill(thread, SIGRTMIN()) };
            }
            Target::Unarmed => *target = Target::Early,
            Target::Early | Target::Gone => {}
        }
    }
}

/// Disarms a [`Kick`].
struct Armed<'a>(&'a Kick);

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        let mut target = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        *target = Target::Gone;
    }
}

/// A signal's handler that does nothing: the signal's arrival is all.
extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Once in a process.
fn install_kick_handler() -> io::Result<()> {
    static INSTALLED: Once = Once::new();
    let mut result = Ok(());
    INSTALLED.call_once(|| {
        result = register_signal_handler(SIGRTMIN(), on_kick).map_err(io::Error::from);
    });
    result
}
