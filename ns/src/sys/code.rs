//! Two programs of a few instructions, as machine code.

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
    fn the_programs_are_small_and_there() {
        for code in [init_code(), guard_code()] {
            assert!((64..512).contains(&code.len()) || cfg!(not(target_arch = "x86_64")));
        }
    }
}
