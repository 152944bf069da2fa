//! FUSE messages, as far as the share's server looks at them itself (`linux/fuse.h`).
//!
//! What a request means is `fuse-backend-rs`'s to know. Here its frame is checked, and a few fields
//! are rewritten on their way: whose request it is, flags that this server may not honour, and the
//! features that are offered to the machine's kernel.

/// `struct fuse_in_header`.
pub const IN_HEADER: usize = 40;
/// `struct fuse_out_header`.
pub const OUT_HEADER: usize = 16;
/// The most that a request or a reply carries besides its headers, in bytes.
pub const MAX_DATA: usize = 1 << 20;
/// Room for headers and names.
pub const MAX_MESSAGE: usize = MAX_DATA + (4 << 10);

// `enum fuse_opcode`.
const FORGET: u32 = 2;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const CREATE: u32 = 35;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

/// `FUSE_ASYNC_READ`, `FUSE_ATOMIC_O_TRUNC`, `FUSE_BIG_WRITES`, `FUSE_AUTO_INVAL_DATA`,
/// `FUSE_ASYNC_DIO`, `FUSE_PARALLEL_DIROPS`, `FUSE_MAX_PAGES`: what any passthrough of files can
/// offer, and the library does not by itself. `AUTO_INVAL_DATA` has the machine drop contents that
/// it holds when the file's size or time say that they changed.
const OFFERED: u32 = 1 | 1 << 3 | 1 << 5 | 1 << 12 | 1 << 15 | 1 << 18 | 1 << 22;

/// Whose rights a request is served with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Those of the user who asks inside the machine: what it makes belongs to that user.
    Askers,
    /// The server's own, whoever asks: an ordinary user cannot act as another.
    Own,
}

/// The frame of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What is asked.
    opcode: u32,
    /// Number of the request, which its reply repeats.
    unique: u64,
}

impl Header {
    /// Reads the frame; `None` unless it fits what arrived.
    pub fn of(request: &[u8]) -> Option<Self> {
        let len = usize::try_from(word(request, 0)?).ok()?;
        if len != request.len() || len < IN_HEADER {
            return None;
        }
        Some(Self {
            opcode: word(request, 4)?,
            unique: u64::from_le_bytes(*request.get(8..)?.first_chunk()?),
        })
    }

    /// Whether the machine waits for a reply.
    pub const fn wants_reply(self) -> bool {
        !matches!(self.opcode, FORGET | BATCH_FORGET | INTERRUPT)
    }

    /// A reply without contents.
    pub fn failure(self, errno: i32) -> [u8; OUT_HEADER] {
        let mut reply = [0; OUT_HEADER];
        let fields = [OUT_HEADER as i32, -errno].map(i32::to_le_bytes);
        reply[..8].copy_from_slice(fields.as_flattened());
        reply[8..].copy_from_slice(&self.unique.to_le_bytes());
        reply
    }

    /// Rewrites a request before it is served.
    pub fn prepare(self, request: &mut [u8], rights: Rights) {
        if rights == Rights::Own {
            // `uid` and `gid`; as zero they mean the server itself.
            set(request, 24, 0);
            set(request, 28, 0);
        }
        // Overlayfs opens what lies below it with O_NOATIME, which is the owner's privilege. For
        // files on read-only mounts, all but volumes, it means nothing anyway.
        let flags = match self.opcode {
            OPEN | OPENDIR | CREATE => IN_HEADER,
            READ | WRITE => IN_HEADER + 32,
            _ => return,
        };
        if let Some(value) = word(request, flags) {
            set(request, flags, value & !(libc::O_NOATIME as u32));
        }
    }

    /// Rewrites a reply after it was made.
    pub fn finish(self, request: &[u8], reply: &mut [u8]) {
        let failed = word(reply, 4) != Some(0);
        if self.opcode != INIT || failed {
            return;
        }
        // Fields of `fuse_init_in` and `fuse_init_out`.
        let (Some(capable), Some(flags)) =
            (word(request, IN_HEADER + 12), word(reply, OUT_HEADER + 12))
        else {
            return;
        };
        set(reply, OUT_HEADER + 12, flags | capable & OFFERED);
        set(reply, OUT_HEADER + 20, MAX_DATA as u32);
        // `max_pages`; the field beside it is zero.
        set(reply, OUT_HEADER + 28, (MAX_DATA >> 12) as u32);
    }
}

fn word(message: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*message.get(at..)?.first_chunk()?))
}

fn set(message: &mut [u8], at: usize, value: u32) {
    if let Some(field) = message.get_mut(at..at + 4) {
        field.copy_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A request by user 7 of group 8.
    pub(in super::super) fn request(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(IN_HEADER + body.len()).unwrap();
        let mut bytes = Vec::new();
        bytes.extend(len.to_le_bytes());
        bytes.extend(opcode.to_le_bytes());
        bytes.extend(99u64.to_le_bytes());
        bytes.extend(node.to_le_bytes());
        bytes.extend([7u32, 8, 9, 0].map(u32::to_le_bytes).as_flattened());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_frame_fits_or_is_none() {
        let good = request(OPEN, 1, &[0; 8]);
        assert!(Header::of(&good).is_some_and(Header::wants_reply));
        for bad in [&good[..good.len() - 1], &good[..39], &good[..3], &[]] {
            assert_eq!(Header::of(bad), None);
        }
        let mut long = good;
        long.push(0);
        assert_eq!(Header::of(&long), None);
        assert!(
            !Header::of(&request(FORGET, 1, &[0; 8]))
                .unwrap()
                .wants_reply()
        );
    }

    #[test]
    fn another_user_and_the_owners_flag_go_no_further() {
        let flags = (libc::O_NOATIME | libc::O_DIRECTORY) as u32;
        let mut open = request(OPEN, 1, [flags, 0].map(u32::to_le_bytes).as_flattened());
        let header = Header::of(&open).unwrap();
        header.prepare(&mut open, Rights::Askers);
        assert_eq!(word(&open, 24), Some(7));
        assert_eq!(word(&open, IN_HEADER), Some(libc::O_DIRECTORY as u32));
        header.prepare(&mut open, Rights::Own);
        assert_eq!((word(&open, 24), word(&open, 28)), (Some(0), Some(0)));
        let mut body = [0; 40];
        set(&mut body, 32, flags);
        let mut read = request(READ, 1, &body);
        Header::of(&read).unwrap().prepare(&mut read, Rights::Own);
        assert_eq!(word(&read, IN_HEADER + 32), Some(libc::O_DIRECTORY as u32));
    }
}
