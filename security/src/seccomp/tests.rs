//! The filter, judged by an interpreter of classic BPF.

use super::*;

fn filter_for(capabilities: u64) -> Filter {
    super::filter_for(Isolation::Container, capabilities)
}

const DOCKER: u64 = 0xa804_25fb;
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;

fn run(filter: &Filter, architecture: u32, number: u32, argument: u32) -> u32 {
    judge(
        filter,
        architecture,
        number,
        [argument.into(), 0, 0, 0, 0, 0],
    )
}

fn judge(filter: &Filter, architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
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
                    half @ 16..64 => {
                        let argument = arguments[(half as usize - 16) / 8];
                        (argument >> (half % 8 * 8)) as u32
                    }
                    other => panic!("load from {other}"),
                }
            }
            0x05 => at += i.k as usize,
            0x54 => accumulator &= i.k,
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

#[test]
fn a_guest_allows_namespaces_of_users_and_still_no_way_to_the_host() {
    let filter = super::filter_for(Isolation::Vm, DOCKER);
    assert!(filter.len() < 4096, "{} instructions", filter.len());
    let native = |nr: libc::c_long, argument| run(&filter, X86_64, nr as u32, argument);
    for allowed in [
        libc::SYS_unshare,
        libc::SYS_mount,
        libc::SYS_pivot_root,
        libc::SYS_clone3,
        libc::SYS_setns,
        libc::SYS_userfaultfd,
    ] {
        assert_eq!(native(allowed, 0), ALLOW, "call {allowed}");
    }
    assert_eq!(native(libc::SYS_clone, libc::CLONE_NEWUSER as u32), ALLOW);
    for refused in [
        libc::SYS_bpf,
        libc::SYS_reboot,
        libc::SYS_kexec_load,
        libc::SYS_init_module,
        libc::SYS_perf_event_open,
        libc::SYS_add_key,
    ] {
        assert_eq!(native(refused, 0), EPERM, "call {refused}");
    }
    let socket = |family: i32| native(libc::SYS_socket, family as u32);
    assert_eq!(socket(libc::AF_VSOCK), EPERM);
    assert_eq!(
        (socket(libc::AF_ALG), socket(libc::AF_INET)),
        (ALLOW, ALLOW)
    );
}

#[test]
fn a_filter_travels_as_bytes() {
    let seccomp = Seccomp::Default;
    let bytes = seccomp.filter(Isolation::Container, DOCKER, false);
    let filter = from_bytes(&bytes);
    assert_eq!(bytes.len(), filter.len() * 8);
    assert_eq!(run(&filter, X86_64, libc::SYS_mount as u32, 0), EPERM);
    assert!(seccomp.filter(Isolation::Vm, DOCKER, true).is_empty());
    assert!(
        Seccomp::Unconfined
            .filter(Isolation::Vm, DOCKER, false)
            .is_empty()
    );
}

/// Judges a native call by a profile, for a container with the default capabilities.
fn by(profile: &str, call: libc::c_long, arguments: [u64; 6]) -> u32 {
    let seccomp = Seccomp::parse(profile).unwrap();
    let filter = from_bytes(&seccomp.filter(Isolation::Container, DOCKER, false));
    judge(&filter, X86_64, call as u32, arguments)
}

#[test]
fn a_profile_of_the_users_own() {
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        {"name": "chmod", "action": "SCMP_ACT_KILL_PROCESS"},
        {"names": ["chroot"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_CHROOT"]}},
        {"names": ["mount"], "action": "SCMP_ACT_LOG", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["umask"], "action": "SCMP_ACT_TRAP", "includes": {"arches": ["arm64"]}}]}"#;
    let native = |call| by(profile, call, [0; 6]);
    assert_eq!(native(libc::SYS_read), ALLOW);
    assert_eq!(native(libc::SYS_mkdir), ENOSYS);
    assert_eq!(native(libc::SYS_mkdirat), ENOSYS);
    assert_eq!(native(libc::SYS_chmod), libc::SECCOMP_RET_KILL_PROCESS);
    for open in [libc::SYS_chroot, libc::SYS_mount, libc::SYS_umask] {
        assert_eq!(native(open), ALLOW);
    }
    let filter = Seccomp::parse(profile).unwrap();
    let filter = from_bytes(&filter.filter(Isolation::Vm, 1 << 21, true));
    assert_eq!(run(&filter, X86_64, libc::SYS_chroot as u32, 0), EPERM);
    assert_eq!(
        run(&filter, X86_64, libc::SYS_mount as u32, 0),
        libc::SECCOMP_RET_LOG
    );
    // It names no other architecture.
    assert_eq!(
        run(&filter, I386, 3, 0),
        libc::SECCOMP_RET_KILL_PROCESS,
        "read"
    );
}

