//! What running containers use.

use super::talk::unexpected;
use super::{ContainerError, Engine};
use crate::monitor::control::{Answer, Command, VmUsage};
use crate::state::Record;
use hullbox_backend::network::Network;
use hullbox_model::stats::{Cpu, CpuTime, Disks, Interface, Memory, MemoryParts, Pids, Stats, Vm};
use hullbox_protocol::{InterfaceUsage, Request, Usage};
use std::collections::BTreeMap;

impl Engine {
    /// What a container uses, and what its microVM costs.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn stats(&self, record: &Record) -> Result<Stats, ContainerError> {
        match self.query(record, &Command::Ask(Request::Usage))? {
            Answer::Usage(usage, vm) => Ok(stats(record, *usage, vm)),
            other => Err(unexpected(other)),
        }
    }
}

fn stats(record: &Record, usage: Usage, vm: Option<VmUsage>) -> Stats {
    Stats {
        id: record.id.clone(),
        name: format!("/{}", record.name),
        pids_stats: Pids {
            current: usage.pids,
        },
        cpu_stats: Cpu {
            cpu_usage: CpuTime {
                total_usage: usage.cpu_us.saturating_mul(1000),
            },
            online_cpus: usage.cpus,
        },
        memory_stats: Memory {
            usage: usage.memory_bytes,
            limit: usage.memory_limit_bytes,
            stats: MemoryParts {
                inactive_file: usage.cache_bytes,
            },
        },
        blkio_stats: Disks::of(usage.block_read_bytes, usage.block_write_bytes),
        networks: match &record.spec.network {
            // What a guest has without a network is not the container's, and what the host has is
            // everybody's.
            Network::None | Network::Host => BTreeMap::new(),
            _ => usage.interfaces.into_iter().map(interface).collect(),
        },
        vm: vm.map(|vm| Vm {
            events: vm.events.into_iter().collect(),
            host_private: vm.host_private_bytes,
            host_resident: vm.host_resident_bytes,
        }),
    }
}

fn interface(usage: InterfaceUsage) -> (String, Interface) {
    let (receive, transmit) = (usage.receive, usage.transmit);
    let interface = Interface {
        rx_bytes: receive.bytes,
        rx_packets: receive.packets,
        rx_errors: receive.errors,
        rx_dropped: receive.dropped,
        tx_bytes: transmit.bytes,
        tx_packets: transmit.packets,
        tx_errors: transmit.errors,
        tx_dropped: transmit.dropped,
    };
    (usage.name, interface)
}
