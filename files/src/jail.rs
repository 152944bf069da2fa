//! What the process gives up before it reads the first message.

use crate::owners::Rights;
use hullbox_host::privileges::{
    GoOnAs, be_opaque, give_up_privileges, keep_capabilities, limit_bounding_set,
};
use hullbox_host::sys::seccomp::install_seccomp_filter;
use hullbox_host::sys::{StandardFd, standard_fd};
use hullbox_security::seccomp::{Must, killing_filter_of};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, set_capabilities_secure_bits, set_no_new_privs,
    set_thread_groups,
};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// To read, write and make files as whoever asks, with the owner and mode that are asked for, and
/// attributes of programs, as a container has it. Not to make devices, nor to open a file by anything but a
/// name in a directory (`CAP_DAC_READ_SEARCH`).
const FOR_FILES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID);

/// As many descriptors as root may give itself: each file that a guest knows is one.
const MOST_DESCRIPTORS: u64 = 1 << 20;

/// All that serving files takes, and threads, memory and a socket.
const CALLS: &str = "
    recvfrom sendto
    openat close statx readlinkat getdents64 lseek
    pread64 pwrite64 ftruncate fallocate copy_file_range
    mknodat mkdirat unlinkat renameat2 linkat symlinkat
    fchmodat fchmodat2 fchownat utimensat umask
    fsync fdatasync syncfs statfs fstatfs fstat newfstatat
    getxattr setxattr listxattr removexattr
    setresuid setresgid
    flock
    munmap mremap madvise brk
    clone3 set_robust_list rseq futex sched_yield sched_getaffinity
    gettid getpid tgkill exit exit_group
    rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall
    getrandom clock_gettime clock_nanosleep
";

const PROT_EXEC: u64 = 4;
const CLONE_FS: u64 = 0x200;
const PR_SET_NAME: u64 = 15;
const PR_SET_VMA: u64 = 0x5356_4d41;
const SOL_SOCKET: u64 = 1;

const F_DUPFD_CLOEXEC: u64 = 1030;
const F_GETFD: u64 = 1;
const F_OFD_GETLK: u64 = 36;
const F_OFD_SETLK: u64 = 37;

/// No memory is executable that was not from the start, and no thread has namespaces of its own.
const WITH_ARGUMENT: [(&str, u32, Must); 6] = [
    (
        "fcntl",
        1,
        Must::Equal(&[F_DUPFD_CLOEXEC, F_GETFD, F_OFD_GETLK, F_OFD_SETLK]),
    ),
    ("mmap", 2, Must::Lack(PROT_EXEC)),
    ("mprotect", 2, Must::Lack(PROT_EXEC)),
    ("unshare", 0, Must::Equal(&[CLONE_FS])),
    ("prctl", 0, Must::Equal(&[PR_SET_NAME, PR_SET_VMA])),
    ("setsockopt", 1, Must::Equal(&[SOL_SOCKET])),
];

/// All that passing messages on takes.
const RELAYING: &str = "
    read write recvfrom sendto close
    munmap mremap madvise brk
    clone3 set_robust_list rseq futex sched_yield sched_getaffinity
    gettid exit exit_group
    rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall
    clock_gettime getrandom
";

/// Takes the connection, which is standard input, and what is standard output, and leaves nothing else of
/// what this process was started with. Whoever started it left no other descriptor open.
///
/// # Errors
/// Standard input is closed, or there is no /dev/null.
pub fn detach() -> io::Result<(OwnedFd, OwnedFd)> {
    let connection = rustix::io::fcntl_dupfd_cloexec(standard_fd(StandardFd::Input), 3)?;
    let output = rustix::io::fcntl_dupfd_cloexec(standard_fd(StandardFd::Output), 3)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    // A terminal's signals are nothing to this process. It fails for a leader of a group, which has
    // no terminal's either.
    let _ = rustix::process::setsid();
    Ok((connection, output))
}

/// Raises the number of descriptors as far as it goes, and gives it. To be called before
/// [`give_up`].
pub fn raise_descriptors() -> usize {
    let before = getrlimit(Resource::Nofile);
    let wanted = before
        .maximum
        .map_or(MOST_DESCRIPTORS, |most| most.max(MOST_DESCRIPTORS));
    for most in [Some(wanted), before.maximum] {
        let limit = Rlimit {
            current: most,
            maximum: most,
        };
        if setrlimit(Resource::Nofile, limit).is_ok() {
            break;
        }
    }
    let now = getrlimit(Resource::Nofile).current;
    now.map_or(usize::MAX, |now| usize::try_from(now).unwrap_or(usize::MAX))
}

/// Keeps what files take. To be called while there is one thread.
///
/// # Errors
/// The kernel refuses.
pub fn give_up(rights: Rights) -> io::Result<()> {
    be_opaque();
    if rights == Rights::Root {
        set_thread_groups(&[])?;
    }
    // A thread that acts as another user keeps its capabilities, and no program would get any.
    set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED,
    )?;
    set_no_new_privs(true)?;
    limit_bounding_set(FOR_FILES)?;
    keep_capabilities(FOR_FILES)?;
    install_seccomp_filter(&killing_filter_of(CALLS, &WITH_ARGUMENT))
}

/// Leaves a relay nothing but what passing messages on takes. Whoever started it is its parent, and it ends
/// with that.
///
/// # Errors
/// The kernel refuses.
pub fn confine_relay() -> io::Result<()> {
    give_up_privileges(GoOnAs::Nobody)?;
    be_opaque();
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let rules = WITH_ARGUMENT.iter().filter(|(name, ..)| *name != "unshare");
    let rules: Vec<_> = rules.copied().collect();
    install_seccomp_filter(&killing_filter_of(RELAYING, &rules))
}
