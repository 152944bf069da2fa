//! What the supervisor is told to run, and the paths everybody agrees on.

use super::share::QUEUE_SIZE;
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The hidden command with which the program runs the machine's host processes. Whoever uses this
/// library must pass what follows it on the command line to [`crate::hidden`].
pub const HIDDEN_COMMAND: &str = "__machine";

/// Longest path of a Unix socket, in bytes (`sun_path` less its NUL).
const MAX_SOCKET_PATH: usize = 107;
/// The vsock address of the machine. One machine, one vsock: any number above the host's would do.
pub const MACHINE_CID: u64 = 3;
/// Tag of the share with the host's root.
pub const ROOT_TAG: &str = "host";

/// Everything the supervisor needs, passed through its standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The machine's runtime directory.
    pub runtime: PathBuf,
    /// The data directory of the host that the machine stands for.
    pub data: PathBuf,
    /// The data disk.
    pub disk: PathBuf,
    /// Bootable kernel image.
    pub kernel: PathBuf,
    /// Its release.
    pub kernel_release: String,
    /// Initramfs.
    pub initramfs: PathBuf,
    /// QEMU.
    pub qemu: PathBuf,
    /// Its model of the emulated processor.
    pub cpu: String,
    /// What is written through.
    pub volumes: Vec<PathBuf>,
    /// Virtual CPUs.
    pub cpus: u8,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// Idle time until the machine stops, in seconds; 0 is never.
    pub idle_s: u64,
    /// How long it may be silent while it starts, in seconds, before it is started once more.
    pub start_s: u64,
    /// Frequency of the host's time stamp counter, in kHz, if it is known and constant.
    pub tsc_khz: Option<u64>,
    /// Number of the descriptor that holds the machine's lock.
    pub lock_fd: i32,
}

/// Paths in a machine's runtime directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeFiles {
    /// The directory.
    pub dir: PathBuf,
}

impl RuntimeFiles {
    /// Those of the machine in `dir`.
    #[must_use]
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Where sessions connect (the hybrid vsock convention).
    #[must_use]
    pub fn vsock(&self) -> PathBuf {
        self.dir.join("v")
    }

    /// Where the guest's connection to a host port arrives.
    #[must_use]
    pub fn vsock_port(&self, port: u32) -> PathBuf {
        let mut path = self.vsock().into_os_string();
        path.push(format!("_{port}"));
        path.into()
    }

    /// vhost-user socket of the vsock device.
    #[must_use]
    pub fn vsock_backend(&self) -> PathBuf {
        self.dir.join("vu")
    }

    /// vhost-user socket of the root share.
    #[must_use]
    pub fn share_backend(&self) -> PathBuf {
        self.dir.join("fs")
    }

    /// Mount point in the share's own mount namespace.
    #[must_use]
    pub fn share_root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// The machine's state, for people and `status`.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    /// Console and helpers' messages.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Serialises those who start the machine.
    #[must_use]
    pub fn start_lock(&self) -> PathBuf {
        self.dir.join("start.lock")
    }

    /// The longest socket path, if it is too long to be one.
    #[must_use]
    pub fn overlong_socket(&self) -> Option<PathBuf> {
        Some(self.vsock_port(*hullbox_protocol::NETWORK_FRAME_PORTS.end()))
            .filter(|path| path.as_os_str().len() > MAX_SOCKET_PATH)
    }
}

