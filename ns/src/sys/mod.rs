//! What only namespace containers need: namespaces, loop devices, BPF, seccomp, the way into
//! `execve`.

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::ioctl;
use rustix::process::Pid;
use std::ffi::{CStr, CString, c_char};
use std::io;
use std::ptr;

pub use hullbox_host::sys::seccomp::install_seccomp_filter;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Gives this thread, and what it starts, a mount namespace of its own.
///
/// # Errors
/// Failure of `unshare`: not privileged, or no more namespaces.
pub fn unshare_mounts() -> io::Result<()> {
    // SAFETY: CLONE_NEWNS changes what paths mean to this thread and separates its working
    // directory from other threads'; no memory or descriptor is affected.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into()).map(drop)
}

/// Gives this thread, and what it starts, a network namespace of its own, in which there is nothing but a
/// loopback interface that is down.
///
/// # Errors
/// Failure of `unshare`: not privileged, or no more namespaces.
pub fn unshare_network() -> Result<(), Errno> {
    // SAFETY: CLONE_NEWNET affects no memory and no descriptor of this process; sockets that are open
    // stay in the namespace that they were made in.
    let result = check(unsafe { libc::unshare(libc::CLONE_NEWNET) }.into());
    result
        .map(drop)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// A free loop device's number, from /dev/loop-control.
///
/// # Errors
/// Failure of the ioctl.
pub fn free_loop_device(control: BorrowedFd<'_>) -> io::Result<u32> {
    const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
    // SAFETY: the request takes no argument and touches no memory of this process.
    let number = check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) }.into())?;
    u32::try_from(number).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// `struct loop_info64` of `linux/loop.h`, as far as it is used; the rest is zero.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    ids: [u64; 3],
    offset: u64,
    size_limit: u64,
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    rest: [u64; 22],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// Puts a file behind a loop device, read-only; the kernel takes it away again when the last
/// user of the device is gone. Fails with EBUSY when somebody else was faster.
///
/// # Errors
/// Failure of the ioctl.
pub fn configure_loop_device(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<()> {
    const LO_FLAGS_READ_ONLY: u32 = 1;
    const LO_FLAGS_AUTOCLEAR: u32 = 4;
    const LOOP_CONFIGURE: ioctl::Opcode = 0x4c0a;
    let config = LoopConfig {
        fd: u32::try_from(file.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?,
        block_size: 0,
        info: LoopInfo {
            ids: [0; 3],
            offset: 0,
            size_limit: 0,
            number: 0,
            encryption: [0; 2],
            flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
            rest: [0; 22],
        },
        reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE reads a `struct loop_config`, which is what `Setter` passes it.
    let request = unsafe { ioctl::Setter::<LOOP_CONFIGURE, LoopConfig>::new(config) };
    // SAFETY: the request matches its opcode, as stated above; both descriptors are borrowed.
    unsafe { ioctl::ioctl(device, request) }?;
    Ok(())
}

/// Loads a BPF program that judges access to devices (`BPF_PROG_TYPE_CGROUP_DEVICE`).
///
/// # Errors
/// Failure of `bpf`, the verifier's refusal for one.
pub fn load_device_program(instructions: &[u64]) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    /// The first fields of `union bpf_attr` for BPF_PROG_LOAD.
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log: [u64; 3],
    }
    let license = c"Apache-2.0";
    let attr = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log: [0; 3],
    };
    // SAFETY: `attr` and what it points to (instructions and licence, of the lengths given)
    // outlive the call, which only reads them.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attr,
            size_of::<Load>(),
        )
    })?;
    let fd = RawFd::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel has just made this descriptor, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a device program to a cgroup, for as long as the cgroup lives.
///
/// # Errors
/// Failure of `bpf`.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    const BPF_PROG_ATTACH: libc::c_int = 8;
    const BPF_CGROUP_DEVICE: u32 = 6;
    const BPF_F_ALLOW_MULTI: u32 = 2;
    let attr: [u32; 5] = [
        u32::try_from(cgroup.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?,
        u32::try_from(program.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?,
        BPF_CGROUP_DEVICE,
        BPF_F_ALLOW_MULTI,
        0,
    ];
    // SAFETY: `attr` has the fields of `union bpf_attr` for BPF_PROG_ATTACH, which the call
    // only reads.
    check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_ATTACH,
            attr.as_ptr(),
            size_of_val(&attr),
        )
    })
    .map(drop)
}

