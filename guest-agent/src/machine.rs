//! The helper machine's side: the same agent as init of one long-lived VM whose root is the
//! host's filesystem, serving sessions until nobody needs it.
//!
//! # Contract with the host (`hullbox-engine`, `machine`)
//!
//! The kernel is a distribution's: virtio over PCI, most drivers as modules, ACPI. The agent runs
//! in this role when its environment says `HULLBOX_ROLE=machine` ([`AgentEnv::ROLE`], from the
//! kernel command line). The initramfs holds, besides `/init`:
//!
//! - `/machine/modules`: file names, one a line, of kernel modules in `/machine/`, uncompressed,
//!   in an order that satisfies their dependencies. Load each (`finit_module`); one that is there
//!   already is fine, one that fails is logged and skipped.
//! - `/machine/config`: lines `key=value`; the value is the rest of the line, any bytes but
//!   newline. Paths are absolute and without `..`. Unknown keys are ignored. Keys:
//!
//! | key | times | meaning |
//! |---|---|---|
//! | `root` | 1 | tag of the virtio-fs share with the host's root |
//! | `hostname` | 1 | host name |
//! | `modules` | 0–1 | directory of the host: bind it at `/lib/modules/<uname -r>`, so that modprobe works |
//! | `data` | 0–1 | mount `/dev/vda` (ext4) here, over whatever the host has there |
//! | `volume` | 0– | directory or file of the host that is written through: bind it from the share |
//! | `tmpfs` | 0– | a fresh tmpfs here, mode 0755 |
//! | `idle_s` | 1 | power off after this long without work; 0 is never |
//!
//! Root: an overlay of the share (below) and a tmpfs, so writes go to memory. On it the usual
//! /proc, /sys, /dev (with pts, shm, mqueue), a cgroup2 with all controllers delegated, an empty
//! tmpfs on /run, and then, each made if missing: `modules`, `volume`, `tmpfs`, `data` in that
//! order (the sources of `modules` and `volume` are taken from the share itself, below the
//! overlay, because `data` may hide them). PID 1 itself enters this root (so that the kernel's
//! own calls of modprobe find it). `/dev/kvm` gets mode 0666, `lo` is up, `net.ipv4.ip_forward`
//! stays as it is.
//!
//! Sessions: the agent listens on vsock port [`MACHINE_PORT`]. Then it dials the host's
//! [`MACHINE_READY_PORT`] once, sends one `Hello` and closes: that is the "up" event. If set-up
//! fails it writes the reason to the console (one line that starts with `hullbox-agent: `) and
//! powers off. On each accepted connection it first drops what the kernel remembers of names
//! (writes 6 to `/proc/sys/vm/drop_caches`: a file that the host made or replaced since the last
//! command must be seen, and overlayfs never asks again about a name that was not there), then
//! sends `Hello`; the connection counts as work from that moment. The host sends one `Exec`
//! (session 0; no `Setup`), then streams and signals as in a container. `ProcessSpec.stdin` and
//! `.terminal` and `.pipes` apply; PATH is looked up in the new root. Signals go to the
//! session's process group. After `Exited` the connection is closed. When the host closes it
//! first, the session's process group gets SIGHUP and SIGCONT, and SIGKILL after a grace of 2 s.
//! Processes that left their session (a container's monitor) live on, are reaped by the agent and
//! count as work. `Shutdown` on any connection, or idling, ends everything: SIGTERM to all,
//! SIGKILL after 5 s, sync, unmount `data`, power off (ACPI).
//!
//! [`AgentEnv::ROLE`]: hullbox_protocol::AgentEnv::ROLE
//! [`MACHINE_PORT`]: hullbox_protocol::MACHINE_PORT
//! [`MACHINE_READY_PORT`]: hullbox_protocol::MACHINE_READY_PORT
