//! The structured payloads: how a guest is set up, what runs in it, how it ended.

use crate::access::Access;
use crate::bounded::{MAX_LIST, list};
use crate::builtin::Builtin;
use crate::mount::FileMount;
use crate::network::{Interface, interfaces};
use serde::{Deserialize, Serialize};

/// Most arguments, and most variables, of a process. Linux takes 2 MiB of them all as a rule, each
/// with a pointer and a zero.
pub const MAX_WORDS: usize = 256 * 1024;
/// Most supplementary groups: Linux's limit.
const MAX_GROUPS: usize = 65536;

/// First words of the guest agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::PROTOCOL_VERSION`] of the agent.
    pub version: u32,
    /// Guest uptime when the agent connected, in microseconds.
    pub uptime_us: u64,
}

/// How to arrange the guest before the workload runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// The root filesystem.
    pub rootfs: RootfsSpec,
    /// UTS host name.
    pub hostname: String,
    /// Whole contents of /etc/hosts, /etc/resolv.conf and /etc/hostname; empty leaves the image's.
    pub etc_hosts: String,
    /// See `etc_hosts`.
    pub etc_resolv_conf: String,
    /// See `etc_hosts`.
    pub etc_hostname: String,
    /// `--tmpfs` mounts, in order.
    #[serde(deserialize_with = "list::<_, _, MAX_LIST>")]
    pub tmpfs: Vec<TmpfsMount>,
    /// Size of /dev/shm, in bytes.
    pub shm_size_bytes: u64,
    /// Limits of the workload's cgroup.
    pub limits: CgroupLimits,
    /// Run the workload as the child of a minimal init of its own (`--init`).
    pub init: bool,
    /// Wall clock at sending, in nanoseconds since 1970; 0 leaves the guest's.
    pub wall_clock_ns: u64,
    /// The writable layer outlives this run: sync it before `Exited` is sent.
    pub persist: bool,
    /// `net.*` and similar sysctls (`--sysctl`), as (name, value).
    #[serde(deserialize_with = "list::<_, _, MAX_LIST>")]
    pub sysctls: Vec<(String, String)>,
    /// Leave the kernel's own files (/proc/kcore, /proc/sysrq-trigger, …) neither hidden nor
    /// read-only (`--security-opt systempaths=unconfined`).
    pub system_paths_unconfined: bool,
    /// Filter no system calls (`--security-opt seccomp=unconfined`).
    pub seccomp_unconfined: bool,
    /// Random bytes of the host, [`ENTROPY_BYTES`] of them or none, that the guest's generator is
    /// reseeded with before the workload runs: a guest may be one of many copies.
    #[serde(default)]
    pub entropy: Vec<u8>,
    /// This guest began as a copy of one that was saved as it dialled: `wall_clock_ns` is of the
    /// moment it went on, and not of the sending.
    #[serde(default)]
    pub resumed: bool,
    /// What /etc/machine-id shows where the image has one (machine-id(5)); empty leaves the image's.
    #[serde(default)]
    pub machine_id: String,
    /// Tell [`Started::rooted_us`].
    #[serde(default)]
    pub timed: bool,
    /// What it is kept from, and what it is given beyond the usual.
    #[serde(default)]
    pub access: Access,
    /// Its network interfaces: `eth0`, `eth1` and so on; without one there is the loopback alone.
    #[serde(default, alias = "interface", deserialize_with = "interfaces")]
    pub interfaces: Vec<Interface>,
    /// Files from outside: see [`Setup::mounts_in_order`].
    #[serde(default, deserialize_with = "list::<_, _, MAX_LIST>")]
    pub mounts: Vec<FileMount>,
}

/// Length of [`Setup::entropy`].
pub const ENTROPY_BYTES: usize = 64;

/// The image's layers and what lies above them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsSpec {
    /// Read-only layers, lowest first.
    #[serde(deserialize_with = "list::<_, _, MAX_LIST>")]
    pub layers: Vec<LayerDisk>,
    /// Where writes go.
    pub writable: WritableLayer,
    /// Mount the finished root read-only (`--read-only`).
    pub read_only: bool,
}

