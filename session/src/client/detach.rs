//! The keys that part a user from a process that runs on.

use hullbox_protocol::Frame;

/// Which keys, and what the other side is told when they were typed.
#[derive(Debug, Clone)]
pub struct Detach {
    /// Typed one after the other; not empty.
    pub keys: Vec<u8>,
    /// Said before the connection is closed.
    pub frame: Frame,
}

/// Looks for the keys in what is typed.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    /// How many of the keys were the last bytes, which are held back.
    matched: usize,
}

impl Watcher {
    /// What of the typed bytes is to be passed on, and whether the keys were among them; what
    /// follows the keys is dropped.
    pub(super) fn filter(&mut self, keys: &[u8], typed: &[u8]) -> (Vec<u8>, bool) {
        let mut pass = Vec::with_capacity(typed.len());
        for &byte in typed {
            if keys.get(self.matched) == Some(&byte) {
                self.matched += 1;
                if self.matched == keys.len() {
                    return (pass, true);
                }
                continue;
            }
            pass.extend_from_slice(&keys[..self.matched]);
            self.matched = 0;
            if keys.first() == Some(&byte) {
                self.matched = 1;
            } else {
                pass.push(byte);
            }
        }
        (pass, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_found_and_everything_else_passes() {
        let keys = [16, 17];
        let mut watcher = Watcher::default();
        assert_eq!(watcher.filter(&keys, b"ab"), (b"ab".to_vec(), false));
        assert_eq!(watcher.filter(&keys, &[16]), (vec![], false));
        assert_eq!(watcher.filter(&keys, b"x"), (vec![16, b'x'], false));
        assert_eq!(watcher.filter(&keys, &[16, 16]), (vec![16], false));
        assert_eq!(watcher.filter(&keys, &[17, b'y']), (vec![], true));
    }
}
