//! The host's files as answers to FUSE requests.

use super::message::{Header, MAX_MESSAGE, OUT_HEADER, Rights};
use fuse_backend_rs::api::server::Server;
use fuse_backend_rs::passthrough::{CachePolicy, Config, PassthroughFs};
use fuse_backend_rs::transport::{FuseBuf, FuseDevWriter, Reader, Writer};
use hullbox_protocol::SHARE_NAMES_HOLD_MS;
use rustix::fs::MemfdFlags;
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Contents stay cached as long as size and time of the file say they are right; names and
/// attributes for no longer than the machine's agent waits before it begins a program. So the next
/// command sees what the host changed, and nothing else is read again. Asking every time (0) costs
/// six times the requests of never asking.
const NAMES_HOLD: Duration = Duration::from_millis(SHARE_NAMES_HOLD_MS);

/// Serves a tree.
pub struct Files {
    server: Server<PassthroughFs>,
    rights: Rights,
    /// The library writes each reply to a descriptor, in one piece.
    sink: File,
    reply: Vec<u8>,
}

impl Files {
    /// Needs `/proc`, which may be out of sight afterwards. The tree's root is looked up by the first
    /// request, so that it is what `root` means then.
    ///
    /// # Errors
    /// There is no `/proc`, or no memory.
    pub fn new(root: &str, rights: Rights) -> io::Result<Self> {
        let config = Config {
            root_dir: root.to_owned(),
            entry_timeout: NAMES_HOLD,
            attr_timeout: NAMES_HOLD,
            cache_policy: CachePolicy::Always,
            ..Config::default()
        };
        Ok(Self {
            server: Server::new(PassthroughFs::new(config)?),
            rights,
            sink: rustix::fs::memfd_create("reply", MemfdFlags::CLOEXEC)?.into(),
            reply: vec![0; MAX_MESSAGE],
        })
    }

    /// The reply to a request, of `room` bytes at most. Empty if none is wanted, or if what arrived
    /// is no request.
    ///
    /// # Errors
    /// No memory for the reply.
    pub fn answer(&mut self, request: &mut [u8], room: usize) -> io::Result<&[u8]> {
        let Some(header) = Header::of(request) else {
            return Ok(&[]);
        };
        header.prepare(request, self.rights);
        self.sink.rewind()?;
        let room = room.min(self.reply.len());
        let served = self.serve(request, room);
        let mut len = usize::try_from(self.sink.stream_position()?).unwrap_or(0);
        if served && (OUT_HEADER..=room).contains(&len) {
            self.sink.read_exact_at(&mut self.reply[..len], 0)?;
            header.finish(request, &mut self.reply[..len]);
        } else if header.wants_reply() && room >= OUT_HEADER {
            len = OUT_HEADER;
            self.reply[..len].copy_from_slice(&header.failure(libc::EINVAL));
        } else {
            len = 0;
        }
        Ok(&self.reply[..len])
    }

    /// Has the library write its reply to the sink. False if it could not make sense of the request.
    fn serve(&mut self, request: &mut [u8], room: usize) -> bool {
        let Ok(reader) = Reader::<()>::from_fuse_buffer(FuseBuf::new(request)) else {
            return false;
        };
        let Ok(writer) = FuseDevWriter::new(self.sink.as_raw_fd(), &mut self.reply[..room]) else {
            return false;
        };
        self.server
            .handle_message(reader, Writer::FuseDev(writer), None, None)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::request;
    use super::*;

    const LOOKUP: u32 = 1;
    const INIT: u32 = 26;

    fn number<const N: usize>(reply: &[u8], at: usize) -> [u8; N] {
        *reply[at..].first_chunk().unwrap()
    }

    fn errno(reply: &[u8]) -> i32 {
        assert_eq!(u32::from_le_bytes(number(reply, 0)) as usize, reply.len());
        assert_eq!(u64::from_le_bytes(number(reply, 8)), 99);
        -i32::from_le_bytes(number(reply, 4))
    }

    /// A tree with one file.
    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "hello").unwrap();
        dir
    }

    fn started(tree: &tempfile::TempDir) -> Files {
        let mut files = Files::new(tree.path().to_str().unwrap(), Rights::Own).unwrap();
        // Version 7.38, and every feature.
        let init = [7u32, 38, 1 << 20, u32::MAX >> 2].map(u32::to_le_bytes);
        let mut init = request(INIT, 0, init.as_flattened());
        let reply = files.answer(&mut init, 4096).unwrap();
        assert_eq!(errno(reply), 0);
        let flags = u32::from_le_bytes(number(reply, OUT_HEADER + 12));
        let auto_inval_data = 1 << 12;
        assert!(
            flags & auto_inval_data != 0 && flags != u32::MAX >> 2,
            "{flags:x}"
        );
        files
    }

    #[test]
    fn names_are_names_and_nothing_else() {
        let tree = tree();
        let mut files = started(&tree);
        let mut look = |name: &[u8]| {
            let reply = files.answer(&mut request(LOOKUP, 1, name), 4096);
            let reply = reply.unwrap();
            let code = errno(reply);
            // `nodeid` of `fuse_entry_out`.
            (
                code,
                (code == 0).then(|| u64::from_le_bytes(number(reply, OUT_HEADER))),
            )
        };
        assert_eq!(look(b"file\0"), (0, Some(2)));
        assert_eq!(look(b"none\0").0, libc::ENOENT);
        for name in [&b"/file\0"[..], b"../file\0", b"./file\0", b"file", b""] {
            assert_eq!(look(name).0, libc::EINVAL, "{name:?}");
        }
        // The root is its own parent.
        assert_eq!(look(b"..\0"), (0, Some(1)));
    }

    #[test]
    fn whatever_arrives_is_answered_or_dropped() {
        let tree = tree();
        let mut files = started(&tree);
        for opcode in (0..64)
            .chain([4096, u32::MAX])
            .filter(|opcode| *opcode != INIT)
        {
            for body in [&[][..], &[0; 1], &[0xff; 48], b"..\0..\0", &[0xff; 200]] {
                for node in [0, 1, 2, u64::MAX] {
                    for room in [0, OUT_HEADER - 1, OUT_HEADER, 100, 1 << 21] {
                        let mut request = request(opcode, node, body);
                        let reply = files.answer(&mut request, room).unwrap();
                        assert!(reply.len() <= room, "{opcode} {node} {room}");
                    }
                }
            }
        }
        assert!(files.answer(&mut [0xff; 64], 4096).unwrap().is_empty());
        assert!(files.answer(&mut [], 4096).unwrap().is_empty());
    }
}
