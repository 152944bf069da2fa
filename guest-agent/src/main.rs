//! PID 1 of the guest.
//!
//! In a microVM it makes and runs one container ([`container`]); in the helper machine it
//! is the init of a whole system ([`machine`]). It is linked statically and stands alone
//! in its initramfs.
#![deny(unsafe_code)]
#![cfg_attr(not(test), no_main)]
#![cfg_attr(
    test,
    allow(dead_code, reason = "the test harness brings its own entry")
)]

mod clock;
mod container;
mod failure;
mod machine;
mod paths;
mod process;
mod sys;

use hullbox_protocol::AgentEnv;
use rustix::fs::{Mode, OFlags};
use rustix::system::RebootCommand;
use std::os::fd::OwnedFd;

/// The program. Ends the guest when it ends.
fn run() -> i32 {
    // Modes are exact in everything the agent makes.
    rustix::process::umask(Mode::empty());
    occupy_standard_streams();
    let role = std::env::var_os(AgentEnv::ROLE).unwrap_or_default();
    let result = match role.to_str() {
        Some("machine") => machine::run(),
        Some("session") => return on_standard_input(machine::session::serve_alone),
        Some("on-stdin") => return on_standard_input(container::serve),
        _ => container::run(),
    };
    if let Err(error) = result {
        eprintln!("hullbox-agent: {error}");
    }
    power_off()
}

/// Serves on the socket that is standard input: for tests without a virtual machine.
fn on_standard_input(serve: fn(OwnedFd) -> i32) -> i32 {
    match rustix::io::dup(rustix::stdio::stdin()) {
        Ok(connection) => serve(connection),
        Err(_) => 1,
    }
}

/// A descriptor opened later must never become the standard output of something. The kernel
/// leaves these closed when it has no console.
fn occupy_standard_streams() {
    let flags = OFlags::RDWR;
    // In an initramfs without any device there is at least its root to hold on to.
    let open = || {
        rustix::fs::open("/dev/null", flags, Mode::empty())
            .or_else(|_| rustix::fs::open("/", OFlags::PATH, Mode::empty()))
    };
    while let Ok(fd) = open() {
        if std::os::fd::AsRawFd::as_raw_fd(&fd) > 2 {
            break;
        }
        std::mem::forget(fd);
    }
}

/// Ends the guest; if this is no guest, just this program.
fn power_off() -> i32 {
    if rustix::process::getpid() == rustix::process::Pid::INIT {
        let _ = rustix::system::reboot(RebootCommand::PowerOff);
    }
    0
}
