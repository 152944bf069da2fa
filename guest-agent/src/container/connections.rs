//! A copy's TCP connections, which were its original's.
//!
//! Whoever is at their other ends does not know the copy, and its addresses may be others than theirs: then
//! the kernel can send nothing from them, and would tell the workload so after a quarter of an hour, or never
//! if that waits to be sent something. So they are reset here, where the workload sees it at once.

use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Both families' sockets of the calling thread's network namespace. /proc has to be mounted.
const TABLES: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];

/// States of the kernel (`net/tcp_states.h`) in which a socket has another end and belongs to somebody:
/// established, SYN sent, both FIN waits, close wait, last ACK and closing.
const CONNECTED: [u8; 7] = [1, 2, 4, 5, 8, 9, 11];

/// Sockets by inode.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Connections(BTreeSet<u64>);

impl Connections {
    /// Those with other hosts. Over the loopback a workload speaks with itself alone, and goes on.
    pub(super) fn with_others() -> Self {
        // Without IPv6 there is one table.
        let texts = TABLES
            .iter()
            .filter_map(|path| fs::read_to_string(path).ok());
        let inodes = texts.flat_map(|text| text.lines().filter_map(inode).collect::<Vec<_>>());
        Self(inodes.collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Resets them. The other ends are told as far as the interface is up. What cannot be reset (its last process
    /// has just ended) is nobody's.
    pub(super) fn reset(mut self) {
        for process in numbers(Path::new("/proc")) {
            if self.is_empty() {
                return;
            }
            self.reset_of(process);
        }
    }

    fn reset_of(&mut self, process: i32) {
        let dir = format!("/proc/{process}/fd");
        for number in numbers(Path::new(&dir)) {
            let inode = fs::read_link(format!("{dir}/{number}"))
                .ok()
                .and_then(|link| socket(link.to_str()?));
            if inode.is_some_and(|inode| self.0.contains(&inode))
                && let Some(socket) = borrow(process, number)
                && rustix::net::connect_unspec(&socket).is_ok()
            {
                inode.map(|inode| self.0.remove(&inode));
            }
        }
    }
}

/// The socket of a line of a table, if it is connected to another host.
fn inode(line: &str) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let state = u8::from_str_radix(fields.nth(1)?, 16).ok()?;
    let inode = fields.nth(5)?.parse().ok()?;
    // Those of nobody have none.
    let counts = CONNECTED.contains(&state) && inode != 0 && !is_loopback(local)?;
    counts.then_some(inode)
}

/// Whether an address with its port, as the kernel prints it, is the loopback's.
fn is_loopback(text: &str) -> Option<bool> {
    let (address, _) = text.split_once(':')?;
    let mut bytes = [0; 16];
    let mut words = bytes.chunks_exact_mut(4);
    for begin in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(begin..begin + 8)?, 16).ok()?;
        words.next()?.copy_from_slice(&word.to_ne_bytes());
    }
    Some(match address.len() {
        8 => bytes[0] == 127,
        _ => {
            let address = std::net::Ipv6Addr::from(bytes);
            let mapped = address.to_ipv4_mapped();
            address.is_loopback() || mapped.is_some_and(|address| address.is_loopback())
        }
    })
}

/// The inode in a link such as `socket:[123]`.
fn socket(link: &str) -> Option<u64> {
    let number = link.strip_prefix("socket:[")?.strip_suffix(']')?;
    number.parse().ok()
}

/// The names in a directory that are numbers.
fn numbers(dir: &Path) -> Vec<i32> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    names.collect()
}

fn borrow(process: i32, number: i32) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(process)?, PidfdFlags::empty()).ok()?;
    pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::process::{Command, Stdio};

    #[test]
    fn connections_with_others_are_found_in_the_kernels_table() {
        let line = |local: &str, state: &str, inode: u64| {
            format!(
                "   1: {local}:1F90 0802000A:9C40 {state} 00000000:00000000 02:000001C9 00000000     0        0 \
                 {inode} 2 0000000000000000 20 4 30 10 -1"
            )
        };
        // Where the machine's words have their first byte last, the kernel prints it so.
        let own = format!("{:08X}", u32::from_ne_bytes([10, 0, 2, 2]));
        let loopback = format!("{:08X}", u32::from_ne_bytes([127, 0, 0, 1]));
        let [unique, mapped] = ["fd48::2", "::ffff:127.0.0.9"].map(|text| {
            let bytes = text.parse::<std::net::Ipv6Addr>().unwrap().octets();
            let words = bytes.chunks_exact(4);
            words
                .map(|word| format!("{:08X}", u32::from_ne_bytes(word.try_into().unwrap())))
                .collect::<String>()
        });
        for (local, state, number, found) in [
            (&own, "01", 7, Some(7)),
            (&own, "08", 7, Some(7)),
            (&unique, "02", 8, Some(8)),
            // They listen, have ended, or are nobody's.
            (&own, "0A", 7, None),
            (&own, "06", 7, None),
            (&own, "01", 0, None),
            (&loopback, "01", 7, None),
            (&mapped, "01", 7, None),
        ] {
            assert_eq!(inode(&line(local, state, number)), found, "{local} {state}");
        }
        for text in [
            "",
            "  sl  local_address rem_address   st",
            "1: 00 00 01",
            "1: é:1 0 01 0 0 0 0 0 9",
        ] {
            assert_eq!(inode(text), None, "{text}");
        }
    }

    #[test]
    fn a_connection_of_another_process_is_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", far.as_raw_fd())).unwrap();
        let number = socket(link.to_str().unwrap()).unwrap();
        // It waits for its input, which is the connection, and tells what came of that.
        let mut holder = Command::new("sh")
            .args(["-c", "cat; echo $?"])
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(far)))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = holder.stdout.take().unwrap();
        near.write_all(b"x").unwrap();
        said.read_exact(&mut [0]).unwrap();
        // Those of the other processes here are not this test's to reset.
        Connections(BTreeSet::from([number])).reset();
        let error = near.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let mut code = String::new();
        said.read_to_string(&mut code).unwrap();
        assert_eq!(code, "1\n");
        holder.wait().unwrap();
    }
}
