//! The filter, judged by an interpreter of classic BPF.

use super::*;

const DOCKER: u64 = 0xa804_25fb;
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;

fn run(filter: &Filter, architecture: u32, number: u32, argument: u32) -> u32 {
    let mut accumulator = 0u32;
    let mut at = 0usize;
    let mut steps = 0;
    loop {
        let i = &filter[at];
        steps += 1;
        assert!(steps < 200, "too long a path for call {number}");
        at += 1;
        let jump = |taken: bool| usize::from(if taken { i.jt } else { i.jf });
        match i.code {
            0x20 => {
                accumulator = match i.k {
                    0 => number,
                    4 => architecture,
                    16 => argument,
                    other => panic!("load from {other}"),
                }
            }
            0x05 => at += i.k as usize,
            0x15 => at += jump(accumulator == i.k),
            0x25 => at += jump(accumulator > i.k),
            0x35 => at += jump(accumulator >= i.k),
            0x45 => at += jump(accumulator & i.k != 0),
            0x06 => return i.k,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

#[test]
fn every_name_in_the_profile_is_a_call() {
    let known = |name: &str| numbers::CALLS.binary_search_by(|c| c.0.cmp(name)).is_ok();
    assert!(numbers::CALLS.is_sorted_by_key(|call| call.0));
    let names = profile::ALWAYS
        .split_whitespace()
        .chain(
            profile::WITH_CAPABILITY
                .iter()
                .flat_map(|r| r.1.split_whitespace()),
        )
        .chain(profile::WITH_ARGUMENT.iter().map(|r| r.0))
        .chain(profile::ABSENT.iter().copied());
    let unknown: Vec<_> = names.filter(|name| !known(name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn dockers_defaults() {
    let filter = filter_for(DOCKER);
    assert!(filter.len() < 4096, "{} instructions", filter.len());
    let native = |nr: libc::c_long, argument| run(&filter, X86_64, nr as u32, argument);
    assert_eq!(native(libc::SYS_read, 0), ALLOW);
    assert_eq!(native(libc::SYS_execve, 0), ALLOW);
    assert_eq!(native(libc::SYS_chroot, 0), ALLOW);
    for refused in [
        libc::SYS_mount,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_bpf,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_io_uring_setup,
        libc::SYS_kexec_load,
        libc::SYS_userfaultfd,
        libc::SYS_open_by_handle_at,
        libc::SYS_init_module,
        libc::SYS_reboot,
        libc::SYS_perf_event_open,
    ] {
        assert_eq!(native(refused, 0), EPERM, "call {refused}");
    }
    assert_eq!(native(libc::SYS_clone3, 0), ENOSYS);
    assert_eq!(native(libc::SYS_clone, libc::SIGCHLD as u32), ALLOW);
    assert_eq!(native(libc::SYS_clone, libc::CLONE_NEWUSER as u32), EPERM);
    assert_eq!(native(libc::SYS_clone, libc::CLONE_NEWCGROUP as u32), EPERM);
    for (family, verdict) in [
        (libc::AF_UNIX, ALLOW),
        (libc::AF_INET6, ALLOW),
        (libc::AF_NETLINK, ALLOW),
        (libc::AF_ALG, EPERM),
        (libc::AF_VSOCK, EPERM),
        (libc::AF_XDP, ALLOW),
        (46, EPERM),
    ] {
        assert_eq!(native(libc::SYS_socket, family as u32), verdict, "{family}");
    }
    for (persona, verdict) in [(0, ALLOW), (8, ALLOW), (u32::MAX, ALLOW), (0x40000, EPERM)] {
        assert_eq!(native(libc::SYS_personality, persona), verdict);
    }
    assert_eq!(native(100_000, 0), ENOSYS);
    assert_eq!(native(0x4000_0000, 0), ENOSYS, "x32");
}

#[test]
fn thirty_two_bit_programs_have_their_own_numbers() {
    let filter = filter_for(DOCKER);
    assert_eq!(run(&filter, I386, 11, 0), ALLOW, "execve");
    assert_eq!(run(&filter, I386, 21, 0), EPERM, "mount");
    assert_eq!(
        run(&filter, I386, 120, 0x1000_0000),
        EPERM,
        "clone with CLONE_NEWUSER"
    );
    assert_eq!(
        run(&filter, I386, 359, libc::AF_ALG as u32),
        EPERM,
        "socket"
    );
    assert_eq!(
        run(&filter, 0xc000_00b7, 0, 0),
        libc::SECCOMP_RET_KILL_PROCESS,
        "aarch64"
    );
}

#[test]
fn capabilities_open_what_they_govern() {
    let mount = |filter: &Filter| run(filter, X86_64, libc::SYS_mount as u32, 0);
    assert_eq!(mount(&filter_for(DOCKER | 1 << 21)), ALLOW);
    let clone3 = run(&filter_for(1 << 21), X86_64, libc::SYS_clone3 as u32, 0);
    assert_eq!(clone3, ALLOW);
    let chroot = run(&filter_for(0), X86_64, libc::SYS_chroot as u32, 0);
    assert_eq!(chroot, EPERM);
}
