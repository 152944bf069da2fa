//! The helper machine's role: PID 1 under QEMU with Debian's cloud kernel.
//!
//! The host side (`engine/src/machine`) builds an initramfs and a command line; this
//! module's side of that contract is:
//!
//! # Initramfs
//!
//! | path | what |
//! |---|---|
//! | `/init` | this program |
//! | `/dev/console`, `/dev/null` | character nodes 5:1 and 1:3 (the kernel and Rust's runtime open them before anything is mounted) |
//! | `/machine/modules` | module file names, one a line, in loading order. Absent: none |
//! | `/machine/NAME.ko` | each module of the list. One that is loaded or built in already (`EEXIST`) is no error; any other failure is reported on the console and passed over, so that a missing driver shows itself where it is needed |
//! | `/machine/config` | the configuration |
//!
//! The role itself comes from the kernel command line: `HULLBOX_ROLE=machine`, which the
//! kernel hands to init as environment.
//!
//! # Configuration
//!
//! Lines of `key=value`, the value as it stands up to the end of its line; unknown keys are
//! passed over.
//!
//! | key | meaning | without it |
//! |---|---|---|
//! | `root` | virtio-fs tag of the host's root: the read-only lower layer of `/` | `host` |
//! | `hostname` | host name | `hullbox-machine` |
//! | `modules` | this kernel's module directory as a path of the host; bound from the share (below the overlay, and before `data`, which may hide the path) at `/lib/modules/RELEASE`, so that `modprobe` works | none |
//! | `volume` (any number) | a path of the host that is written through: the share's own directory is mounted over the overlay at the same path. The share must allow it; the machine's mount alone gives no right | none |
//! | `data` | where the ext4 filesystem on `/dev/vda` is mounted, read-write | no data disk |
//! | `idle_s` | power off after so many seconds without a session or leftover process; 0 is never | 0 |
//!
//! A volume or the data directory that does not exist below is made in the overlay.
//!
//! # What programs find
//!
//! `/` is the host's root with a memory overlay; `/proc`, `/sys`, `/dev` (devtmpfs, with
//! `/dev/kvm` open to all), `/dev/pts`, `/dev/shm`, `/dev/mqueue` and `/run` (tmpfs) are the
//! machine's own; `/sys/fs/cgroup` is cgroup v2 with all controllers enabled for children;
//! programs run in the group `/sys/fs/cgroup/init`. Loopback is up. Every mount of the machine
//! is private, so nothing propagates.
//!
//! # Sessions
//!
//! When all of this stands, the machine connects once to the host (CID 2) at
//! [`MACHINE_READY_PORT`](hullbox_protocol::MACHINE_READY_PORT), sends one `Hello` frame and
//! closes; if the setup failed it sends a `Log` frame with the reason instead and powers off. It
//! listens on [`MACHINE_PORT`](hullbox_protocol::MACHINE_PORT) before it connects, so a host
//! that has seen `Hello` can dial at once.
//!
//! On each accepted connection the agent first makes the kernel forget names (it writes `6` to
//! `/proc/sys/vm/drop_caches`: a file that the host made or replaced since must be seen, and
//! overlayfs never asks again about a name that was not there), then sends `Hello`. From that
//! moment the connection counts as work; the client waits for it, so that a machine about to
//! idle out is noticed before any input is spent. `ProcessSpec.pipes` says which streams are
//! pipes although there is a terminal.
//!
//! Each accepted connection is one trusted session. The client sends `Exec { session: 0 }` (no
//! `Setup`) and then speaks as with any agent: `Data`, `Eof`, `Credit`,
//! `Signal`, `Resize` in, `Started` or `Failed`, `Data`, `Eof`, `Credit`, `Exited` out.
//! `ProcessSpec` means what it means in a container, in the machine's root:
//! - `user`: `UserSpec::Ids` (`Named` is resolved in the host's files);
//! - `cwd`: the absolute path; one that does not exist here is an error, not made;
//! - `argv`, `env`: exact; the program is looked up in the spec's PATH;
//! - `terminal`: a pseudo-terminal of the machine, controlling, of its own session;
//! - a signal goes to the process group of the program, as from a terminal's keyboard.
//!
//! When the program ends, `Exited` follows as soon as its output is drained; descendants that
//! hold the output open hold it up for two seconds at most and are then left alone.
//! When the connection ends first, the program's process group gets SIGHUP, and SIGKILL two
//! seconds later. Processes that left the group (`setsid`: detached monitors) live on and
//! are reaped; as long as one lives the machine is not idle.
//!
//! A `Shutdown` frame on any connection stops the machine in an orderly way: SIGTERM to all,
//! SIGKILL after five seconds, sync, unmount the data disk, ACPI power-off (QEMU ends).
//! The same happens after `idle_s`.

/// Runs the machine.
///
/// # Errors
/// Why it cannot go on, in words for the console.
pub fn run() -> Result<(), String> {
    Err("not yet".into())
}
