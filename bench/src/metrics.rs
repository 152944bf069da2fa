//! The rows of a report: what is measured, in which unit, and what it means to somebody who
//! chooses between a VM and a container.

use serde::{Deserialize, Serialize};

/// A group of rows that are measured together; what `--probe` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Probe {
    /// From the command to the first output, to its end, and to the last trace of it.
    Start,
    /// A program started in a running container.
    Exec,
    /// Memory of one idle instance.
    Memory,
    /// Many instances at once.
    Density,
    /// System calls and page faults.
    Kernel,
    /// Fork, exec and wait.
    Process,
    /// Work in registers.
    Cpu,
    /// Transfers on the writable layer.
    Disk,
    /// Many small files.
    Files,
    /// Standard streams.
    Streams,
    /// Connections, answers and transfers over a network.
    Network,
}

impl Probe {
    /// All, in the report's order.
    pub const ALL: [Self; 11] = [
        Self::Start,
        Self::Exec,
        Self::Memory,
        Self::Density,
        Self::Kernel,
        Self::Process,
        Self::Cpu,
        Self::Disk,
        Self::Files,
        Self::Streams,
        Self::Network,
    ];

    /// As it is typed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Exec => "exec",
            Self::Memory => "memory",
            Self::Density => "density",
            Self::Kernel => "kernel",
            Self::Process => "process",
            Self::Cpu => "cpu",
            Self::Disk => "disk",
            Self::Files => "files",
            Self::Streams => "streams",
            Self::Network => "network",
        }
    }
}

/// What samples are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Nanoseconds: the fewer the better.
    #[serde(rename = "ns")]
    Nanoseconds,
    /// Bytes taken: the fewer the better.
    #[serde(rename = "bytes")]
    Bytes,
    /// Bytes a second: the more the better.
    #[serde(rename = "bytes/s")]
    BytesPerSecond,
}

impl Unit {
    /// Whether less is better.
    #[must_use]
    pub const fn lower_is_better(self) -> bool {
        !matches!(self, Self::BytesPerSecond)
    }
}

/// A row.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// For scripts; stays. Its part before the dot is the probe's name.
    pub id: &'static str,
    /// Measured by.
    pub probe: Probe,
    /// For people.
    pub title: &'static str,
    /// Of its samples.
    pub unit: Unit,
    /// What it means.
    pub meaning: &'static str,
}

impl Metric {
    /// Whether a ratio means something: not where one side has nothing at all.
    #[must_use]
    pub fn is_compared(&self) -> bool {
        !matches!(self.id, "start.cleanup" | "memory.guest")
    }
}

const fn row(
    id: &'static str,
    probe: Probe,
    title: &'static str,
    unit: Unit,
    meaning: &'static str,
) -> Metric {
    Metric {
        id,
        probe,
        title,
        unit,
        meaning,
    }
}

use Probe::{Cpu, Density, Disk, Exec, Files, Kernel, Memory, Network, Process, Start, Streams};
use Unit::{Bytes, BytesPerSecond, Nanoseconds};

