//! What Docker's default profile says, as data.
//!
//! Facts taken from `seccomp/default.json` of moby/profiles as of mid-2026: which system calls a
//! container may make, under which capabilities, and with which arguments. The order, the
//! grouping and the form are ours. Architectures other than x86 are left out.

/// Calls that every container may make, whatever their arguments.
pub(super) const ALWAYS: &str = "\
    _llseek _newselect accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget \
    capset chdir chmod chown chown32 clock_adjtime clock_adjtime64 clock_getres \
    clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 \
    close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 \
    epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 \
    execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate \
    fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 \
    fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 \
    fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait \
    futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents \
    getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 \
    getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid \
    getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid \
    gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init \
    inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents \
    io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc kill \
    landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr \
    link linkat listen listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr \
    lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir \
    mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect mq_getsetattr \
    mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 \
    mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap \
    name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open \
    pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 \
    prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev \
    pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat \
    readv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat \
    rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending \
    rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min \
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval \
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam \
    sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop \
    semtimedop_time64 sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list \
    set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 \
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid \
    setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid \
    setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd \
    signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 \
    statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time \
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime \
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime \
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat \
    uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write \
    writev";

/// Calls that need a capability in the container's set, by capability number.
pub(super) const WITH_CAPABILITY: &[(u8, &str)] = &[
    (cap::DAC_READ_SEARCH, "open_by_handle_at"),
    (
        cap::SYS_ADMIN,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie \
         lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog \
         umount umount2 unshare",
    ),
    (cap::SYS_BOOT, "reboot"),
    (cap::SYS_CHROOT, "chroot"),
    (cap::SYS_MODULE, "delete_module finit_module init_module"),
    (cap::SYS_PACCT, "acct"),
    (cap::SYS_PTRACE, "kcmp pidfd_getfd process_madvise"),
    (cap::SYS_RAWIO, "ioperm iopl"),
    (
        cap::SYS_TIME,
        "clock_settime clock_settime64 settimeofday stime",
    ),
    (cap::SYS_TTY_CONFIG, "vhangup"),
    (
        cap::SYS_NICE,
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    (cap::SYSLOG, "syslog"),
    (cap::BPF, "bpf"),
    (cap::PERFMON, "perf_event_open"),
];

/// Calls that depend on their first argument, unless a capability above allows them altogether.
pub(super) const WITH_ARGUMENT: &[(&str, Argument)] = &[
    // Without one of the CLONE_NEW* flags (mount, cgroup, UTS, IPC, user, PID, network).
    ("clone", Argument::NoneOf(0x7e02_0000)),
    // PER_LINUX, PER_LINUX32, each also with UNAME26, and the query.
    (
        "personality",
        Argument::In(&[
            (0, 0),
            (8, 8),
            (0x2_0000, 0x2_0000),
            (0x2_0008, 0x2_0008),
            (u32::MAX, u32::MAX),
        ]),
    ),
    // Every family but DECnet, Econet, ATM SVC, IrDA, WANPIPE, ISDN, CAIF, ALG and vsock.
    (
        "socket",
        Argument::In(&[
            (0, 11),
            (13, 18),
            (21, 22),
            (24, 24),
            (26, 33),
            (35, 36),
            (39, 39),
            (41, 45),
        ]),
    ),
];

/// Calls that every container may make besides if the kernel is its own. Those about namespaces and
/// mounts are governed by capabilities in the user namespace that they happen in, which a user of
/// bubblewrap has and the container's root has not; those about memory say where and how pages are
/// had.
pub(super) const IN_A_VM: &str = "\
    chroot clone clone3 fsconfig fsmount fsopen fspick get_mempolicy mbind migrate_pages mount \
    mount_setattr move_mount move_pages open_tree pivot_root quotactl quotactl_fd set_mempolicy \
    set_mempolicy_home_node setdomainname sethostname setns umount umount2 unshare userfaultfd";

/// In a microVM [`WITH_ARGUMENT`]'s families, and ALG: but not vsock, behind which the host is.
pub(super) const SOCKETS_IN_A_VM: Argument = Argument::In(&[
    (0, 11),
    (13, 18),
    (21, 22),
    (24, 24),
    (26, 33),
    (35, 36),
    (38, 39),
    (41, 45),
]);

/// Calls that pretend not to exist, so that the C library falls back to an older one whose
/// arguments can be judged (those of `clone3` are behind a pointer).
pub(super) const ABSENT: &[&str] = &["clone3"];

/// A condition on the low half of a call's first argument: all of these arguments are 32 bits
/// wide to the kernel, which ignores the rest.
#[derive(Debug, Clone, Copy)]
pub(super) enum Argument {
    /// None of these bits is set.
    NoneOf(u32),
    /// In one of these inclusive ranges.
    In(&'static [(u32, u32)]),
}

/// Capability numbers of `linux/capability.h`.
mod cap {
    pub(super) const DAC_READ_SEARCH: u8 = 2;
    pub(super) const SYS_MODULE: u8 = 16;
    pub(super) const SYS_RAWIO: u8 = 17;
    pub(super) const SYS_CHROOT: u8 = 18;
    pub(super) const SYS_PTRACE: u8 = 19;
    pub(super) const SYS_PACCT: u8 = 20;
    pub(super) const SYS_ADMIN: u8 = 21;
    pub(super) const SYS_BOOT: u8 = 22;
    pub(super) const SYS_NICE: u8 = 23;
    pub(super) const SYS_TIME: u8 = 25;
    pub(super) const SYS_TTY_CONFIG: u8 = 26;
    pub(super) const SYSLOG: u8 = 34;
    pub(super) const PERFMON: u8 = 38;
    pub(super) const BPF: u8 = 39;
}
