//! What the process gives up before it reads the first frame.

use hullbox_host::privileges::{GoOnAs, be_opaque, give_up_privileges};
use hullbox_host::sys::seccomp::install_seccomp_filter;
use hullbox_host::sys::{StandardFd, standard_fd};
use hullbox_security::seccomp::{Must, killing_filter_of};
use rustix::process::Signal;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// What serving a network and answering on the control connection take; see the list of `hullbox_net`.
/// Two threads that meet at a channel or in the allocator may yield, or count processors.
const SERVING: &str = "
    brk munmap mremap madvise futex sched_yield sched_getaffinity
    exit_group restart_syscall sigaltstack
    getrandom clock_gettime timerfd_settime
    poll ppoll epoll_wait epoll_pwait epoll_pwait2 epoll_ctl
    read write recvfrom recvmsg sendto sendmsg
    connect accept4 shutdown setsockopt getsockopt close
";

/// What ending alone takes: nobody may be about to join.
const SHARING: &str = "flock";

/// What moving frames takes.
const RELAYING: &str = "
    brk munmap mremap madvise futex exit_group restart_syscall sigaltstack
    clock_gettime poll ppoll
    read write recvfrom sendto shutdown close
";

const FIONBIO: u64 = 0x5421;
const AF_UNIX: u64 = 1;
const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;
const PROT_EXEC: u64 = 4;

const F_GETFD: u64 = 1;

/// No memory is executable that was not from the start. What was compiled with assertions looks whether a
/// descriptor is open before it closes it.
const COMMON: [(&str, u32, Must); 3] = [
    ("fcntl", 1, Must::Equal(&[F_GETFD])),
    ("mmap", 2, Must::Lack(PROT_EXEC)),
    ("mprotect", 2, Must::Lack(PROT_EXEC)),
];

/// Sockets of the internet's families alone, and pairs of the process's own.
const SOCKETS: [(&str, u32, Must); 3] = [
    ("socket", 0, Must::Equal(&[AF_INET, AF_INET6])),
    ("socketpair", 0, Must::Equal(&[AF_UNIX])),
    ("ioctl", 1, Must::Equal(&[FIONBIO])),
];

/// Takes the control connection, which is standard input, and leaves nothing else of what this process
/// was started with. Whoever started it left no other descriptor open.
///
/// # Errors
/// Standard input is closed, or there is no /dev/null.
pub fn detach() -> io::Result<OwnedFd> {
    let control = rustix::io::fcntl_dupfd_cloexec(standard_fd(StandardFd::Input), 3)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    // A terminal's signals are nothing to this process. It fails for a leader of a group, which has
    // no terminal's either.
    let _ = rustix::process::setsid();
    rustix::process::chdir("/")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    Ok(control)
}

/// When a process ends at the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// With its parent, even if that is killed.
    WithParent,
    /// When it has nobody to serve, who may be anybody's.
    Alone,
}

/// Gives up root and every capability. To be called while there is one thread.
///
/// # Errors
/// The kernel refuses.
pub fn give_up(ends: Ends) -> io::Result<()> {
    give_up_privileges(GoOnAs::Nobody)?;
    be_opaque();
    if ends == Ends::WithParent {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    }
    Ok(())
}

/// Has the kernel kill the process when this thread does what serving a network does not take.
///
/// # Errors
/// The kernel takes no filter.
pub fn lock_in(ends: Ends) -> io::Result<()> {
    let with_argument = [COMMON.as_slice(), SOCKETS.as_slice()].concat();
    let names = match ends {
        Ends::WithParent => SERVING.to_owned(),
        Ends::Alone => [SERVING, SHARING].concat(),
    };
    install_seccomp_filter(&killing_filter_of(&names, &with_argument))
}

/// The same for a relay.
///
/// # Errors
/// The kernel takes no filter.
pub fn lock_relay_in() -> io::Result<()> {
    install_seccomp_filter(&killing_filter_of(RELAYING, &COMMON))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus, Stdio};

    /// Runs one of the ignored tests below, in a process of its own.
    fn status_of(victim: &str) -> ExitStatus {
        Command::new(std::env::current_exe().unwrap())
            .args([&format!("jail::tests::{victim}"), "--exact", "--ignored"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
    }

    fn lock() {
        lock_as(Ends::WithParent);
    }

    fn lock_as(ends: Ends) {
        rustix::thread::set_no_new_privs(true).unwrap();
        lock_in(ends).unwrap();
    }

    /// A lock that is taken without waiting.
    fn take_lock(ends: Ends) {
        use rustix::fs::{FlockOperation, flock};
        let file = tempfile();
        lock_as(ends);
        let taken = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        std::process::exit(if taken { 7 } else { 8 });
    }

    fn tempfile() -> OwnedFd {
        use rustix::fs::{MemfdFlags, memfd_create};
        memfd_create("lock", MemfdFlags::CLOEXEC).unwrap()
    }

    fn socket(family: AddressFamily) -> bool {
        socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None).is_ok()
    }

    #[test]
    fn whatever_a_network_does_not_need_kills_it() {
        let victims = [
            "opens_a_file",
            "opens_a_file_for_all",
            "makes_a_unix_socket",
            "starts_a_thread",
            "takes_a_lock",
        ];
        for victim in victims {
            assert_eq!(status_of(victim).signal(), Some(libc::SIGSYS), "{victim}");
        }
        // What it needs it has: it lives to end itself.
        for survivor in ["makes_an_internet_socket", "takes_a_lock_for_all"] {
            assert_eq!(status_of(survivor).code(), Some(7), "{survivor}");
        }
    }

    #[test]
    #[ignore = "a victim"]
    fn makes_an_internet_socket() {
        lock();
        let both = socket(AddressFamily::INET) && socket(AddressFamily::INET6);
        std::process::exit(if both { 7 } else { 8 });
    }

    #[test]
    #[ignore = "a victim"]
    fn opens_a_file() {
        lock();
        drop(File::open("/etc/hosts"));
    }

    #[test]
    #[ignore = "a victim"]
    fn opens_a_file_for_all() {
        lock_as(Ends::Alone);
        drop(File::open("/etc/hosts"));
    }

    #[test]
    #[ignore = "a victim"]
    fn takes_a_lock() {
        take_lock(Ends::WithParent);
    }

    #[test]
    #[ignore = "a victim"]
    fn takes_a_lock_for_all() {
        take_lock(Ends::Alone);
    }

    #[test]
    #[ignore = "a victim"]
    fn makes_a_unix_socket() {
        lock();
        socket(AddressFamily::UNIX);
    }

    #[test]
    #[ignore = "a victim"]
    fn starts_a_thread() {
        lock();
        drop(std::thread::spawn(|| {}).join());
    }
}