#[test]
fn a_profile_compares_whole_arguments() {
    const BIG: u64 = 0x1_0000_0005;
    let one = |op: &str, value: u64, two: u64| {
        format!(
            r#"{{"defaultAction": "SCMP_ACT_ERRNO", "archMap": [{{"architecture": "SCMP_ARCH_X86_64",
            "subArchitectures": ["SCMP_ARCH_X86"]}}], "syscalls": [{{"names": ["lseek"],
            "action": "SCMP_ACT_ALLOW", "args": [{{"index": 1, "op": "SCMP_CMP_{op}",
            "value": {value}, "valueTwo": {two}}}]}}]}}"#
        )
    };
    let values = [0, 4, 5, 6, BIG - 1, BIG, BIG + 1, 0x2_0000_0005, u64::MAX];
    type Holds = fn(u64, u64) -> bool;
    let operators: [(&str, Holds); 6] = [
        ("EQ", |a, b| a == b),
        ("NE", |a, b| a != b),
        ("GT", |a, b| a > b),
        ("GE", |a, b| a >= b),
        ("LT", |a, b| a < b),
        ("LE", |a, b| a <= b),
    ];
    for (op, holds) in operators {
        for (a, b) in values.iter().flat_map(|&a| values.map(|b| (a, b))) {
            let expected = if holds(a, b) { ALLOW } else { EPERM };
            let judged = by(&one(op, b, 0), libc::SYS_lseek, [9, a, 9, 0, 0, 0]);
            assert_eq!(judged, expected, "{a:#x} {op} {b:#x}");
        }
    }
    let masked = one("MASKED_EQ", 0xff_0000_00ff, 0x1_0000_0005);
    let judged = |a| by(&masked, libc::SYS_lseek, [0, a, 0, 0, 0, 0]);
    assert_eq!((judged(0x2_1234_5605), judged(0x5)), (EPERM, EPERM));
    assert_eq!(judged(0xf00_1234_5605 | 0x1_0000_0000), ALLOW);
}

#[test]
fn conditions_on_one_argument_are_alternatives() {
    let profile = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"},
            {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
        {"names": ["dup3"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"},
            {"index": 1, "value": 2, "op": "SCMP_CMP_EQ"}]}]}"#;
    let persona = |value| by(profile, libc::SYS_personality, [value, 0, 0, 0, 0, 0]);
    assert_eq!([persona(0), persona(8), persona(4)], [ALLOW, ALLOW, EPERM]);
    let dup3 = |a, b| by(profile, libc::SYS_dup3, [a, b, 0, 0, 0, 0]);
    assert_eq!([dup3(1, 2), dup3(1, 1), dup3(2, 2)], [ALLOW, EPERM, EPERM]);
}

#[test]
fn what_is_no_profile_is_refused() {
    for bad in [
        "",
        "[]",
        "{}",
        r#"{"defaultAction": "ALLOW"}"#,
        r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"]}]}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"],
            "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}"#,
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"],
            "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_FLY"]}}]}"#,
    ] {
        assert!(Seccomp::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_process_of_our_own_is_killed_for_what_it_does_not_need() {
    const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    let filter = killing_filter_of(
        "read epoll_wait",
        &[
            ("socket", 0, Must::Equal(&[2, 10])),
            ("mmap", 2, Must::Lack(4)),
        ],
    );
    let judged = |call: libc::c_long, arguments| {
        judge(&filter, X86_64, u32::try_from(call).unwrap(), arguments)
    };
    let first = |value| [value, 0, 0, 0, 0, 0];
    let third = |value| [0, 0, value, 0, 0, 0];
    assert_eq!(judged(libc::SYS_read, first(0)), ALLOW);
    assert_eq!(judged(libc::SYS_epoll_wait, first(7)), ALLOW);
    for call in [
        libc::SYS_openat,
        libc::SYS_execve,
        libc::SYS_ptrace,
        libc::SYS_clone3,
    ] {
        assert_eq!(judged(call, first(0)), KILL, "{call}");
    }
    for (family, verdict) in [
        (2, ALLOW),
        (10, ALLOW),
        (1, KILL),
        (16, KILL),
        (2 + (1 << 32), KILL),
    ] {
        assert_eq!(judged(libc::SYS_socket, first(family)), verdict, "{family}");
    }
    assert_eq!(judged(libc::SYS_mmap, third(3)), ALLOW);
    assert_eq!(judged(libc::SYS_mmap, third(7)), KILL);
    assert_eq!(run(&filter, I386, 3, 0), KILL);
}
