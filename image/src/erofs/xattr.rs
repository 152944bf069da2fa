//! Extended attributes: each distinct set once, in its on-disk form.

use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};

/// The attributes of one inode, sorted, none twice.
#[derive(Debug, Default, Clone)]
pub(crate) struct XattrSet(Vec<(u8, Vec<u8>, Vec<u8>)>);

impl XattrSet {
    /// Adds or replaces an attribute. False if the name cannot be stored: its namespace has no
    /// number in EROFS, or it is too long. The value must be under 64 KiB.
    pub(crate) fn insert(&mut self, name: &[u8], value: &[u8]) -> bool {
        let Some((index, suffix)) = split(name) else {
            return false;
        };
        if suffix.len() > 255 || value.len() > usize::from(u16::MAX) {
            return false;
        }
        match self
            .0
            .binary_search_by(|(i, s, _)| (*i, &s[..]).cmp(&(index, suffix)))
        {
            Ok(at) => self.0[at].2 = value.to_vec(),
            Err(at) => self.0.insert(at, (index, suffix.to_vec(), value.to_vec())),
        }
        true
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, suffix, value) in &self.0 {
            let name_len = u8::try_from(suffix.len()).unwrap_or(u8::MAX);
            let value_len = u16::try_from(value.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&[name_len, *index]);
            out.extend_from_slice(&value_len.to_le_bytes());
            out.extend_from_slice(suffix);
            out.extend_from_slice(value);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        out
    }

    /// Whether the marker of an opaque directory is among them.
    pub(crate) fn is_opaque(&self) -> bool {
        self.0
            .iter()
            .any(|(index, suffix, _)| (*index, &suffix[..]) == (4, b"overlay.opaque"))
    }

    /// Takes our own markers out.
    pub(crate) fn remove_markers(&mut self) {
        self.0
            .retain(|(index, suffix, _)| *index != 4 || !suffix.starts_with(b"overlay."));
    }

    /// Reads the on-disk form back; `None` if it is not well-formed.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut set = Self::default();
        while !bytes.is_empty() {
            let (header, rest) = bytes.split_first_chunk::<4>()?;
            let name_len = usize::from(header[0]);
            let value_len = usize::from(u16::from_le_bytes([header[2], header[3]]));
            let name = rest.get(..name_len)?;
            let value = rest.get(name_len..name_len + value_len)?;
            set.0.push((header[1], name.to_vec(), value.to_vec()));
            let len = (4 + name_len + value_len).next_multiple_of(4);
            bytes = bytes.get(len..)?;
        }
        Some(set)
    }
}

/// `EROFS_XATTR_INDEX_*` and what of the name is stored.
fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    match name {
        b"system.posix_acl_access" => return Some((2, &[])),
        b"system.posix_acl_default" => return Some((3, &[])),
        _ => {}
    }
    [(1, &b"user."[..]), (4, b"trusted."), (6, b"security.")]
        .into_iter()
        .find_map(|(index, prefix)| Some((index, name.strip_prefix(prefix)?)))
        .filter(|(_, suffix)| !suffix.is_empty())
}

/// Distinct attribute sets of a layer. A set is known by its position; 0 is the empty set.
#[derive(Debug)]
pub(crate) struct XattrTable {
    /// Each set as its length (4 bytes) and its on-disk entries.
    arena: Vec<u8>,
    index: HashTable<u32>,
    hasher: RandomState,
    limit: u32,
}

impl XattrTable {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            arena: vec![0; 4],
            index: HashTable::new(),
            hasher: RandomState::new(),
            limit,
        }
    }

    /// The number of this set; `None` when the layer's attributes are over their limit.
    pub(crate) fn intern(&mut self, set: &XattrSet) -> Option<u32> {
        self.intern_encoded(&set.encode())
    }

    /// The number of the set with this on-disk form.
    pub(crate) fn intern_encoded(&mut self, encoded: &[u8]) -> Option<u32> {
        if encoded.is_empty() {
            return Some(0);
        }
        let hash = self.hasher.hash_one(encoded);
        let arena = &self.arena;
        if let Some(&id) = self.index.find(hash, |&id| get_from(arena, id) == encoded) {
            return Some(id);
        }
        let id = u32::try_from(self.arena.len()).ok()?;
        let len = u32::try_from(encoded.len()).ok()?;
        if id.checked_add(len)? > self.limit {
            return None;
        }
        self.arena.extend_from_slice(&len.to_le_bytes());
        self.arena.extend_from_slice(encoded);
        let (arena, hasher) = (&self.arena, &self.hasher);
        self.index
            .insert_unique(hash, id, |&id| hasher.hash_one(get_from(arena, id)));
        Some(id)
    }

    /// The on-disk entries of a set.
    pub(crate) fn get(&self, id: u32) -> &[u8] {
        get_from(&self.arena, id)
    }

    /// The number of set `id` with one attribute more.
    pub(crate) fn extended(&mut self, id: u32, name: &[u8], value: &[u8]) -> Option<u32> {
        let mut set = XattrSet::decode(self.get(id))?;
        set.insert(name, value);
        // Adding to a set cannot be refused by the limit on what tars bring.
        self.limit = self.limit.saturating_add(64);
        self.intern(&set)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.arena
    }

    /// A table with the contents of another, for looking up by number.
    pub(crate) fn from_bytes(arena: Vec<u8>, limit: u32) -> Self {
        Self {
            arena,
            ..Self::new(limit)
        }
    }
}

fn get_from(arena: &[u8], id: u32) -> &[u8] {
    let rest = usize::try_from(id)
        .ok()
        .and_then(|start| arena.get(start..))
        .and_then(<[u8]>::split_first_chunk::<4>);
    let Some((len, rest)) = rest else {
        return &[];
    };
    let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(0);
    rest.get(..len).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_kept_once_and_read_back() {
        let mut set = XattrSet::default();
        assert!(set.insert(b"user.b", b"2"));
        assert!(set.insert(b"user.a", b"0"));
        assert!(set.insert(b"user.a", b"1"));
        assert!(set.insert(b"system.posix_acl_access", b"acl"));
        for bad in [&b"user."[..], b"other.x", b"", b"system.nfs4_acl"] {
            assert!(!set.insert(bad, b""));
        }
        let mut table = XattrTable::new(1000);
        let id = table.intern(&set).unwrap();
        assert_eq!(table.intern(&set), Some(id));
        let names: Vec<_> = XattrSet::decode(table.get(id)).unwrap().0;
        assert_eq!(names.len(), 3);
        assert_eq!(names[0], (1, b"a".to_vec(), b"1".to_vec()));
        let more = table.extended(id, b"trusted.x", b"y").unwrap();
        assert_ne!(more, id);
        assert_eq!(table.get(0), b"");
        let mut big = XattrSet::default();
        assert!(big.insert(b"user.big", &[0; 2000]));
        assert_eq!(table.intern(&big), None);
    }
}