/// Leaves the session keyring of whoever started this process for a fresh one.
///
/// # Errors
/// Failure of `keyctl`: no keyrings in this kernel, or a quota.
pub fn join_new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is touched.
    check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            ptr::null::<c_char>(),
        )
    })
    .map(drop)
}

/// Which side of a [`fork_alone`] this is.
#[derive(Debug)]
pub enum Forked {
    /// The new process.
    Child,
    /// The old one.
    Parent(Pid),
}

/// Forks a process that has no other threads.
///
/// # Errors
/// Failure of `fork`; `InvalidInput` when there are other threads.
pub fn fork_alone() -> io::Result<Forked> {
    if thread_count()? != 1 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: with one thread, no lock can be held by a thread that the child lacks, so the
    // child may go on as an ordinary process.
    forked(unsafe { libc::fork() }.into())
}

/// Forks into a cgroup a process that has no other threads.
///
/// # Errors
/// Failure of `clone3`; `InvalidInput` when there are other threads.
pub fn fork_into(cgroup: BorrowedFd<'_>) -> io::Result<Forked> {
    // It does not fit libc's c_int constants.
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    if thread_count()? != 1 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: all-zero is a valid value of this plain structure and means "nothing asked".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_INTO_CGROUP;
    args.exit_signal = libc::SIGCHLD.unsigned_abs().into();
    args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    let size = size_of::<libc::clone_args>();
    // SAFETY: `args` is a valid structure of the given size; without CLONE_VM the child has its
    // own copy of the only thread's memory, so both sides may go on as they are.
    forked(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size) })
}

/// Forks a sibling: a child of this process's parent, which also is told of its end. For a
/// process that was forked from one without other threads and has started none since.
///
/// # Errors
/// Failure of `clone`.
pub fn fork_sibling() -> io::Result<Forked> {
    let flags = libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with a null stack this is a fork; the caller has one thread.
    forked(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })
}

fn forked(result: libc::c_long) -> io::Result<Forked> {
    match check(result)? {
        0 => Ok(Forked::Child),
        pid => i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .map(Forked::Parent)
            .ok_or_else(|| io::ErrorKind::InvalidData.into()),
    }
}

/// Makes a mount and all below it refuse to open devices, in this process's mount namespace.
///
/// # Errors
/// Failure of `mount_setattr`.
pub fn forbid_devices(mount: BorrowedFd<'_>) -> io::Result<()> {
    const MOUNT_ATTR_NODEV: u64 = 4;
    /// `struct mount_attr` of `linux/mount.h`.
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let attributes = Attributes {
        set: MOUNT_ATTR_NODEV,
        clear: 0,
        propagation: 0,
        user_namespace: 0,
    };
    // SAFETY: the empty path means the descriptor; the structure has the given size and is only
    // read.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    })
    .map(drop)
}

/// Ends this process at once, without running anything.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: takes no pointer and does not return.
    unsafe { libc::_exit(code) }
}

/// How many threads this process has.
///
/// # Errors
/// When /proc cannot be read.
pub fn thread_count() -> io::Result<u64> {
    // A directory's link count is two and one for each subdirectory, here each thread.
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata("/proc/self/task")?
        .nlink()
        .saturating_sub(2))
}

