//! What a container uses, in the shape of Docker's `/containers/ID/stats`, as far as it is known here.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a container uses, in all, since it started. One that does not run uses nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Full id.
    pub id: String,
    /// Its name, with a slash before it.
    pub name: String,
    /// Processes and threads.
    pub pids_stats: Pids,
    /// Time of processors.
    pub cpu_stats: Cpu,
    /// Memory.
    pub memory_stats: Memory,
    /// Disks.
    pub blkio_stats: Disks,
    /// Its network interfaces but loopback, by name. None has a container without a network, and one
    /// in the host's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<String, Interface>,
    /// What its microVM costs, seen from outside: of our own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm: Option<Vm>,
}

/// Processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pids {
    /// How many there are, threads counted.
    pub current: u64,
}

/// Time of processors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cpu {
    /// What was used.
    pub cpu_usage: CpuTime,
    /// Processors that it may use.
    pub online_cpus: u32,
}

/// What was used of processors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuTime {
    /// In nanoseconds.
    pub total_usage: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Of its processes, with page cache.
    pub usage: u64,
    /// What it may use.
    pub limit: u64,
    /// In parts.
    pub stats: MemoryParts,
}

/// Parts of the memory in use, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryParts {
    /// Page cache that could be dropped at once.
    pub inactive_file: u64,
}

impl Memory {
    /// As `docker stats` shows it: what could be dropped at once is not counted as used.
    #[must_use]
    pub const fn used(&self) -> u64 {
        self.usage.saturating_sub(self.stats.inactive_file)
    }
}

/// Disks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disks {
    /// Bytes read and written, of all disks together.
    pub io_service_bytes_recursive: Vec<DiskBytes>,
}

/// Bytes of one kind of transfer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskBytes {
    /// The disk's number: 0 for all of them.
    pub major: u64,
    /// Likewise.
    pub minor: u64,
    /// `read` or `write`.
    pub op: String,
    /// How many.
    pub value: u64,
}

impl Disks {
    /// Of so many bytes.
    #[must_use]
    pub fn of(read: u64, written: u64) -> Self {
        let bytes = [("read", read), ("write", written)].map(|(op, value)| DiskBytes {
            op: op.to_owned(),
            value,
            ..DiskBytes::default()
        });
        Self {
            io_service_bytes_recursive: bytes.into(),
        }
    }

    /// Bytes read and written.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let of = |op: &str| {
            let all = self.io_service_bytes_recursive.iter();
            all.filter(|one| one.op.eq_ignore_ascii_case(op))
                .fold(0u64, |sum, one| sum.saturating_add(one.value))
        };
        (of("read"), of("write"))
    }
}

/// What passed a network interface, as seen from the container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Of them, damaged ones.
    pub rx_errors: u64,
    /// Those for which there was no room.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Those that could not be sent.
    pub tx_errors: u64,
    /// Those for which there was no room.
    pub tx_dropped: u64,
}

impl Stats {
    /// Bytes received and sent on all interfaces.
    #[must_use]
    pub fn network_bytes(&self) -> (u64, u64) {
        self.networks
            .values()
            .fold((0, 0), |(received, sent): (u64, u64), one| {
                (
                    received.saturating_add(one.rx_bytes),
                    sent.saturating_add(one.tx_bytes),
                )
            })
    }
}

/// What a microVM costs, seen from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Vm {
    /// Exits of its virtual CPUs, and interrupts to them, by reason.
    pub events: BTreeMap<String, u64>,
    /// Memory of its process that nobody else shares, in bytes.
    pub host_private: u64,
    /// Resident memory of its process, in bytes.
    pub host_resident: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_dockers_and_sums_are_of_all() {
        let one = Interface {
            rx_bytes: 3,
            tx_bytes: u64::MAX,
            ..Interface::default()
        };
        let stats = Stats {
            networks: ["eth0", "eth1"].map(|name| (name.to_owned(), one)).into(),
            blkio_stats: Disks::of(5, 7),
            memory_stats: Memory {
                usage: 10,
                stats: MemoryParts { inactive_file: 4 },
                ..Memory::default()
            },
            ..Stats::default()
        };
        assert_eq!(stats.network_bytes(), (6, u64::MAX));
        assert_eq!(stats.blkio_stats.bytes(), (5, 7));
        assert_eq!(stats.memory_stats.used(), 6);
        let value = serde_json::to_value(&stats).unwrap();
        assert_eq!(value["networks"]["eth1"]["rx_bytes"], 3);
        assert_eq!(value["memory_stats"]["stats"]["inactive_file"], 4);
        assert_eq!(value["cpu_stats"]["cpu_usage"]["total_usage"], 0);
        assert_eq!(
            value["blkio_stats"]["io_service_bytes_recursive"][1]["op"],
            "write"
        );
        assert_eq!(serde_json::from_value::<Stats>(value).unwrap(), stats);
        let value = serde_json::to_value(Stats::default()).unwrap();
        assert!(value.get("networks").is_none() && value.get("vm").is_none());
    }
}
