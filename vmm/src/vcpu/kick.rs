//! Getting a thread out of the guest.
//!
//! A kick sets `immediate_exit` in the memory that a virtual CPU shares with KVM and sends the
//! thread a real-time signal whose handler does nothing. Whether the thread is in the guest, on
//! its way in or on its way out, its next or present `KVM_RUN` returns with EINTR, having finished
//! what the exit before it began.

use kvm_ioctls::VcpuFd;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler, unblock_signal};

/// Where to kick: only while the thread runs.
#[derive(Debug, Default)]
pub(crate) struct Kick {
    target: Mutex<Target>,
    /// Pauses that no order to go on has answered yet.
    pub(super) pauses: AtomicU32,
}

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
    pub(super) fn arm(&self, fd: &mut VcpuFd) -> Armed<'_> {
        let byte: *mut u8 = &raw mut fd.get_kvm_run().immediate_exit;
        // A blocked signal would still be noticed, since KVM looks for pending ones only among
        // those that are not blocked: unblock it. Without it, the guest's next exit ends it.
        let _ = unblock_signal(SIGRTMIN());
        let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Get the thread out of the guest.
    pub(crate) fn kick(&self) {
        let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
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
pub(super) struct Armed<'a>(&'a Kick);

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        let mut target = self.0.target.lock().unwrap_or_else(PoisonError::into_inner);
        *target = Target::Gone;
    }
}

/// A signal's handler that does nothing: the signal's arrival is all.
extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Gives the signal its handler, once in a process.
pub(super) fn install_handler() -> io::Result<()> {
    static INSTALLED: Once = Once::new();
    let mut result = Ok(());
    INSTALLED.call_once(|| {
        result = register_signal_handler(SIGRTMIN(), on_kick).map_err(io::Error::from);
    });
    result
}