/// All rows, in the report's order.
pub const METRICS: [Metric; 32] = [
    row(
        "start.output",
        Start,
        "start to first output",
        Nanoseconds,
        "From typing the command to the first byte the program inside says. It is what somebody \
         waits for who runs one short command in a fresh container.",
    ),
    row(
        "start.exit",
        Start,
        "start to exit",
        Nanoseconds,
        "The whole command, until the prompt is back. For build steps, tests and functions that run \
         once and go, this is the price of a container, paid each time.",
    ),
    row(
        "start.cleanup",
        Start,
        "clean-up after exit",
        Nanoseconds,
        "How long processes of the container still work after the command has returned. Nobody \
         waits for it, but the next container shares the processors with it.",
    ),
    row(
        "exec.exit",
        Exec,
        "exec in a running container",
        Nanoseconds,
        "Starting one more program in a container that already runs: health checks, shells, \
         cron-like jobs. Here a VM does not boot, so isolation costs a message and an answer.",
    ),
    row(
        "memory.private",
        Memory,
        "memory of its own",
        Bytes,
        "Memory that the host gives to one idle instance alone: it is what each further instance \
         costs. A VM's part includes its guest's memory as far as it was touched; a namespace \
         container's kernel memory is the host's own and not counted here (see the next group).",
    ),
    row(
        "memory.shared",
        Memory,
        "memory shared with others",
        Bytes,
        "Pages of programs and files that this instance uses and others may use too. The host \
         holds them once, however many instances there are.",
    ),
    row(
        "memory.guest",
        Memory,
        "guest memory that is there",
        Bytes,
        "Part of the two above: the VM's RAM that the host really holds. It is at most what -m allows, and grows as the guest \
         touches more; a namespace container has none.",
    ),
    row(
        "density.start",
        Density,
        "each start in a growing crowd",
        Nanoseconds,
        "Starting instances in the background one after the other while all the earlier ones stay. \
         If this grows with their number, the crowd itself costs something.",
    ),
    row(
        "density.memory",
        Density,
        "host memory for each of a crowd",
        Bytes,
        "How much less memory the host has available, for each instance of a crowd: everything \
         counts here, the kernel's own structures too. It says how many fit on a machine. Next to \
         nothing is lost in what the machine's memory does besides.",
    ),
    row(
        "density.exec",
        Density,
        "exec in each of a crowd",
        Nanoseconds,
        "Every one of the crowd is asked to start a program and has to answer. Idle neighbours \
         should cost nothing; timers in idle guests show here.",
    ),
    row(
        "kernel.syscall",
        Kernel,
        "a system call",
        Nanoseconds,
        "The cheapest call into the kernel. In a VM it ends in the guest's kernel and the VM boundary is \
         not crossed; in a container a seccomp filter may look at each call.",
    ),
    row(
        "kernel.clock",
        Kernel,
        "reading the clock",
        Nanoseconds,
        "Programs that log or trace read the clock all the time. It is cheap where the kernel \
         exports a clock that needs no call, and a system call where it cannot.",
    ),
    row(
        "kernel.first_touch",
        Kernel,
        "first touch of a page",
        Nanoseconds,
        "Writing to a fresh page of memory. In a VM the first access may exit to the host, because \
         the host has to find the memory too: programs that grow quickly feel it.",
    ),
    row(
        "kernel.touch",
        Kernel,
        "further touch of a page",
        Nanoseconds,
        "The same in memory that the instance has had before. The guest's kernel serves this \
         alone; what remains of a difference is the cost of nested page tables.",
    ),
    row(
        "process.spawn",
        Process,
        "fork, exec and wait",
        Nanoseconds,
        "Starting one small program from another: shell scripts, configure scripts and compilers \
         do it thousands of times. It is page-table work, which nested paging makes dearer.",
    ),
    row(
        "cpu.work",
        Cpu,
        "work in registers",
        Nanoseconds,
        "Arithmetic that needs no kernel and no memory: isolation should not be felt. A difference \
         means that the instance shares its processor with something else.",
    ),
    row(
        "disk.write",
        Disk,
        "sequential writes",
        BytesPerSecond,
        "Large writes to the writable layer, past the page cache of the instance's kernel where \
         its filesystem can. A VM's go through a virtual disk to a file of the host, and may stay \
         in the host's page cache.",
    ),
    row(
        "disk.read",
        Disk,
        "sequential reads",
        BytesPerSecond,
        "Large reads of the same file in the same way. What the host still has in its page cache \
         does not come from a disk.",
    ),
    row(
        "disk.random_read",
        Disk,
        "a random read of 4 KiB",
        Nanoseconds,
        "Small reads one after the other, as databases do them. Each crosses the VM boundary once and \
         back: here the distance is felt most.",
    ),
    row(
        "disk.random_write",
        Disk,
        "a random write of 4 KiB",
        Nanoseconds,
        "Small writes one after the other, not synchronised. Databases add a flush to some of them, \
         whose price is that of the host's disk.",
    ),
    row(
        "files.untar",
        Files,
        "making a small file",
        Nanoseconds,
        "What unpacking an archive does for each file: create, write 1 KiB, set mode and time. A \
         VM's own kernel serves it from its own cache.",
    ),
    row(
        "files.find",
        Files,
        "finding a small file",
        Nanoseconds,
        "What find, git status and rm -r do for each file: read directories, ask for each name. It \
         is served from caches in all of them.",
    ),
    row(
        "streams.output",
        Streams,
        "standard output",
        BytesPerSecond,
        "How fast what the program says arrives at the command line. In a VM every byte crosses \
         the boundary: large pipes through a container feel it, logs do not.",
    ),
    row(
        "streams.input",
        Streams,
        "standard input",
        BytesPerSecond,
        "The other direction: what is piped into a container, as with tar or a database's dump.",
    ),
    row(
        "network.connect",
        Network,
        "a connection",
        Nanoseconds,
        "A TCP connection to a server on the host, one after the other. Programs that keep none open \
         pay it for each request.",
    ),
    row(
        "network.connect_8",
        Network,
        "a connection, 8 at once",
        Nanoseconds,
        "The same by eight threads at once: the time in which they make one together. What serves \
         one connection after the other shows here.",
    ),
    row(
        "network.request",
        Network,
        "a question and its answer",
        Nanoseconds,
        "64 bytes there and 64 back over an open connection, one after the other: a query of a \
         database, a look into a cache. It is made of wake-ups, on each side of the boundary.",
    ),
    row(
        "network.request_8",
        Network,
        "a question, 8 at once",
        Nanoseconds,
        "The same over eight connections at once: the time in which all together get one answer. \
         Under load wake-ups are shared.",
    ),
    row(
        "network.out",
        Network,
        "sending, 1 flow",
        BytesPerSecond,
        "One connection, from the container to the host, until all has arrived. Large segments \
         decide it.",
    ),
    row(
        "network.out_8",
        Network,
        "sending, 8 flows",
        BytesPerSecond,
        "Eight connections at once, from the container to the host, together.",
    ),
    row(
        "network.in",
        Network,
        "receiving, 1 flow",
        BytesPerSecond,
        "One connection, from the host to the container: downloads, images, backups that are read.",
    ),
    row(
        "network.in_8",
        Network,
        "receiving, 8 flows",
        BytesPerSecond,
        "Eight connections at once, from the host to the container, together.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_named_by_their_probes_and_explained() {
        let mut ids: Vec<_> = METRICS.iter().map(|metric| metric.id).collect();
        for metric in METRICS {
            let (probe, _) = metric.id.split_once('.').unwrap();
            assert_eq!(probe, metric.probe.name());
            assert!(metric.meaning.len() > 40, "{}", metric.id);
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), METRICS.len());
        for probe in Probe::ALL {
            assert!(METRICS.iter().any(|metric| metric.probe == probe));
        }
    }
}
