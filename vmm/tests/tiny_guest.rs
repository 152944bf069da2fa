//! Whole VMs with a few instructions for a kernel: every outcome, and nothing left behind.
//!
//! These need `/dev/kvm`, but not one that can run Linux. Without it they pass and say so.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers may fail as loudly as the test"
)]

use hullbox_vmm::{
    DiskConfig, Foundation, MemorySize, NetConfig, Outcome, SerialConfig, Snapshot, SnapshotKey,
    VcpuCount, Vm, VmConfig, VmError, VsockConfig,
};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const ENTRY: u64 = 0x100_0000;

/// An ELF kernel that consists of these instructions.
fn kernel(code: &[u8]) -> tempfile::NamedTempFile {
    let mut bytes = vec![0u8; 4096];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[18..20].copy_from_slice(&62u16.to_le_bytes());
    bytes[24..32].copy_from_slice(&ENTRY.to_le_bytes());
    bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
    bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
    bytes[56..58].copy_from_slice(&1u16.to_le_bytes());
    let len = code.len() as u64;
    for (index, value) in [1, 4096, 0, ENTRY, len, len, 4096].iter().enumerate() {
        bytes[64 + index * 8..72 + index * 8].copy_from_slice(&u64::to_le_bytes(*value));
    }
    bytes.extend_from_slice(code);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    file
}

const CARD: NetConfig = NetConfig {
    mac: [2, 0, 0, 0, 0, 1],
    mtu: 1500,
};

fn config(kernel: &Path) -> VmConfig {
    VmConfig::new(
        VcpuCount::new(1).unwrap(),
        MemorySize::from_mib(64).unwrap(),
        kernel,
    )
}

/// One VM at a time, so that threads and descriptors can be counted. `None` without KVM.
fn turn() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    if std::fs::File::open("/dev/kvm").is_err() {
        eprintln!("skipped: no usable /dev/kvm");
        return None;
    }
    Some(TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

fn count(path: &str) -> usize {
    std::fs::read_dir(path).unwrap().count()
}

fn run(code: &[u8]) -> Outcome {
    let kernel = kernel(code);
    Vm::new(config(kernel.path()))
        .unwrap()
        .start()
        .unwrap()
        .wait()
}

/// `mov dx, port; mov al, value; out dx, al; jmp $`
fn out(port: u16, value: u8) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x66, 0xba, low, high, 0xb0, value, 0xee, 0xeb, 0xfe]
}

const SPIN: &[u8] = &[0xeb, 0xfe];

#[test]
fn every_way_to_end_is_told_apart() {
    let Some(_turn) = turn() else { return };
    assert_eq!(run(&out(0x5e0, 1)), Outcome::Shutdown);
    assert_eq!(run(&out(0x5e0, 2)), Outcome::Reset);
    assert_eq!(run(&out(0x5e0, 3)), Outcome::Panic);
    assert_eq!(run(&out(0x505, 1)), Outcome::Panic);
    assert_eq!(run(&out(0x505, 4)), Outcome::Shutdown);
    // No kernel unmasked an interrupt here, so that this restart is an orderly one.
    assert_eq!(run(&out(0x64, 0xfe)), Outcome::Reset);
    // ud2 without an interrupt table.
    assert_eq!(run(&[0x0f, 0x0b]), Outcome::TripleFault);
}

#[test]
fn a_guest_that_never_leaves_can_be_stopped() {
    let Some(_turn) = turn() else { return };
    for code in [SPIN, &[0xfa, 0xf4, 0xeb, 0xfd]] {
        let kernel = kernel(code);
        let mut config = config(kernel.path());
        config.shape.vcpus = VcpuCount::new(16).unwrap();
        let running = Vm::new(config).unwrap().start().unwrap();
        let handle = running.handle();
        let stopper = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            handle.stop();
            handle.stop();
        });
        assert_eq!(running.wait(), Outcome::Stopped);
        stopper.join().unwrap();
    }
}

#[test]
fn stopping_races_with_starting() {
    let Some(_turn) = turn() else { return };
    let kernel = kernel(SPIN);
    for _ in 0..50 {
        let running = Vm::new(config(kernel.path())).unwrap().start().unwrap();
        running.handle().stop();
        assert_eq!(running.wait(), Outcome::Stopped);
    }
}