/// One EROFS layer: a byte range of the guest's first block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerDisk {
    /// Offset on the disk, in bytes; a multiple of 4096.
    pub offset_bytes: u64,
    /// Length, in bytes; a multiple of 512.
    pub length_bytes: u64,
}

/// Where a container's writes go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WritableLayer {
    /// The guest's memory; gone with the guest.
    #[default]
    Memory,
    /// An ext4 filesystem on the guest's second block device.
    Disk,
}

/// A `--tmpfs` mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpfsMount {
    /// Absolute path in the container.
    pub path: String,
    /// Mount options as Docker takes them (`size=64m,mode=1777,noexec`), perhaps empty.
    pub options: String,
}

impl TmpfsMount {
    /// The options without a value, which are flags of the mount.
    pub const FLAGS: [&str; 16] = [
        "ro",
        "rw",
        "noexec",
        "exec",
        "nosuid",
        "suid",
        "nodev",
        "dev",
        "noatime",
        "atime",
        "nodiratime",
        "diratime",
        "relatime",
        "strictatime",
        "sync",
        "async",
    ];

    /// The options with a value that are tmpfs's own, and so may be passed on to it.
    pub const OWN_OPTIONS: [&str; 7] = [
        "size",
        "mode",
        "uid",
        "gid",
        "nr_inodes",
        "nr_blocks",
        "huge",
    ];
}

/// Limits of the workload's cgroup v2 group; 0 means none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupLimits {
    /// `memory.max`, in bytes.
    pub memory_bytes: u64,
    /// `pids.max`.
    pub pids: u64,
    /// `cpu.max` quota in microseconds for each period of 100 ms.
    pub cpu_quota_us: u64,
}

impl CgroupLimits {
    /// These in the place of others: 0 leaves one as it is, and the highest number takes it away.
    #[must_use]
    pub fn over(self, kept: Self) -> Self {
        let one = |new, old| match new {
            0 => old,
            u64::MAX => 0,
            new => new,
        };
        Self {
            memory_bytes: one(self.memory_bytes, kept.memory_bytes),
            pids: one(self.pids, kept.pids),
            cpu_quota_us: one(self.cpu_quota_us, kept.cpu_quota_us),
        }
    }
}

/// A process to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Program and arguments, exact bytes. The program is looked up in the spec's own PATH.
    #[serde(deserialize_with = "list::<_, _, MAX_WORDS>")]
    pub argv: Vec<Bytes>,
    /// Whole environment as `NAME=value`, exact bytes.
    #[serde(deserialize_with = "list::<_, _, MAX_WORDS>")]
    pub env: Vec<Bytes>,
    /// Working directory in the container; made when it is missing.
    pub cwd: String,
    /// Who runs it.
    pub user: UserSpec,
    /// Resource limits.
    #[serde(deserialize_with = "list::<_, _, MAX_LIST>")]
    pub rlimits: Vec<Rlimit>,
    /// File mode creation mask; `None` leaves 0o022.
    pub umask: Option<u32>,
    /// Give it a terminal of this size.
    pub terminal: Option<TerminalSize>,
    /// Streams that are pipes all the same when there is a terminal.
    pub pipes: PipedStreams,
    /// Bounding, permitted and effective capabilities as a bit mask; `None` keeps all.
    pub capabilities: Option<u64>,
    /// Set `no_new_privs`.
    pub no_new_privileges: bool,
    /// Attach standard input; otherwise it reads an immediate end.
    pub stdin: bool,
    /// What the agent does itself instead of executing `argv`.
    #[serde(default)]
    pub builtin: Option<Builtin>,
    /// Leave the capabilities and the system calls of root alone (`exec --privileged`).
    #[serde(default)]
    pub privileged: bool,
}

/// Which standard streams of a process with a terminal do not lead there.
///
/// All `false` in a container; a forwarded command has each stream as its caller has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipedStreams {
    /// Standard input comes from a pipe.
    pub stdin: bool,
    /// Standard output goes to a pipe.
    pub stdout: bool,
    /// Standard error goes to a pipe.
    pub stderr: bool,
}

