//! What a fuzz target calls: requests to a tree without the process around it.

use crate::export::Export;
use crate::owners::Rights;
use crate::serve::{Request, serve};
use crate::tree::Tree;
use crate::wire::{Header, IN_HEADER, MAX_MESSAGE, Reply};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::path::Path;

/// Descriptors that the tree may have: few enough to run out of them.
const DESCRIPTORS: usize = 1024;

/// Serves requests from any bytes. Of each, the first byte says what is asked, the second of which file, and
/// the third how many bytes follow. Afterwards `directory` has what it had before, except in `0`, which is the
/// export. The working directory must be `/proc/self/fd`.
///
/// # Panics
/// When a reply makes no sense.
pub fn messages(directory: &Path, data: &[u8]) {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(root) = openat(CWD, directory, flags, Mode::empty()) else {
        return;
    };
    let export = Export::of(directory.join("0"));
    let Ok(tree) = Tree::new(root, &[export], Rights::User, DESCRIPTORS) else {
        return;
    };
    let mut memory = Vec::new();
    let mut unique = 0;
    let mut ask = |opcode: u32, node: u64, body: &[u8]| {
        unique += 1;
        let message = message(opcode, unique, node, body);
        let Some((header, fields)) = Header::of(&message) else {
            return;
        };
        let mut reply = Reply::new(&mut memory);
        let outcome = serve(Request {
            tree: &tree,
            header,
            fields,
            reply: &mut reply,
        });
        let reply = reply.finish(unique, outcome.map(drop));
        assert!(reply.len() <= MAX_MESSAGE, "a reply of {}", reply.len());
        assert_eq!(Header::length(reply), Some(reply.len()));
    };
    let mut init = Vec::new();
    for field in [7u32, 38, 0, u32::MAX] {
        init.extend(field.to_le_bytes());
    }
    ask(26, 0, &init);
    ask(1, 1, b"0\0");
    let mut rest = data;
    while let [opcode, node, len, behind @ ..] = rest {
        let (body, next) = behind.split_at(usize::from(*len).min(behind.len()));
        rest = next;
        // Who waits for a lock waits for ever, and the root is a directory like any other here.
        if matches!(opcode, 33 | 38) || *node < 2 {
            continue;
        }
        ask((*opcode).into(), (*node).into(), body);
    }
}

fn message(opcode: u32, unique: u64, node: u64, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(IN_HEADER + body.len()).unwrap_or(u32::MAX);
    let mut message = Vec::new();
    message.extend(len.to_le_bytes());
    message.extend(opcode.to_le_bytes());
    message.extend(unique.to_le_bytes());
    message.extend(node.to_le_bytes());
    message.extend([0; 16]);
    message.extend(body);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_stay_in_the_export() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("0/sub")).unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        std::env::set_current_dir("/proc/self/fd").unwrap();
        let mut state = 88_172_645_463_325_252_u64;
        let mut chance = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        };
        let words: [&[u8]; 5] = [b"sub\0", b"../secret\0", b"..\0", b"a\0b\0", b"/\0"];
        for _ in 0..300 {
            let mut data = Vec::new();
            for _ in 0..60 {
                let word = words[usize::from(chance()) % words.len()];
                let zeros = usize::from(chance()) % 20;
                let len = u8::try_from(zeros + word.len() + 1).unwrap();
                data.extend([chance() % 53, 2 + chance() % 8, len]);
                data.resize(data.len() + zeros, chance() % 3);
                data.extend(word);
                data.push(chance());
            }
            messages(&root, &data);
        }
        let names: Vec<_> = std::fs::read_dir(&root).unwrap().collect();
        assert_eq!(names.len(), 1);
        let secret = std::fs::read_to_string(dir.path().join("secret"));
        assert_eq!(secret.unwrap(), "secret");
    }
}
