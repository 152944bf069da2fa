//! Pages of device registers that the guest reads as memory, without leaving.

use super::PAGE;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

/// Zeroed pages, shared with the guest for reading only.
#[derive(Debug)]
pub(crate) struct RegisterPages {
    base: *mut u8,
    len: usize,
}

// SAFETY: all access is through atomics, from any thread.
unsafe impl Send for RegisterPages {}
// SAFETY: all access is through atomics, from any thread.
unsafe impl Sync for RegisterPages {}

impl RegisterPages {
    /// `count` pages, at least one.
    pub(crate) fn new(count: usize) -> io::Result<Self> {
        let len = count.max(1) * PAGE as usize;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice overlaps nothing.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            base: base.cast(),
            len,
        })
    }

    /// Size in bytes.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Host address of the first page, for KVM.
    pub(crate) fn host_start(&self) -> u64 {
        self.base as u64
    }

    /// The 32-bit register at a byte offset, if it is aligned and inside.
    pub(crate) fn register(&self, offset: usize) -> Option<&AtomicU32> {
        if !offset.is_multiple_of(4) || offset.checked_add(4)? > self.len {
            return None;
        }
        let register = self.base.wrapping_add(offset).cast::<u32>();
        // SAFETY: the pointer is aligned and inside a mapping that lives as long as `self`, and
        // everyone accesses it atomically: this program through this function, the guest because
        // aligned loads of up to 8 bytes are.
        Some(unsafe { AtomicU32::from_ptr(register) })
    }

    /// Store a register; out of range is ignored.
    pub(crate) fn store(&self, offset: usize, value: u32) {
        if let Some(register) = self.register(offset) {
            register.store(value.to_le(), Ordering::Release);
        }
    }

    /// Load a register; out of range is 0.
    pub(crate) fn load(&self, offset: usize) -> u32 {
        self.register(offset)
            .map_or(0, |register| u32::from_le(register.load(Ordering::Acquire)))
    }

    /// Read bytes as the guest would; out of range is 0.
    pub(crate) fn read(&self, offset: usize, data: &mut [u8]) {
        for (at, byte) in data.iter_mut().enumerate() {
            let position = offset.saturating_add(at);
            let word = self.load(position & !3).to_le_bytes();
            *byte = word[position & 3];
        }
    }
}

impl Drop for RegisterPages {
    fn drop(&mut self) {
        // SAFETY: `self` owns exactly this mapping, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_of_any_width_and_place_are_harmless() {
        let pages = RegisterPages::new(1).unwrap();
        pages.store(0, 0x7472_6976);
        let mut byte = [0u8; 1];
        pages.read(1, &mut byte);
        assert_eq!(byte, [0x69]);
        let mut wide = [0xffu8; 8];
        pages.read(4094, &mut wide);
        assert_eq!(wide, [0; 8]);
        pages.read(usize::MAX - 2, &mut wide);
        assert!(pages.register(4096).is_none());
        assert!(pages.register(2).is_none());
        assert!(pages.register(usize::MAX - 3).is_none());
    }
}