#[test]
fn nothing_is_left_behind() {
    let Some(_turn) = turn() else { return };
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    std::fs::write(&disk, [0; 8192]).unwrap();
    let kernel = kernel(&out(0x5e0, 1));
    let full = || {
        let mut config = config(kernel.path());
        config.shape.initramfs = Some(disk.clone());
        config.rng = true;
        config.disks = vec![DiskConfig {
            files: vec![disk.clone(); 3],
            read_only: true,
        }];
        config.vsock = Some(VsockConfig {
            guest_cid: 3,
            uds_path: dir.path().join("vsock"),
        });
        config.net = Some(CARD);
        config.serial = SerialConfig::file(dir.path().join("serial"));
        config
    };
    let (_peer, ours) = std::os::unix::net::UnixDatagram::pair().unwrap();
    assert_eq!(
        Vm::new(full()).unwrap().start().unwrap().wait(),
        Outcome::Shutdown
    );
    let (fds, threads) = (count("/proc/self/fd"), count("/proc/self/task"));
    for round in 0..30 {
        let vm = Vm::new(full()).unwrap();
        if round % 2 == 0 {
            for address in [1, 2] {
                let socket = ours.try_clone().unwrap().into();
                vm.connect_network([2, 0, 0, 0, 0, address], socket)
                    .unwrap();
            }
        }
        assert!(dir.path().join("vsock").exists());
        match round % 3 {
            0 => assert_eq!(vm.start().unwrap().wait(), Outcome::Shutdown),
            1 => drop(vm.start().unwrap()),
            _ => drop(vm),
        }
        assert!(!dir.path().join("vsock").exists());
    }
    // A build that fails half way, too.
    let mut broken = full();
    broken.shape.kernel = disk.clone();
    assert!(matches!(Vm::new(broken), Err(VmError::Load { .. })));
    assert_eq!(count("/proc/self/fd"), fds);
    assert_eq!(count("/proc/self/task"), threads);
}

#[test]
fn the_end_is_an_event() {
    let Some(_turn) = turn() else { return };
    let kernel = kernel(&out(0x5e0, 3));
    let running = Vm::new(config(kernel.path())).unwrap().start().unwrap();
    let ended = running.ended().try_clone_to_owned().unwrap();
    let begin = Instant::now();
    let mut fds = [rustix::event::PollFd::new(
        &ended,
        rustix::event::PollFlags::IN,
    )];
    let limit = rustix::event::Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    assert_eq!(rustix::event::poll(&mut fds, Some(&limit)).unwrap(), 1);
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert_eq!(running.outcome(), Some(Outcome::Panic));
    assert_eq!(running.wait(), Outcome::Panic);
}

#[test]
fn the_serial_port_writes_its_file() {
    let Some(_turn) = turn() else { return };
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("serial");
    // Say "A", then power off.
    let mut code = out(0x3f8, b'A');
    code.truncate(7);
    code.extend(out(0x5e0, 1));
    let kernel = kernel(&code);
    let mut config = config(kernel.path());
    config.serial = SerialConfig::file(&log);
    let running = Vm::new(config).unwrap().start().unwrap();
    assert_eq!(running.wait(), Outcome::Shutdown);
    assert_eq!(std::fs::read(&log).unwrap(), b"A");
}

#[test]
fn ports_without_a_device_read_as_ones() {
    let Some(_turn) = turn() else { return };
    // in al, 0x80; cmp al, 0xff; jne $
    let mut code = vec![0xe4, 0x80, 0x3c, 0xff, 0x75, 0xfe];
    code.extend(out(0x5e0, 1));
    assert_eq!(run(&code), Outcome::Shutdown);
}

/// Threads of this process with this name.
fn threads(name: &str) -> Vec<libc::pid_t> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .map(|task| task.unwrap())
        .filter(|task| {
            // One that has ended meanwhile has none.
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
        })
        .map(|task| task.file_name().to_str().unwrap().parse().unwrap())
        .collect()
}

extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

#[test]
fn signals_that_are_not_ours_change_nothing() {
    let Some(_turn) = turn() else { return };
    vmm_sys_util::signal::register_signal_handler(libc::SIGUSR1, on_signal).unwrap();
    let kernel = kernel(SPIN);
    let running = Vm::new(config(kernel.path())).unwrap().start().unwrap();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(5));
        for thread in threads("vcpu0") {
            let process = std::process::id();
            // SAFETY: a system call on integers; the signal has a handler.
            unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGUSR1) };
        }
    }
    assert_eq!(running.outcome(), None);
    assert_eq!(threads("vcpu0").len(), 1);
    running.handle().stop();
    assert_eq!(running.wait(), Outcome::Stopped);
}

/// Says "A" on the serial port, leaves the guest some thousand times, and says "B" if registers and
/// memory are then what they were; otherwise it announces a panic.
fn patient() -> Vec<u8> {
    let mut code = vec![
        0xbb, 0x78, 0x56, 0x34, 0x12, // mov ebx, 0x12345678
        0xc7, 0x04, 0x25, 0, 0, 0, 2, 0xfe, 0xca, 0, 0, // mov dword [0x2000000], 0xcafe
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xb0, b'A', 0xee, 0xb0, b'\n', 0xee, // mov al, …; out dx, al
        0xb9, 0x20, 0x4e, 0, 0, // mov ecx, 20000
        0xe4, 0x80, 0xff, 0xc9, 0x75, 0xfa, // again: in al, 0x80; dec ecx; jnz again
        0x81, 0xfb, 0x78, 0x56, 0x34, 0x12, // cmp ebx, 0x12345678
        0x75, 0x1e, // jne broken
        0x81, 0x3c, 0x25, 0, 0, 0, 2, 0xfe, 0xca, 0, 0, // cmp dword [0x2000000], 0xcafe
        0x75, 0x11, // jne broken
        0x66, 0xba, 0xf8, 0x03, 0xb0, b'B', 0xee, 0xb0, b'\n', 0xee,
    ];
    code.extend(&out(0x5e0, 1)[..7]);
    // broken:
    code.extend(out(0x5e0, 3));
    code
}

