//! Running a network in this process: one thread moves frames, and another answers on control connections.

use crate::jail::{self, Ends};
use hullbox_net::{Control, NetError, Network, NetworkConfig};
use std::io;
use std::sync::mpsc::channel;
use std::thread;

/// The stack of the thread that answers on control connections, in bytes.
const STACK_BYTES: usize = 128 * 1024;

/// A failure in words for whoever started the process.
pub fn words(what: &str) -> impl Fn(io::Error) -> String {
    move |error| format!("{what}: {error}")
}

/// Gives up all rights and runs a network until `attend`, which commands it from a thread of its own, returns.
/// What it returns is kept until the process has ended.
///
/// # Errors
/// In words: why the network cannot be, or went wrong.
pub fn run<T: Send + 'static>(
    config: NetworkConfig,
    ends: Ends,
    attend: impl FnOnce(&Control) -> T + Send + 'static,
) -> Result<(), String> {
    let failed = |error: NetError| hullbox_host::error::chain(&error);
    let (network, commands) = Network::new(config).map_err(failed)?;
    jail::give_up(ends).map_err(words("cannot give up privileges"))?;
    let (locked_in, other) = channel();
    let filtered = words("cannot filter system calls");
    thread::Builder::new()
        .name("control".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            // The network's thread waits for it.
            if locked_in.send(jail::lock_in(ends)).is_err() {
                return;
            }
            let _kept = attend(&commands);
            // It may have ended by itself.
            let _ = commands.stop();
            // The process ends with the other thread; this one's own end takes calls that nothing else does.
            loop {
                thread::park();
            }
        })
        .map_err(words("cannot start a thread"))?;
    match other.recv() {
        Ok(result) => result.map_err(&filtered)?,
        Err(_) => return Err("the control thread has ended".to_owned()),
    }
    // Members are added by the other thread, and that is answered by this one: no frame is read before.
    jail::lock_in(ends).map_err(filtered)?;
    network.run().map_err(failed)
}