/// Sends any signal, real-time ones too, to the process behind a descriptor.
///
/// # Errors
/// Failure of `pidfd_send_signal`: the process is gone, or the number is no signal's.
pub fn send_signal(process: BorrowedFd<'_>, signal: u32) -> io::Result<()> {
    // SAFETY: without a `siginfo_t` the call touches no memory of this process.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal,
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

/// Gives every signal its default action, and the given blocked or unblocked state to all.
///
/// # Errors
/// Failure of `sigprocmask`.
pub fn reset_signals(block: bool) -> io::Result<()> {
    /// `struct sigaction` of the kernel. All zero, it is SIG_DFL without a mask.
    #[repr(C)]
    struct Action([u64; 4]);
    let default = Action([0; 4]);
    for signal in 1..=64 {
        // By the kernel's own call, because the C library keeps two signals to itself, which whoever
        // started us may have ignored.
        // SAFETY: SIG_DFL is valid for every signal; the two that cannot be changed answer with an
        // error that does not matter. The structure is the kernel's and only read.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                &raw const default,
                ptr::null::<Action>(),
                size_of::<u64>(),
            )
        };
    }
    // Every bit is a signal; the kernel ignores the two that cannot be blocked.
    let mask = if block { u64::MAX } else { 0u64 };
    // SAFETY: `mask` is the kernel's 8-byte signal set, read by the call; no old set is asked
    // for.
    check(unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            ptr::null::<u64>(),
            size_of::<u64>(),
        )
    })
    .map(drop)
}

/// Ignores these signals, until [`reset_signals`].
pub fn ignore_signals(signals: &[libc::c_int]) {
    for &signal in signals {
        // SAFETY: SIG_IGN is valid for every signal that can be ignored; the others are refused.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Closes every descriptor from 3 on but those in `keep`.
///
/// For the moment before `execve`: values that own the others become unusable, so nothing but
/// what is in `keep` may be touched afterwards, and nothing may be dropped.
///
/// # Errors
/// Failure of `close_range`.
pub fn close_all_but(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = keep
        .iter()
        .filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok())
        .filter(|&fd| fd >= 3)
        .collect();
    kept.sort_unstable();
    let mut first = 3u32;
    for last in kept.into_iter().map(Some).chain([None]) {
        let until = last.map_or(u32::MAX, |fd| fd - 1);
        if first <= until {
            // SAFETY: the caller promises not to use what is closed here; a descriptor that is
            // reused later cannot be mistaken, for `execve` or `exit` comes next.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, until, 0) })?;
        }
        first = until.saturating_add(2);
    }
    Ok(())
}

/// Null-terminated vectors for `execve`.
#[derive(Debug)]
pub struct ExecArgs {
    argv: Vec<CString>,
    envp: Vec<CString>,
}

impl ExecArgs {
    /// For these arguments and this environment.
    #[must_use]
    pub fn new(argv: Vec<CString>, envp: Vec<CString>) -> Self {
        Self { argv, envp }
    }

    /// The first argument, if there is one.
    #[must_use]
    pub fn program(&self) -> Option<&CStr> {
        self.argv.first().map(CString::as_c_str)
    }

    fn pointers(strings: &[CString]) -> Vec<*const c_char> {
        let ends = [ptr::null()];
        strings.iter().map(|s| s.as_ptr()).chain(ends).collect()
    }

    /// Replaces this process by the program at `path`. Returns only on failure.
    #[must_use]
    pub fn execve(&self, path: &CStr) -> io::Error {
        let (argv, envp) = (Self::pointers(&self.argv), Self::pointers(&self.envp));
        // SAFETY: path and both null-terminated vectors of null-terminated strings outlive the
        // call.
        unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
        io::Error::last_os_error()
    }

    /// Replaces this process by the program in an open file. Returns only on failure.
    #[must_use]
    pub fn execve_file(&self, file: BorrowedFd<'_>) -> io::Error {
        let (argv, envp) = (Self::pointers(&self.argv), Self::pointers(&self.envp));
        // SAFETY: as above; the empty path with AT_EMPTY_PATH means the file itself.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                file.as_fd().as_raw_fd(),
                c"".as_ptr(),
                argv.as_ptr(),
                envp.as_ptr(),
                libc::AT_EMPTY_PATH,
            )
        };
        io::Error::last_os_error()
    }
}

