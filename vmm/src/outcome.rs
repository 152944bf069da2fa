//! How a VM ended, and what it did until then.

use std::fmt;

/// How a VM ended. Displayed, it is a clause to follow "the virtual machine".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The guest powered itself off.
    Shutdown,
    /// The guest restarted itself in good order.
    Reset,
    /// The guest kernel panicked.
    Panic,
    /// The guest faulted while it handled a fault that it faulted on.
    TripleFault,
    /// KVM could not go on with this guest, or a thread of the VMM failed.
    InternalError(InternalError),
    /// The caller stopped it.
    Stopped,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shutdown => f.write_str("powered itself off"),
            Self::Reset => f.write_str("asked to be restarted"),
            Self::Panic => f.write_str("stopped because its kernel panicked"),
            Self::TripleFault => f.write_str("crashed with a triple fault"),
            Self::InternalError(error) => write!(f, "cannot go on: {error}"),
            Self::Stopped => f.write_str("was stopped"),
        }
    }
}

/// Why a VM could not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InternalError {
    /// `KVM_EXIT_INTERNAL_ERROR`.
    #[error("KVM reports an internal error (suberror {suberror}, {}) at guest address {rip:#x}", suberror_words(*.suberror))]
    Kvm {
        /// KVM's number for it.
        suberror: u32,
        /// Where the guest was.
        rip: u64,
    },
    /// `KVM_EXIT_FAIL_ENTRY`.
    #[error("the processor refused to enter the guest (hardware reason {reason:#x})")]
    FailEntry {
        /// The processor's reason.
        reason: u64,
    },
    /// `KVM_RUN` itself failed.
    #[error("KVM_RUN failed with errno {errno}")]
    Run {
        /// The error number.
        errno: i32,
    },
    /// An exit that no guest of ours can cause.
    #[error("unexpected exit from the guest: {0}")]
    UnexpectedExit(String),
    /// A device's thread failed.
    #[error("a device thread failed: {0}")]
    Device(String),
}

/// The kernel's names for `KVM_INTERNAL_ERROR_*`.
const fn suberror_words(suberror: u32) -> &'static str {
    match suberror {
        1 => "an instruction it cannot emulate",
        2 => "simultaneous exceptions",
        3 => "an exit while an event was being delivered",
        4 => "an unexpected exit reason",
        _ => "unknown",
    }
}

/// What a VM cost. Counts are of exits to this program, not those that KVM handles itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VmStats {
    /// Port reads and writes.
    pub io_exits: u64,
    /// Reads of device registers that left the guest.
    pub mmio_read_exits: u64,
    /// Writes to device registers that left the guest.
    pub mmio_write_exits: u64,
    /// Every other exit.
    pub other_exits: u64,
    /// Notifications that the devices' threads took.
    pub queue_notifications: u64,
    /// Interrupts that devices raised.
    pub interrupts: u64,
    /// Frames that the network device could not pass on: malformed, too long, or lost by the socket.
    pub dropped_frames: u64,
    /// Memory mapped for the guest, in bytes.
    pub memory_bytes: u64,
    /// Guest memory that is in the host's memory, in bytes, file pages included.
    pub resident_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_read_as_sentences() {
        let error = InternalError::Kvm {
            suberror: 1,
            rip: 0x1000,
        };
        let sentence = format!("the virtual machine {}", Outcome::InternalError(error));
        assert_eq!(
            sentence,
            "the virtual machine cannot go on: KVM reports an internal error (suberror 1, \
             an instruction it cannot emulate) at guest address 0x1000"
        );
    }
}
