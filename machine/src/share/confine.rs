//! What the share's server gives up before it talks with anybody.

use super::message::Rights;
use hullbox_host::privileges::{keep_capabilities, limit_bounding_set};
use hullbox_host::sys::seccomp::install_seccomp_filter;
use hullbox_security::seccomp;
use rustix::thread::{CapabilitySet, set_no_new_privs};
use std::io;

/// To read, write and make files as whoever asks, with the owner and mode that are asked for. Not to
/// make devices: one that the machine made would be a device of the host's.
const FOR_FILES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID);

/// All that serving files takes, and threads, memory and a socket.
const CALLS: &str = "
    read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek
    openat openat2 close close_range dup dup2 dup3 fcntl flock ioctl
    stat lstat fstat newfstatat statx statfs fstatfs readlink readlinkat getdents64 access faccessat faccessat2
    mknodat mkdirat unlinkat renameat renameat2 linkat symlinkat
    fchmod fchmodat fchmodat2 chmod fchown fchownat truncate ftruncate fallocate utimensat
    fsync fdatasync sync_file_range syncfs copy_file_range umask
    getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr
    setresuid setresgid setgroups getgroups getuid geteuid getgid getegid capget capset
    mmap munmap mremap mprotect madvise brk
    clone clone3 set_robust_list rseq futex sched_yield sched_getaffinity
    gettid getpid tgkill exit exit_group prctl
    rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall
    poll ppoll epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd2 memfd_create
    accept4 recvmsg recvfrom sendmsg sendto shutdown getsockopt
    getrandom clock_gettime clock_nanosleep nanosleep
";

/// Keeps the capabilities that files take, and no more system calls than those.
pub(super) fn give_up(rights: Rights) -> io::Result<()> {
    let kept = match rights {
        Rights::Askers => FOR_FILES,
        // In a namespace of its own they are worth nothing.
        Rights::Own => CapabilitySet::empty(),
    };
    set_no_new_privs(true)?;
    limit_bounding_set(kept)?;
    keep_capabilities(kept)?;
    install_seccomp_filter(&seccomp::filter_of(CALLS))
}