// The machine code of the minimal init (see `ns::init`, which makes a program of it). It runs
// with every signal blocked, has one child of its own, process 2, and nothing open but a pipe
// as descriptor 0.
//
//     loop: wait for any signal
//         not SIGCHLD: pass it on to process 2
//         SIGCHLD:     reap all there is; when process 2 is among it, write its wait status to
//                      the pipe and exit, which ends the PID namespace
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata.hullbox_init, \"a\"",
    ".global hullbox_init_start",
    ".global hullbox_init_end",
    "hullbox_init_start:",
    "    sub rsp, 160",
    "    mov rax, -1",
    "    mov [rsp], rax", // the set of all signals
    "2:  mov rdi, rsp",
    "    lea rsi, [rsp + 16]",
    "    xor edx, edx",
    "    mov r10d, 8",
    "    mov eax, 128", // rt_sigtimedwait
    "    syscall",
    "    test eax, eax",
    "    jle 2b",
    "    cmp eax, 17", // SIGCHLD
    "    je 3f",
    "    mov esi, eax",
    "    mov edi, 2",
    "    mov eax, 62", // kill
    "    syscall",
    "    jmp 2b",
    "3:  mov rdi, -1",
    "    lea rsi, [rsp + 8]",
    "    mov edx, 1", // WNOHANG
    "    xor r10d, r10d",
    "    mov eax, 61", // wait4
    "    syscall",
    "    test eax, eax",
    "    jle 2b",
    "    cmp eax, 2",
    "    jne 3b",
    "    xor edi, edi",
    "    lea rsi, [rsp + 8]",
    "    mov edx, 4",
    "    mov eax, 1", // write
    "    syscall",
    "    xor edi, edi",
    "    mov eax, 231", // exit_group
    "    syscall",
    "    ud2",
    "hullbox_init_end:",
    ".popsection",
);

// The machine code of the guard (see `ns::guard`). It has two descriptors of processes, 0 and 1.
//
//     wait until one of them has ended; if it is 0, kill 1
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata.hullbox_guard, \"a\"",
    ".global hullbox_guard_start",
    ".global hullbox_guard_end",
    "hullbox_guard_start:",
    "    sub rsp, 32",
    "    mov rax, 0x100000000", // struct pollfd: descriptor 0, POLLIN
    "    mov [rsp], rax",
    "    inc rax", // descriptor 1
    "    mov [rsp + 8], rax",
    "2:  mov rdi, rsp",
    "    mov esi, 2",
    "    mov edx, -1",
    "    mov eax, 7", // poll
    "    syscall",
    "    test eax, eax",
    "    jle 2b",
    "    cmp word ptr [rsp + 6], 0",
    "    je 3f",
    "    mov edi, 1",
    "    mov esi, 9", // SIGKILL
    "    xor edx, edx",
    "    xor r10d, r10d",
    "    mov eax, 424", // pidfd_send_signal
    "    syscall",
    "3:  xor edi, edi",
    "    mov eax, 231", // exit_group
    "    syscall",
    "    ud2",
    "hullbox_guard_end:",
    ".popsection",
);

/// Position-independent machine code of the guard, or nothing where it is not written.
#[must_use]
pub fn guard_code() -> &'static [u8] {
    #[cfg(target_arch = "x86_64")]
    {
        unsafe extern "C" {
            static hullbox_guard_start: u8;
            static hullbox_guard_end: u8;
        }
        let (start, end) = (&raw const hullbox_guard_start, &raw const hullbox_guard_end);
        // SAFETY: as for the init.
        unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        &[]
    }
}

/// Position-independent machine code of the minimal init, or nothing where it is not written.
#[must_use]
pub fn init_code() -> &'static [u8] {
    #[cfg(target_arch = "x86_64")]
    {
        unsafe extern "C" {
            static hullbox_init_start: u8;
            static hullbox_init_end: u8;
        }
        let (start, end) = (&raw const hullbox_init_start, &raw const hullbox_init_end);
        // SAFETY: both symbols are in one read-only section of this program, in this order, and
        // everything between them is initialised and never changes.
        unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<LoopInfo>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
    }

    #[test]
    fn the_init_is_small_and_there() {
        assert!((64..512).contains(&init_code().len()) || cfg!(not(target_arch = "x86_64")));
    }

    #[test]
    fn threads_are_counted() {
        let before = thread_count().unwrap();
        let (tell, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        assert!(thread_count().unwrap() > before || before > 1);
        drop(tell);
        thread.join().unwrap().unwrap_err();
    }
}
