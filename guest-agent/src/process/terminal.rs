//! A pseudo-terminal inside the container.

use crate::failure::failed;
use hullbox_protocol::{Failure, TerminalSize};
use hullbox_session::status::StatusWriter;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use std::os::fd::{AsFd, OwnedFd};

/// The group that terminals belong to (`gid=5` of the container's devpts).
const TTY_GROUP: u32 = 5;

/// Opens a terminal of the container's own devpts, makes it the controlling one, and hands its
/// master to the agent. Gives the slave.
pub(super) fn open(
    size: TerminalSize,
    uid: u32,
    console: bool,
    status: &StatusWriter,
) -> Result<OwnedFd, Failure> {
    let what = "cannot open a terminal";
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty()).map_err(failed(what))?;
    unlockpt(&master).map_err(failed(what))?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    // Not by its name: no path of the image is involved.
    let slave = ioctl_tiocgptpeer(&master, flags).map_err(failed(what))?;
    let window = rustix::termios::Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&slave, window).map_err(failed(what))?;
    if uid != 0 {
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(TTY_GROUP)));
        rustix::fs::fchown(&slave, owner.0, owner.1).map_err(failed(what))?;
    }
    rustix::process::ioctl_tiocsctty(&slave).map_err(failed("cannot control the terminal"))?;
    status.terminal(master.as_fd()).map_err(failed(what))?;
    if console {
        bind_console(&master)?;
    }
    Ok(slave)
}

/// `/dev/console` is the container's terminal, as in Docker.
fn bind_console(master: &OwnedFd) -> Result<(), Failure> {
    let what = "cannot bind /dev/console";
    let name = rustix::pty::ptsname(master, Vec::new()).map_err(failed(what))?;
    let flags = OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open("/dev/console", flags, Mode::from_raw_mode(0o600)).map_err(failed(what))?;
    rustix::mount::mount_bind(name, "/dev/console").map_err(failed(what))
}
