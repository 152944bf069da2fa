//! Our own terminal in raw mode, and back, whatever happens.

use hullbox_protocol::TerminalSize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, Once, PoisonError};

/// The terminal in raw mode now and its modes before. A panic ends the process without
/// running destructors, so its hook must find them here.
static SAVED: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// A terminal's size, if `fd` is one and knows it.
#[must_use]
pub fn terminal_size(fd: BorrowedFd<'_>) -> Option<TerminalSize> {
    let size = tcgetwinsize(fd).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(TerminalSize {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}

/// Restores the terminal when dropped. One at a time.
#[derive(Debug)]
pub(super) struct RawTerminal {
    fd: OwnedFd,
    raw: Termios,
}

impl RawTerminal {
    pub(super) fn enter(fd: BorrowedFd<'_>) -> io::Result<Self> {
        HOOK.call_once(|| {
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                previous(info);
            }));
        });
        let fd = fd.try_clone_to_owned()?;
        let before = tcgetattr(&fd)?;
        let mut raw = before.clone();
        raw.make_raw();
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some((fd.try_clone()?, before));
        let terminal = Self { fd, raw };
        terminal.set_raw()?;
        Ok(terminal)
    }

    /// Raw mode again, after somebody else changed the modes.
    pub(super) fn set_raw(&self) -> io::Result<()> {
        tcsetattr(self.fd.as_fd(), OptionalActions::Now, &self.raw)?;
        Ok(())
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((fd, before)) = saved {
        // Nothing can be done if the terminal is gone.
        let _ = tcsetattr(&fd, OptionalActions::Now, &before);
    }
}