/// QEMU's arguments.
///
/// The CPU is emulated: that is what gives the guest a complete KVM on any host. Memory that helpers can
/// map (`memfd`, shared) is what vhost-user needs.
#[must_use]
pub fn qemu_arguments(plan: &Plan) -> Vec<OsString> {
    let files = RuntimeFiles::new(plan.runtime.clone());
    let memory = plan.memory_mib;
    let mut args: Vec<OsString> = [
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-machine",
        "q35,smbus=off,hpet=off,usb=off,dump-guest-core=off",
        "-accel",
        "tcg,thread=multi,tb-size=512",
        // What the emulator itself may do, should a guest break into it.
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-chardev",
        "stdio,id=console,signal=off",
        "-serial",
        "chardev:console",
        "-numa",
        "node,memdev=memory",
    ]
    .map(OsString::from)
    .to_vec();
    let mut pair = |flag: &str, value: OsString| args.extend([flag.into(), value]);
    // No guest runs on the first, which is not counted: guest-agent/src/machine/held.rs.
    pair("-smp", (u16::from(plan.cpus) + 1).to_string().into());
    pair("-cpu", plan.cpu.clone().into());
    pair("-m", format!("{memory}M").into());
    pair(
        "-object",
        format!("memory-backend-memfd,id=memory,size={memory}M,share=on").into(),
    );
    pair("-kernel", plan.kernel.clone().into());
    pair("-initrd", plan.initramfs.clone().into());
    pair("-append", kernel_arguments(plan.tsc_khz).into());
    let sockets = [
        (
            "vsock",
            files.vsock_backend(),
            "vhost-user-vsock-pci,chardev=vsock".to_owned(),
        ),
        (
            "share",
            files.share_backend(),
            format!("vhost-user-fs-pci,chardev=share,tag={ROOT_TAG},queue-size={QUEUE_SIZE}"),
        ),
    ];
    for (id, path, device) in sockets {
        pair(
            "-chardev",
            option(&format!("socket,id={id},path="), path.as_os_str()),
        );
        pair("-device", device.into());
    }
    pair(
        "-drive",
        option(
            "if=none,id=data,format=raw,discard=unmap,cache=writeback,file=",
            plan.disk.as_os_str(),
        ),
    );
    pair("-device", "virtio-blk-pci,drive=data".into());
    args
}

/// `panic=-1`: a panic ends the machine, and the next command starts another. The emulator does
/// not speculate, so mitigations would only cost; tests of ciphers and security modules that nothing
/// here uses take half a second of its time.
///
/// `init_on_free`: QEMU looks at every store to a page from which it has translated code, as often
/// as there are stores, until the last of these translations is gone. The memory of a guest that
/// has ended is full of such pages, and the next guest gets it first: clearing three huge pages of
/// a guest kernel's text takes 380 ms there, not 3. Cleared when it is given back, nobody waits for
/// it; besides, no guest's memory outlives it.
fn kernel_arguments(tsc_khz: Option<u64>) -> String {
    let mut arguments = "console=ttyS0 quiet panic=-1 oops=panic init_on_free=1 mitigations=off \
                         no_timer_check cryptomgr.notests apparmor=0 selinux=0 audit=0 HULLBOX_ROLE=machine"
        .to_owned();
    if let Some(khz) = tsc_khz {
        // The counter is the host's own: constant, and the same on every virtual CPU.
        arguments.push_str(&format!(" tsc=reliable tsc_early_khz={khz}"));
    }
    arguments
}

/// `prefix` and a path as one QEMU option; QEMU wants commas in it doubled.
fn option(prefix: &str, path: &OsStr) -> OsString {
    let mut bytes = prefix.as_bytes().to_vec();
    for &byte in path.as_bytes() {
        bytes.push(byte);
        if byte == b',' {
            bytes.push(b',');
        }
    }
    OsStr::from_bytes(&bytes).to_owned()
}

/// A program in PATH or where distributions put daemons and administrators' tools.
#[must_use]
pub fn find_program(name: &str, extra: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(extra.iter().map(PathBuf::from))
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_paths_are_doubled() {
        assert_eq!(option("file=", OsStr::new("/a,b")), "file=/a,,b");
    }

    #[test]
    fn long_directories_are_noticed() {
        let fine = RuntimeFiles::new("/run/hullbox/machine-0011223344556677".into());
        assert_eq!(fine.overlong_socket(), None);
        let long = RuntimeFiles::new(Path::new("/").join("d".repeat(104)));
        assert!(long.overlong_socket().is_some());
    }

    #[test]
    fn shells_are_found() {
        assert!(find_program("sh", &[]).is_some());
        assert!(find_program("no-such-program-at-all", &[]).is_none());
    }
}
