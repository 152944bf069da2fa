//! A builder of tars, header by header, that makes well-formed and hostile ones alike.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by unit and integration tests"
)]

/// Entries as they will stand in the tar.
#[derive(Default)]
pub(crate) struct TarBuilder {
    bytes: Vec<u8>,
    open: Option<Vec<u8>>,
}

impl TarBuilder {
    pub(crate) fn file(&mut self, path: &str, data: &[u8]) -> &mut Self {
        self.entry(b'0', path, data).done()
    }

    pub(crate) fn dir(&mut self, path: &str) -> &mut Self {
        self.entry(b'5', path, b"").mode(0o755).done()
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> &mut Self {
        self.entry(b'2', path, b"").link(target).done()
    }

    pub(crate) fn hard_link(&mut self, path: &str, target: &str) -> &mut Self {
        self.entry(b'1', path, b"").link(target).done()
    }

    /// A PAX header for the entry that follows.
    pub(crate) fn pax(&mut self, records: &[(&str, &[u8])]) -> &mut Self {
        let mut text = Vec::new();
        for (key, value) in records {
            let body = key.len() + value.len() + 3;
            let mut len = body + 1;
            while len != body + len.to_string().len() {
                len = body + len.to_string().len();
            }
            text.extend_from_slice(format!("{len} {key}=").as_bytes());
            text.extend_from_slice(value);
            text.push(b'\n');
        }
        self.entry(b'x', "pax", &text).done()
    }

    /// Begins an entry; setters may follow.
    pub(crate) fn entry(&mut self, kind: u8, path: &str, data: &[u8]) -> &mut Self {
        self.done();
        let mut header = vec![0; 512];
        let name = path.as_bytes();
        header[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        header[156] = kind;
        header[257..265].copy_from_slice(b"ustar\x0000");
        header.extend_from_slice(data);
        self.open = Some(header);
        self.mode(0o644)
            .owner(0, 0)
            .mtime(0)
            .size(data.len() as u64)
    }

    fn set(&mut self, at: usize, field: &[u8]) -> &mut Self {
        self.open.as_mut().unwrap()[at..at + field.len()].copy_from_slice(field);
        self
    }

    pub(crate) fn mode(&mut self, mode: u32) -> &mut Self {
        self.set(100, format!("{mode:07o}").as_bytes())
    }

    pub(crate) fn owner(&mut self, uid: u32, gid: u32) -> &mut Self {
        self.set(108, format!("{uid:07o}").as_bytes());
        self.set(116, format!("{gid:07o}").as_bytes())
    }

    pub(crate) fn size(&mut self, size: u64) -> &mut Self {
        self.set(124, format!("{size:011o}").as_bytes())
    }

    pub(crate) fn mtime(&mut self, mtime: u64) -> &mut Self {
        self.set(136, format!("{mtime:011o}").as_bytes())
    }

    pub(crate) fn link(&mut self, target: &str) -> &mut Self {
        self.set(157, target.as_bytes())
    }

    pub(crate) fn device(&mut self, major: u32, minor: u32) -> &mut Self {
        self.set(329, format!("{major:07o}").as_bytes());
        self.set(337, format!("{minor:07o}").as_bytes())
    }

    /// Raw bytes of a header.
    pub(crate) fn raw(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.set(at, bytes)
    }

    /// Ends the entry: checksum and padding.
    pub(crate) fn done(&mut self) -> &mut Self {
        if let Some(mut entry) = self.open.take() {
            entry[148..156].fill(b' ');
            let sum: u32 = entry[..512].iter().map(|&b| u32::from(b)).sum();
            entry[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            entry.resize(entry.len().next_multiple_of(512), 0);
            self.bytes.extend_from_slice(&entry);
        }
        self
    }

    /// The tar with its end.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.done();
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }
}
