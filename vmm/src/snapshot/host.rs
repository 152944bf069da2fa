//! What of a host a snapshot depends on.

use std::fs::File;
use std::io::{self, Read};
use std::sync::OnceLock;

/// Lines of a processor in /proc/cpuinfo that say what it is, and not what it does right now.
const CPU_LINES: [&str; 7] = [
    "vendor_id",
    "cpu family",
    "model",
    "model name",
    "stepping",
    "microcode",
    "flags",
];
/// More than any kernel prints about one processor.
const MAX_CPU_TEXT: u64 = 16 << 10;

/// The kernel, its first processor and this program's version, as a text that is the same as long
/// as they are.
///
/// # Errors
/// /proc cannot be read.
pub fn host_identity() -> io::Result<&'static str> {
    // It outlives this process, and a start asks twice: which template, and whether it fits.
    static IDENTITY: OnceLock<String> = OnceLock::new();
    match IDENTITY.get() {
        Some(identity) => Ok(identity),
        None => read_identity().map(|identity| &**IDENTITY.get_or_init(|| identity)),
    }
}

fn read_identity() -> io::Result<String> {
    let system = rustix::system::uname();
    let mut text = format!(
        "{} {}\nhullbox {}\n",
        system.release().to_string_lossy(),
        system.version().to_string_lossy(),
        env!("CARGO_PKG_VERSION"),
    );
    let mut cpu = Vec::new();
    // One read gives the first processor and perhaps some more.
    let mut cpuinfo = File::open("/proc/cpuinfo")?.take(MAX_CPU_TEXT);
    let mut chunk = [0; 4096];
    while !cpu.windows(2).any(|pair| pair == b"\n\n") {
        let count = cpuinfo.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        cpu.extend_from_slice(&chunk[..count]);
    }
    text.push_str(&of_first_cpu(&String::from_utf8_lossy(&cpu)));
    Ok(text)
}

fn of_first_cpu(cpuinfo: &str) -> String {
    let first = cpuinfo.split("\n\n").next().unwrap_or_default();
    first
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| CPU_LINES.contains(&name.trim()))
        .map(|(name, value)| format!("{}:{value}\n", name.trim()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_what_it_is_and_not_how_fast_it_runs() {
        let text = "processor\t: 0\nmodel name\t: A\ncpu MHz\t\t: 1\nflags\t\t: fpu\n\n\
                    processor\t: 1\nmodel name\t: B\n";
        assert_eq!(of_first_cpu(text), "model name: A\nflags: fpu\n");
        assert_eq!(read_identity().unwrap(), read_identity().unwrap());
        assert_eq!(host_identity().unwrap(), read_identity().unwrap());
    }
}
