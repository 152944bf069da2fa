//! What runs in every container that is measured, and with how much memory: the same for all contenders.

/// Path of the probe in every root filesystem.
pub(crate) const PROBE: &str = "/probe";
/// Memory limit of each container, or memory of its VM, in MiB.
pub(crate) const MEMORY_MIB: u64 = 128;

/// Argument of the probe: write a line and exit.
pub(crate) const HELLO: &str = "hello";
/// Argument of the probe: wait until it is killed.
pub(crate) const HOLD: &str = "hold";
/// Name of a bundle, and of a snapshot: what [`HOLD`] runs in, with a network.
pub(crate) const NETWORKED: &str = "networked";
/// Argument of the probe: read standard input to its end and print how much that was.
pub(crate) const DRAIN: &str = "drain";
