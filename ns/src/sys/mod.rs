//! What only namespace containers need: namespaces, loop devices, BPF, seccomp, the way into
//! `execve`. This crate's only `unsafe` code.

mod bpf;
mod code;
mod exec;
mod fork;
mod loops;
mod namespaces;
mod signals;

pub use bpf::{attach_device_program, load_device_program};
pub use code::{guard_code, init_code};
pub use exec::{ExecArgs, close_all_but};
pub use fork::{Forked, exit_now, fork_alone, fork_into, fork_sibling, thread_count};
pub use hullbox_host::sys::seccomp::install_seccomp_filter;
pub use loops::{configure_loop_device, free_loop_device};
pub use namespaces::{
    MOUNT_READ_ONLY, forbid_devices, join_new_session_keyring, set_mount_attributes,
    unshare_mounts, unshare_network,
};
pub use signals::{ignore_signals, reset_signals, send_signal};

use std::io;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
