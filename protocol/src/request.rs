//! What is asked of a running container besides running programs in it.

use crate::bounded::list;
use crate::network::Interface;
use crate::spec::CgroupLimits;
use serde::{Deserialize, Deserializer, Serialize};

/// Most processes that are told of.
pub const MAX_PROCESSES: usize = 8192;
/// Most network interfaces that are told of.
pub const MAX_TOLD_INTERFACES: usize = 64;

/// A question or an order about the whole container. Answered by one [`Reply`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// How much it uses: [`Reply::Usage`].
    Usage,
    /// What runs in it: [`Reply::Processes`].
    Processes,
    /// Stop every process where it stands.
    Freeze,
    /// Let them go on.
    Thaw,
    /// Set these limits; 0 leaves one as it is.
    Limit(CgroupLimits),
    /// Come to rest, because this guest is about to be copied. A copy's connection ends: it dials
    /// again, and is given a [`crate::Setup`] and the `Exec` of session 0 once more, which let the
    /// workload go on.
    Suspend,
    /// The copy is made: go on as before.
    Resume,
    /// The host's wall clock says this now: so is the guest's to say.
    SetClock {
        /// Nanoseconds since 1970.
        wall_clock_ns: u64,
    },
    /// Make one more interface; its frames are carried already.
    Connect {
        /// Its place: the number in its name.
        index: u8,
        /// The interface.
        interface: Box<Interface>,
        /// What the container is to know of its networks' names then.
        names: Box<NameFiles>,
    },
    /// Remove an interface.
    Disconnect {
        /// Its place.
        index: u8,
        /// What the container is to know of its networks' names then.
        names: Box<NameFiles>,
    },
}

/// Whole contents of files about names, as in [`crate::Setup`]; empty leaves one as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameFiles {
    /// /etc/hosts.
    pub hosts: String,
    /// /etc/resolv.conf.
    pub resolv_conf: String,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// It cannot be done: why, in one line.
    Failed(String),
    /// To [`Request::Usage`].
    Usage(Box<Usage>),
    /// To [`Request::Processes`].
    #[serde(deserialize_with = "processes")]
    Processes(Vec<ProcessInfo>),
}

fn processes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ProcessInfo>, D::Error> {
    list::<_, _, MAX_PROCESSES>(from)
}

fn interfaces<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<InterfaceUsage>, D::Error> {
    list::<_, _, MAX_TOLD_INTERFACES>(from)
}

/// What a container uses, in all, since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time of its processes, in microseconds.
    pub cpu_us: u64,
    /// CPUs it may use.
    pub cpus: u32,
    /// Memory of its processes and page cache, in bytes.
    pub memory_bytes: u64,
    /// Of this, page cache that could be dropped at once, in bytes.
    pub cache_bytes: u64,
    /// What it may use, in bytes: its limit, or all there is.
    pub memory_limit_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes read from block devices.
    pub block_read_bytes: u64,
    /// Bytes written to block devices.
    pub block_write_bytes: u64,
    /// Its network interfaces but loopback.
    #[serde(deserialize_with = "interfaces")]
    pub interfaces: Vec<InterfaceUsage>,
}

/// What passed a network interface, as seen from the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceUsage {
    /// Its name.
    pub name: String,
    /// What it received.
    pub receive: Transfers,
    /// What it sent.
    pub transmit: Transfers,
}

/// One direction of an interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfers {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Those that were damaged.
    pub errors: u64,
    /// Those for which there was no room.
    pub dropped: u64,
}

/// One process of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Process id, as the agent sees it.
    pub pid: u32,
    /// Its parent's.
    pub ppid: u32,
    /// Effective user id.
    pub uid: u32,
    /// State letter, as in /proc/PID/stat.
    pub state: char,
    /// CPU time, in milliseconds.
    pub cpu_ms: u64,
    /// Start, in nanoseconds since 1970.
    pub started_ns: i64,
    /// Controlling terminal: `pts/0`, or empty.
    pub tty: String,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Virtual memory, in bytes.
    pub virtual_bytes: u64,
    /// Command line, arguments joined by blanks; the name in brackets if there is none.
    pub command: String,
}