#[test]
fn a_guest_goes_on_where_it_was_saved() {
    let Some(_turn) = turn() else { return };
    let dir = tempfile::tempdir().unwrap();
    let kernel = kernel(&patient());
    let with_log = |name: &str| {
        let mut config = config(kernel.path());
        config.serial = SerialConfig::file(dir.path().join(name));
        config.rng = true;
        config.net = Some(CARD);
        config.disks = vec![DiskConfig {
            files: vec![],
            read_only: true,
        }];
        config.template = true;
        config
    };
    let mut running = Vm::new(with_log("first")).unwrap().start().unwrap();
    let begin = Instant::now();
    while std::fs::read(dir.path().join("first")).unwrap() != b"A\n" {
        assert!(begin.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(1));
    }
    let key = SnapshotKey::new([7; 32]);
    let saved = dir.path().join("saved");
    std::fs::create_dir(&saved).unwrap();
    running.save(&saved, &key, [0; 32], &[]).unwrap();
    // The original goes on, too.
    running.resume();
    assert_eq!(running.wait(), Outcome::Shutdown);
    assert_eq!(std::fs::read(dir.path().join("first")).unwrap(), b"A\nB\n");

    let (fds, threads) = (count("/proc/self/fd"), count("/proc/self/task"));
    for round in 0..5 {
        let name = format!("restored{round}");
        let mut config = with_log(&name);
        config.template = false;
        config.disks[0].files = vec![kernel.path().to_owned()];
        // What others are said to have touched is a hint, whatever it says.
        let hints = [0, 1 << 31 | 9000, 0, 7000, 5, u32::MAX, u32::MAX, 3];
        if round > 0 {
            let text = hints.map(u32::to_le_bytes).concat();
            std::fs::write(saved.join("touched"), text).unwrap();
        }
        let snapshot = Snapshot::open(&saved, &key, &[0; 32], &[]).unwrap();
        let foundation = Foundation::restore(config.shape.clone(), snapshot).unwrap();
        assert!(foundation.is_restored());
        let vm = Vm::on(foundation, config).unwrap();
        match round {
            3 => drop(vm),
            4 => drop(vm.start().unwrap()),
            _ => {
                assert_eq!(vm.start().unwrap().wait(), Outcome::Shutdown);
                assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), b"B\n");
            }
        }
    }
    assert_eq!(count("/proc/self/fd"), fds);
    assert_eq!(count("/proc/self/task"), threads);

    // Other devices are not those that were saved.
    let changes: [fn(&mut VmConfig); 2] = [|config| config.rng = false, |config| config.net = None];
    for change in changes {
        let mut config = with_log("other");
        change(&mut config);
        let snapshot = Snapshot::open(&saved, &key, &[0; 32], &[]).unwrap();
        let foundation = Foundation::restore(config.shape.clone(), snapshot).unwrap();
        assert!(matches!(
            Vm::on(foundation, config),
            Err(VmError::Snapshot(_))
        ));
    }
    let mut shape = with_log("other").shape;
    shape.vcpus = VcpuCount::new(2).unwrap();
    let snapshot = Snapshot::open(&saved, &key, &[0; 32], &[]).unwrap();
    assert!(matches!(
        Foundation::restore(shape, snapshot),
        Err(VmError::Snapshot(_))
    ));
}

#[test]
fn pausing_races_with_running_and_ending() {
    let Some(_turn) = turn() else { return };
    let kernel = kernel(SPIN);
    let mut config = config(kernel.path());
    config.shape.vcpus = VcpuCount::new(4).unwrap();
    let mut running = Vm::new(config).unwrap().start().unwrap();
    for round in 0..50 {
        running.pause().unwrap();
        running.pause().unwrap();
        running.resume();
        if round % 2 == 0 {
            running.resume();
        }
    }
    assert_eq!(running.outcome(), None);
    running.pause().unwrap();
    running.handle().stop();
    assert_eq!(running.wait(), Outcome::Stopped);
    let mut restless = Vm::new(self::config(kernel.path()))
        .unwrap()
        .start()
        .unwrap();
    assert!(restless.pause_at_rest(Duration::from_millis(20)).is_err());
    assert_eq!(restless.outcome(), None);
}