/// Bytes that need not be UTF-8.
type Bytes = Vec<u8>;

/// Who runs a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserSpec {
    /// As Docker's `USER`: `user`, `uid`, `user:group`, `uid:gid`, …; empty is root. Names are
    /// resolved in the image's own /etc/passwd and /etc/group; an unknown one is an error.
    Named {
        /// The `USER` text.
        user: String,
        /// `--group-add`: names or numbers.
        #[serde(deserialize_with = "list::<_, _, MAX_LIST>")]
        additional_groups: Vec<String>,
    },
    /// Already resolved.
    Ids {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Supplementary group ids.
        #[serde(deserialize_with = "list::<_, _, MAX_GROUPS>")]
        groups: Vec<u32>,
    },
}

impl Default for UserSpec {
    fn default() -> Self {
        Self::Named {
            user: String::new(),
            additional_groups: Vec::new(),
        }
    }
}

/// One resource limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_*` number of Linux.
    pub resource: u32,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is unlimited.
    pub hard: u64,
}

/// A terminal's size, in character cells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// Size of an init system's console, if it has no other terminal.
pub const CONSOLE_SIZE: TerminalSize = TerminalSize {
    rows: 24,
    columns: 80,
};

/// A process runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Process id as the guest agent sees it.
    pub pid: u32,
    /// Guest uptime, in microseconds.
    pub uptime_us: u64,
    /// Guest uptime when the root filesystem was arranged, in microseconds; 0 if it was not asked
    /// for ([`Setup::timed`]).
    pub rooted_us: u64,
    /// What was done before it; of the workload alone.
    pub hygiene: Hygiene,
}

/// What a guest did before its workload's first instruction to be like no other guest that began
/// as the same copy of memory. True is what was done and did not fail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hygiene {
    /// [`Setup::entropy`] was added to the kernel's entropy.
    pub entropy_added: bool,
    /// The kernel seeded its random number generator anew from that.
    pub generator_reseeded: bool,
    /// The wall clock was set to [`Setup::wall_clock_ns`].
    pub clock_set: bool,
    /// This guest is a copy, and its boot id is one that no other copy has: the kernel makes it of
    /// the generator that was reseeded, when somebody reads it for the first time since.
    pub boot_id_replaced: bool,
    /// The host name is [`Setup::hostname`].
    pub hostname_set: bool,
    /// Where the image has a machine id, the workload sees [`Setup::machine_id`].
    #[serde(default)]
    pub machine_id_replaced: bool,
}

/// Why a process could not be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What sort of failure, which decides the exit code.
    pub kind: FailureKind,
    /// One line for the user, without a trailing full stop or newline.
    pub message: String,
}

/// Sorts of failure to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The program does not exist: exit code 127.
    NotFound,
    /// The program exists and cannot be executed: exit code 126.
    NotExecutable,
    /// Anything else (bad user, bad rootfs, mount failure): exit code 125.
    Setup,
}

impl Failure {
    /// The exit code that `docker run` documents for this failure.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self.kind {
            FailureKind::Setup => 125,
            FailureKind::NotExecutable => 126,
            FailureKind::NotFound => 127,
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It exited.
    Code(u8),
    /// A signal ended it.
    Signal {
        /// Signal number.
        signal: u8,
        /// The out-of-memory killer sent it.
        oom: bool,
    },
}

impl ExitStatus {
    /// The exit code a shell or `docker run` gives: the code itself, or 128 + signal.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match *self {
            Self::Code(code) => code,
            Self::Signal { signal, .. } => 128u8.saturating_add(signal),
        }
    }
}

/// Names of the kernel command line parameters with which the VMM's user speaks to the agent.
///
/// The kernel hands `name=value` parameters that it does not know to init as environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentEnv;

impl AgentEnv {
    /// `hullbox.role=`: `container` (the default) or `machine`.
    pub const ROLE: &'static str = "HULLBOX_ROLE";
    /// Set in a guest that is saved as soon as it dials, for others to begin there.
    pub const TEMPLATE: &'static str = "HULLBOX_TEMPLATE";
}
