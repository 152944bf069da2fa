//! What `hullbox bench` runs behind every wall: the same file in each.
//!
//! Each subcommand does one kind of work and prints one JSON line of raw figures, their units in
//! their names. Time is the guest's own monotonic clock, read around a whole batch of work, so
//! that the clock's cost does not count.
#![forbid(unsafe_code)]

mod figures;
mod files;
mod network;
mod work;

use figures::{Figures, nanos, print};
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["hold"] => hold(),
        ["noop"] => Ok(None),
        ["hello"] => Ok(Some(vec![("hello", 1)])),
        ["emit", mib] => number(mib).and_then(emit),
        ["drain"] => drain().map(Some),
        ["memory", mib] => number(mib).and_then(work::memory).map(Some),
        ["syscalls", calls] => number(calls).map(|calls| Some(work::syscalls(calls))),
        ["spawn", count] => number(count).and_then(work::spawn).map(Some),
        ["cpu", million] => number(million).map(|million| Some(work::cpu(million))),
        ["disk", mib, operations] => both(mib, operations)
            .and_then(|(mib, operations)| files::disk(mib, operations))
            .map(Some),
        ["network", address, port, millis] => number(millis)
            .and_then(|millis| network::network(address, port, millis))
            .map(Some),
        ["files", count] => number(count).and_then(files::metadata).map(Some),
        _ => Err(io::Error::other(
            "usage: probe hold|noop|hello|drain|emit MIB|memory MIB|syscalls N|spawn N|cpu \
             MILLIONS|disk MIB N|files N|network ADDRESS|gateway PORT MILLISECONDS",
        )),
    };
    match done.and_then(|figures| figures.map_or(Ok(()), |figures| print(&figures))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody to tell of failing to tell.
            let _ = writeln!(io::stderr(), "probe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number(text: &str) -> io::Result<u64> {
    text.parse()
        .ok()
        .filter(|number| (1..=1_000_000_000).contains(number))
        .ok_or_else(|| io::Error::other(format!("{text:?} is no number of work")))
}

fn both(first: &str, second: &str) -> io::Result<(u64, u64)> {
    Ok((number(first)?, number(second)?))
}

/// Waits to be ended, as a container's first process; a signal is not needed where there is input.
fn hold() -> io::Result<Option<Figures>> {
    print(&vec![("holding", 1)])?;
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Bytes that neither end can guess short: a counter in every eight.
fn emit(mib: u64) -> io::Result<Option<Figures>> {
    let mut block = vec![0u8; 64 << 10];
    let mut counter = 0u64;
    let mut out = io::stdout().lock();
    for _ in 0..mib * 16 {
        for word in block.chunks_exact_mut(8) {
            word.copy_from_slice(&counter.to_le_bytes());
            counter += 1;
        }
        out.write_all(&block)?;
    }
    out.flush()?;
    Ok(None)
}

/// Reads standard input to its end.
fn drain() -> io::Result<Figures> {
    let mut block = vec![0u8; 64 << 10];
    let (mut bytes, mut sum) = (0u64, 0u64);
    let mut input = io::stdin().lock();
    let mut start = None;
    loop {
        let got = input.read(&mut block)?;
        // The first bytes may have waited while this program started.
        let start = start.get_or_insert_with(Instant::now);
        if got == 0 {
            return Ok(vec![
                ("drained_bytes", bytes),
                ("drained_sum", sum),
                ("drained_ns", nanos(start.elapsed())),
            ]);
        }
        bytes += got as u64;
        sum = block
            .iter()
            .take(got)
            .fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)));
    }
}
