//! The first serial port, output only, for the guest kernel's messages.

use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, SerialState};
use vmm_sys_util::eventfd::EventFd;

/// Bytes that are kept until a line ends.
const LINE: usize = 512;

/// Where the port's bytes go: a file, line by line, up to a limit.
#[derive(Debug)]
pub(crate) struct Output {
    file: File,
    left: u64,
    line: Vec<u8>,
}

impl Output {
    pub(crate) fn new(file: File, limit_bytes: u64) -> Self {
        Self {
            file,
            left: limit_bytes,
            line: Vec::with_capacity(LINE),
        }
    }

    fn write_line(&mut self) {
        // What cannot be written is dropped: the guest must not notice.
        let _ = self.file.write_all(&self.line);
        self.line.clear();
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fits = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.left -= fits as u64;
        for byte in &bytes[..fits] {
            self.line.push(*byte);
            if *byte == b'\n' || self.line.len() == LINE {
                self.write_line();
            }
        }
        Ok(bytes.len())
    }

    /// The port flushes after every byte; a line is soon enough.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.write_line();
    }
}

/// The port's interrupt line.
#[derive(Debug)]
pub(crate) struct Line(pub(crate) EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// What a port's registers hold, in pairs of a low and a high one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SerialRegisters {
    divisor: [u8; 2],
    interrupt: [u8; 2],
    line: [u8; 2],
    modem: [u8; 2],
    scratch: u8,
    input: Vec<u8>,
}

/// A 16550A.
#[derive(Debug)]
pub(crate) struct Serial(vm_superio::Serial<Line, NoEvents, Output>);

impl Serial {
    pub(crate) fn new(line: Line, output: Output) -> Self {
        Self(vm_superio::Serial::new(line, output))
    }

    /// The registers, and what waits to be read.
    pub(crate) fn registers(&self) -> SerialRegisters {
        let state = self.0.state();
        SerialRegisters {
            divisor: [state.baud_divisor_low, state.baud_divisor_high],
            interrupt: [state.interrupt_enable, state.interrupt_identification],
            line: [state.line_control, state.line_status],
            modem: [state.modem_control, state.modem_status],
            scratch: state.scratch,
            input: state.in_buffer,
        }
    }

    /// A port that was saved.
    pub(crate) fn restored(
        registers: &SerialRegisters,
        line: Line,
        output: Output,
    ) -> Option<Self> {
        let state = SerialState {
            baud_divisor_low: registers.divisor[0],
            baud_divisor_high: registers.divisor[1],
            interrupt_enable: registers.interrupt[0],
            interrupt_identification: registers.interrupt[1],
            line_control: registers.line[0],
            line_status: registers.line[1],
            modem_control: registers.modem[0],
            modem_status: registers.modem[1],
            scratch: registers.scratch,
            in_buffer: registers.input.clone(),
        };
        let serial = vm_superio::Serial::from_state(&state, line, NoEvents, output);
        serial.ok().map(Self)
    }

    pub(crate) fn read(&mut self, register: u8) -> u8 {
        self.0.read(register)
    }

    pub(crate) fn write(&mut self, register: u8, value: u8) {
        // A full loopback buffer or a lost interrupt is the guest's own loss.
        let _ = self.0.write(register, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    #[test]
    fn a_flood_stops_at_the_limit() {
        let mut file = tempfile::tempfile().unwrap();
        let line = Line(EventFd::new(libc::EFD_NONBLOCK).unwrap());
        let output = Output::new(file.try_clone().unwrap(), 10);
        let mut serial = Serial::new(line, output);
        for byte in b'a'..=b'z' {
            serial.write(0, byte);
        }
        drop(serial);
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abcdefghij");
    }

    #[test]
    fn junk_on_every_register_is_harmless() {
        let file = tempfile::tempfile().unwrap();
        let line = Line(EventFd::new(libc::EFD_NONBLOCK).unwrap());
        let mut serial = Serial::new(line, Output::new(file, 1 << 20));
        for value in 0..=u8::MAX {
            for register in 0..8 {
                serial.write(register, value);
                serial.read(register);
            }
        }
    }
}
