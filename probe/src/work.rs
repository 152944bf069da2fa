//! Work of processor, memory and kernel entries.

use crate::figures::{Figures, nanos};
use std::hint::black_box;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

const PAGE_BYTES: usize = 4096;

/// What a page costs when it is touched: the first time, when a VM's host may have to find memory
/// for it, and again in a new mapping, when it has it.
pub(crate) fn memory(mib: u64) -> io::Result<Figures> {
    let bytes = usize::try_from(mib << 20).map_err(io::Error::other)?;
    let pages = (bytes / PAGE_BYTES) as u64;
    let first = touch(bytes);
    let second = touch(bytes);
    Ok(vec![
        ("pages", pages),
        ("first_touch_ns", first),
        ("touch_ns", second),
    ])
}

/// Maps, writes a byte into each page, unmaps: the time of the writes. A vector of zeros this size
/// is a mapping of its own, whose pages do not exist before they are written.
fn touch(bytes: usize) -> u64 {
    let mut memory = vec![0u8; bytes];
    let start = Instant::now();
    for page in memory.chunks_mut(PAGE_BYTES) {
        if let Some(byte) = page.first_mut() {
            *byte = black_box(1);
        }
    }
    let took = nanos(start.elapsed());
    black_box(&memory);
    took
}

/// The cheapest system call there is, and the clock as programs read it.
pub(crate) fn syscalls(calls: u64) -> Figures {
    let start = Instant::now();
    for _ in 0..calls {
        black_box(rustix::process::getppid());
    }
    let took = nanos(start.elapsed());
    let start = Instant::now();
    for _ in 0..calls {
        black_box(Instant::now());
    }
    let clock = nanos(start.elapsed());
    vec![
        ("calls", calls),
        ("syscalls_ns", took),
        ("clock_reads_ns", clock),
    ]
}

/// Forks, execs this program, and waits for its end.
pub(crate) fn spawn(count: u64) -> io::Result<Figures> {
    let own = std::env::current_exe()?;
    let uid = rustix::process::getuid().as_raw();
    let start = Instant::now();
    for _ in 0..count {
        // A user is set so that the standard library forks: without it, it would vfork.
        let status = Command::new(&own)
            .arg("noop")
            .uid(uid)
            .stdin(Stdio::null())
            .status()?;
        if !status.success() {
            return Err(io::Error::other(format!("noop ended with {status}")));
        }
    }
    let took = nanos(start.elapsed());
    Ok(vec![("spawns", count), ("spawns_ns", took)])
}

/// Integer work in registers: shifts, exclusive ors and multiplications that depend on each other.
pub(crate) fn cpu(million: u64) -> Figures {
    let mut state = black_box(0x9e37_79b9_7f4a_7c15_u64);
    let mut sum = 0u64;
    let start = Instant::now();
    for _ in 0..million * 1_000_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        sum = sum.wrapping_add(state.wrapping_mul(0x2545_f491_4f6c_dd1d));
    }
    let took = nanos(start.elapsed());
    black_box(sum);
    vec![("million_rounds", million), ("rounds_ns", took)]
}
