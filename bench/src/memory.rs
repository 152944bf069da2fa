//! Memory of processes, as /proc/PID/smaps accounts for it.

use std::fs;

/// Mappings without a file are guest memory from this size on; nothing else of ours is as large.
const LARGE: u64 = 16 << 20;

/// Resident bytes of one instance's processes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// Mapped by one process only.
    pub private_bytes: u64,
    /// Mapped by others too, or of a file that others may map.
    pub shared_bytes: u64,
    /// Part of the above: a guest's memory.
    pub guest_bytes: u64,
}

impl Resident {
    /// The sum of these processes. One that has exited counts nothing.
    #[must_use]
    pub fn of(pids: &[i32]) -> Self {
        let mut sum = Self::default();
        for pid in pids {
            if let Ok(smaps) = fs::read_to_string(format!("/proc/{pid}/smaps")) {
                sum.add(Self::parse(&smaps));
            }
        }
        sum
    }

    fn add(&mut self, other: Self) {
        self.private_bytes += other.private_bytes;
        self.shared_bytes += other.shared_bytes;
        self.guest_bytes += other.guest_bytes;
    }

    /// From the text of `/proc/PID/smaps`. A clean page of a file counts as shared even while
    /// nobody else maps it: it is the page cache's, which has it once for everybody.
    fn parse(smaps: &str) -> Self {
        let mut resident = Self::default();
        let (mut guest, mut file) = (false, false);
        for line in smaps.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            match fields[..] {
                [range, _, _, _, _, ref name @ ..] if is_range(range) => {
                    let name = name.first().copied().unwrap_or("");
                    guest = is_guest(name, length(range));
                    file = name.starts_with('/');
                }
                [key, kib, "kB"] => {
                    let bytes = kib.parse::<u64>().unwrap_or(0).saturating_mul(1024);
                    match key {
                        "Private_Clean:" if file => resident.shared_bytes += bytes,
                        "Private_Clean:" | "Private_Dirty:" | "Private_Hugetlb:" => {
                            resident.private_bytes += bytes;
                        }
                        "Shared_Clean:" | "Shared_Dirty:" | "Shared_Hugetlb:" => {
                            resident.shared_bytes += bytes;
                        }
                        "Rss:" if guest => resident.guest_bytes += bytes,
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        resident
    }
}

fn is_range(text: &str) -> bool {
    text.split_once('-').is_some_and(|(start, end)| {
        let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
        hex(start) && hex(end)
    })
}

fn length(range: &str) -> u64 {
    let address = |text| u64::from_str_radix(text, 16).unwrap_or(0);
    range.split_once('-').map_or(0, |(start, end)| {
        address(end).saturating_sub(address(start))
    })
}

/// Guest memory is the one large anonymous mapping, or what is mapped into it: the kernel's image,
/// or a template's memory.
fn is_guest(name: &str, bytes: u64) -> bool {
    let mapped = ["/vmlinux", "/initramfs", "/template", "/snapshot"];
    match name {
        "" | "[anon:guest]" => bytes >= LARGE,
        name => name.starts_with('/') && mapped.iter().any(|part| name.contains(part)),
    }
}

/// Memory that the host has available (`MemAvailable` of `/proc/meminfo`).
#[must_use]
pub fn available_bytes() -> u64 {
    meminfo("MemAvailable:")
}

/// All the memory the host has.
#[must_use]
pub fn total_bytes() -> u64 {
    meminfo("MemTotal:")
}

fn meminfo(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    text.lines()
        .find_map(|line| {
            line.strip_prefix(key)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .map_or(0, |kib: u64| kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
00400000-00900000 r-xp 00000000 fe:00 1 /usr/local/bin/hullbox
Rss:                 900 kB
Shared_Clean:        500 kB
Private_Clean:       400 kB
Private_Dirty:         0 kB
00900000-00a00000 rw-p 00000000 fe:00 1 /usr/local/bin/hullbox
Rss:                  60 kB
Private_Dirty:        60 kB
7f0000000000-7f0008000000 rw-p 00000000 00:00 0
Rss:               30000 kB
Private_Dirty:     30000 kB
7f1000000000-7f1000100000 rw-p 00000000 00:00 0
Rss:                 100 kB
Private_Dirty:       100 kB
VmFlags: rd wr mr mw me ac
";

    #[test]
    fn resident_memory_is_split_by_whose_it_is() {
        assert_eq!(
            Resident::parse(SMAPS),
            Resident {
                private_bytes: 30_160 << 10,
                shared_bytes: 900 << 10,
                guest_bytes: 30_000 << 10,
            }
        );
        let own = Resident::of(&[rustix::process::getpid().as_raw_nonzero().get()]);
        assert!(own.private_bytes > 0 && own.guest_bytes < own.private_bytes);
        assert!(available_bytes() > 0 && available_bytes() <= total_bytes());
    }
}
