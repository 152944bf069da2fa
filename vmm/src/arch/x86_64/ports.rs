//! I/O ports.
//!
//! | port | access | meaning |
//! |---|---|---|
//! | 0x064 | write 0xfe | the kernel restarts the machine (`reboot=k`) |
//! | 0x064 | read | 0: the keyboard controller is never busy |
//! | 0x3f8 to 0x3ff | | the serial port, if there is one |
//! | 0x505 | | QEMU's pvpanic (docs/specs/pvpanic.rst there): bit 0 a panic, bit 2 a power-off |
//! | 0x5e0 | write 1 | the kernel powers the machine off |
//! | 0x5e0 | write 2 | the machine is to restart |
//! | 0x5e0 | write 3 | the kernel panicked |
//! | others | read | all ones, as from an empty bus |
//! | others | write | ignored |
//!
//! Our guest kernel announces at port 0x5e0 how it ends (`kernel-config/`); others may know
//! pvpanic. A kernel that announces nothing restarts when it panics, too. The two then differ in
//! the I/O APIC: an orderly restart masks every pin first, a panic restarts with interrupts as they
//! were.

use crate::devices::serial::{Serial, SerialRegisters};
use crate::outcome::Outcome;
use std::sync::{Mutex, PoisonError};

const KEYBOARD_COMMAND: u16 = 0x64;
const KEYBOARD_RESET: u8 = 0xfe;
const SERIAL_FIRST: u16 = 0x3f8;
const SERIAL_LAST: u16 = 0x3ff;
const PVPANIC: u16 = 0x505;
const PVPANIC_PANICKED: u8 = 1;
const PVPANIC_SHUTDOWN: u8 = 4;
const ANNOUNCE: u16 = 0x5e0;
const ANNOUNCE_POWER_OFF: u8 = 1;
const ANNOUNCE_RESTART: u8 = 2;
const ANNOUNCE_PANIC: u8 = 3;

/// The devices behind ports.
#[derive(Debug)]
pub(crate) struct Ports {
    serial: Option<Mutex<Serial>>,
}

impl Ports {
    pub(crate) fn new(serial: Option<Serial>) -> Self {
        Self {
            serial: serial.map(Mutex::new),
        }
    }

    /// What the serial port holds, if there is one.
    pub(crate) fn serial_registers(&self) -> Option<SerialRegisters> {
        let serial = self.serial.as_ref()?;
        let serial = serial.lock().unwrap_or_else(PoisonError::into_inner);
        Some(serial.registers())
    }

    /// The guest reads. Wide and repeated reads take the port's bytes one after the other.
    pub(crate) fn read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        match (port, &self.serial) {
            (KEYBOARD_COMMAND, _) => data.fill(0),
            (PVPANIC, _) => data.fill(PVPANIC_PANICKED | PVPANIC_SHUTDOWN),
            (SERIAL_FIRST..=SERIAL_LAST, Some(serial)) => {
                let mut serial = serial.lock().unwrap_or_else(PoisonError::into_inner);
                for byte in data {
                    *byte = serial.read((port - SERIAL_FIRST) as u8);
                }
            }
            _ => {}
        }
    }

    /// The guest writes. What comes back ends the VM; `orderly` tells, when that matters, whether
    /// the guest took its interrupts down first.
    pub(crate) fn write(
        &self,
        port: u16,
        data: &[u8],
        orderly: impl FnOnce() -> bool,
    ) -> Option<Outcome> {
        match (port, data, &self.serial) {
            (KEYBOARD_COMMAND, [KEYBOARD_RESET], _) => Some(if orderly() {
                Outcome::Reset
            } else {
                Outcome::Panic
            }),
            (ANNOUNCE, [ANNOUNCE_POWER_OFF], _) => Some(Outcome::Shutdown),
            (ANNOUNCE, [ANNOUNCE_RESTART], _) => Some(Outcome::Reset),
            (ANNOUNCE, [ANNOUNCE_PANIC], _) => Some(Outcome::Panic),
            (PVPANIC, [events], _) if events & PVPANIC_PANICKED != 0 => Some(Outcome::Panic),
            (PVPANIC, [events], _) if events & PVPANIC_SHUTDOWN != 0 => Some(Outcome::Shutdown),
            (SERIAL_FIRST..=SERIAL_LAST, _, Some(serial)) => {
                let mut serial = serial.lock().unwrap_or_else(PoisonError::into_inner);
                for byte in data {
                    serial.write((port - SERIAL_FIRST) as u8, *byte);
                }
                None
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_documented_writes_end_the_vm() {
        let ports = Ports::new(None);
        assert_eq!(ports.write(0x64, &[0xfe], || true), Some(Outcome::Reset));
        assert_eq!(ports.write(0x64, &[0xfe], || false), Some(Outcome::Panic));
        assert_eq!(ports.write(0x5e0, &[1], || false), Some(Outcome::Shutdown));
        assert_eq!(ports.write(0x5e0, &[2], || false), Some(Outcome::Reset));
        assert_eq!(ports.write(0x5e0, &[3], || true), Some(Outcome::Panic));
        assert_eq!(ports.write(0x505, &[1], || false), Some(Outcome::Panic));
        assert_eq!(ports.write(0x505, &[4], || false), Some(Outcome::Shutdown));
        for port in 0..=u16::MAX {
            for data in [&[0u8][..], &[0xff; 4], &[0x5a; 2], &[]] {
                assert_eq!(ports.write(port, data, || true), None);
            }
            let mut byte = [0u8; 4];
            ports.read(port, &mut byte);
            let expected = match port {
                0x64 => 0,
                0x505 => 5,
                _ => 0xff,
            };
            assert_eq!(byte, [expected; 4]);
        }
    }
}
