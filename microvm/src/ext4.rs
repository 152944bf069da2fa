//! Cutting the empty disk to size.
//!
//! The template (`kernel-config/make-empty-disk`) keeps the metadata of all its block groups and
//! its journal together at its beginning; behind them every block is free. A file system with just
//! so many free blocks is therefore the same one with a nearer end: the superblock says so, and the
//! last group says how much of it is left. The dropped groups' inode tables stay where they are,
//! as a hole of the sparse file: `df` counts their 250 MiB as used.
//!
//! Layout: "Data Structures and Algorithms" of the kernel's ext4 documentation.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const BLOCK: u64 = 4096;
const SUPER_OFFSET: u64 = 1024;
const SUPER_LEN: usize = 1024;
const MAGIC: u16 = 0xef53;
const DESCRIPTOR: usize = 64;
/// `bg_flags`: the block bitmap is not written, and all free but the group's own metadata.
const BLOCK_UNINIT: u16 = 2;

/// Most blocks that the kernel keeps back from everybody, lest writing into what was allocated
/// before needs a block and finds none: a fiftieth of all, up to this
/// (`ext4_calculate_resv_clusters`).
const MAX_RESERVE: u64 = 4096;

/// Little-endian fields at fixed places.
struct Fields<'a>(&'a mut [u8]);

impl Fields<'_> {
    fn u16(&self, at: usize) -> u16 {
        self.0[at..]
            .first_chunk()
            .map_or(0, |bytes| u16::from_le_bytes(*bytes))
    }

    fn u32(&self, at: usize) -> u32 {
        self.0[at..]
            .first_chunk()
            .map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    fn set_u16(&mut self, at: usize, value: u16) {
        self.0[at..][..2].copy_from_slice(&value.to_le_bytes());
    }

    fn set_u32(&mut self, at: usize, value: u32) {
        self.0[at..][..4].copy_from_slice(&value.to_le_bytes());
    }
}

/// What of the superblock matters here.
struct Geometry {
    blocks: u64,
    free: u64,
    blocks_per_group: u64,
    inodes_per_group: u32,
    seed: u32,
}

/// Makes an empty disk hold `size_bytes` of files and no more. One that never held more is left
/// alone.
pub(crate) fn cut(disk: &File, size_bytes: u64) -> io::Result<()> {
    let mut bytes = [0; SUPER_LEN];
    disk.read_exact_at(&mut bytes, SUPER_OFFSET)?;
    let mut superblock = Fields(&mut bytes);
    let geometry = geometry(&superblock).ok_or(io::ErrorKind::InvalidData)?;
    let wanted = size_bytes.div_ceil(BLOCK);
    let used = geometry.blocks - geometry.free;
    // A fiftieth of the sum is a forty-ninth of the rest.
    let free = wanted.saturating_add((used.saturating_add(wanted) / 49).min(MAX_RESERVE));
    if free >= geometry.free {
        return Ok(());
    }
    // All that is free is at the end.
    let end = used + free;
    let groups = end.div_ceil(geometry.blocks_per_group);
    cut_last_group(disk, &geometry, groups - 1, end)?;
    let inodes = u32::try_from(groups)
        .ok()
        .and_then(|groups| groups.checked_mul(geometry.inodes_per_group))
        .ok_or(io::ErrorKind::InvalidData)?;
    let used_inodes = superblock.u32(0x00).saturating_sub(superblock.u32(0x10));
    superblock.set_u32(0x00, inodes);
    superblock.set_u32(0x04, low(end));
    superblock.set_u32(0x0c, low(free));
    superblock.set_u32(0x10, inodes.saturating_sub(used_inodes));
    superblock.set_u32(0x150, high(end));
    superblock.set_u32(0x158, high(free));
    let sum = crc32c(u32::MAX, &superblock.0[..0x3fc]);
    superblock.set_u32(0x3fc, sum);
    disk.write_all_at(superblock.0, SUPER_OFFSET)?;
    disk.set_len(end * BLOCK)
}

/// `None` if this is not a file system as the template's script makes it.
fn geometry(superblock: &Fields<'_>) -> Option<Geometry> {
    let wide = |low, high| u64::from(superblock.u32(low)) | u64::from(superblock.u32(high)) << 32;
    let (blocks, free) = (wide(0x04, 0x150), wide(0x0c, 0x158));
    let is_known = superblock.u16(0x38) == MAGIC
        && superblock.u32(0x18) == 2
        && superblock.u32(0x14) == 0
        && usize::from(superblock.u16(0xfe)) == DESCRIPTOR
        && u64::from(superblock.u32(0x20)) == 8 * BLOCK
        && free < blocks
        && superblock.u32(0x3fc) == crc32c(u32::MAX, &superblock.0[..0x3fc]);
    is_known.then(|| Geometry {
        blocks,
        free,
        blocks_per_group: superblock.u32(0x20).into(),
        inodes_per_group: superblock.u32(0x28),
        seed: crc32c(u32::MAX, &superblock.0[0x68..0x78]),
    })
}

/// Group `group` ends at block `end`, wherever it ended before.
fn cut_last_group(disk: &File, geometry: &Geometry, group: u64, end: u64) -> io::Result<()> {
    let first = group * geometry.blocks_per_group;
    let whole_end = (first + geometry.blocks_per_group).min(geometry.blocks);
    let at = BLOCK + group * DESCRIPTOR as u64;
    let mut bytes = [0; DESCRIPTOR];
    disk.read_exact_at(&mut bytes, at)?;
    let mut descriptor = Fields(&mut bytes);
    let gone = whole_end - end;
    let had = u64::from(descriptor.u16(0x0c)) | u64::from(descriptor.u16(0x2c)) << 16;
    let free = had.checked_sub(gone).ok_or(io::ErrorKind::InvalidData)?;
    descriptor.set_u16(0x0c, (free & 0xffff) as u16);
    descriptor.set_u16(0x2c, (free >> 16) as u16);
    if descriptor.u16(0x12) & BLOCK_UNINIT == 0 {
        let sum = cut_bitmap(disk, geometry, &descriptor, (end - first) as usize)?;
        descriptor.set_u16(0x18, (sum & 0xffff) as u16);
        descriptor.set_u16(0x38, (sum >> 16) as u16);
    }
    descriptor.set_u16(0x1e, 0);
    // A group's number is below 2^32: the superblock counts its inodes in 32 bits.
    let sum = crc32c(geometry.seed, &low(group).to_le_bytes());
    let sum = crc32c(sum, descriptor.0);
    descriptor.set_u16(0x1e, (sum & 0xffff) as u16);
    disk.write_all_at(descriptor.0, at)
}

/// Marks a group's blocks from `count` on as used, and gives the bitmap's checksum.
fn cut_bitmap(
    disk: &File,
    geometry: &Geometry,
    descriptor: &Fields<'_>,
    count: usize,
) -> io::Result<u32> {
    let block = u64::from(descriptor.u32(0x00)) | u64::from(descriptor.u32(0x20)) << 32;
    if block >= geometry.blocks - geometry.free {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bitmap = [0u8; BLOCK as usize];
    disk.read_exact_at(&mut bitmap, block * BLOCK)?;
    for bit in count..8 * bitmap.len() {
        bitmap[bit / 8] |= 1 << (bit % 8);
    }
    disk.write_all_at(&bitmap, block * BLOCK)?;
    Ok(crc32c(geometry.seed, &bitmap))
}

const fn low(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

const fn high(value: u64) -> u32 {
    (value >> 32) as u32
}

/// CRC-32C without its final inversion, as the kernel's `ext4_chksum`.
fn crc32c(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::clone_sparse;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    /// The template of this build, if there is one.
    fn template() -> Option<PathBuf> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../build/artifacts/empty.ext4");
        path.exists().then_some(path)
    }

    fn output(program: &str, args: &[&str], path: &Path) -> Option<String> {
        let run = Command::new(program).args(args).arg(path).output().ok()?;
        let all = [run.stdout, run.stderr].concat();
        Some(String::from_utf8_lossy(&all).into_owned())
    }

    #[test]
    fn checksums_are_castagnolis() {
        assert_eq!(!crc32c(u32::MAX, b"123456789"), 0xe306_9283);
    }

    /// Against e2fsprogs' own eyes, where they are.
    #[test]
    fn a_cut_disk_has_the_free_blocks_that_were_asked_for() {
        let Some(template) = template() else { return };
        let dir = std::env::temp_dir().join(format!("hullbox-cut-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        // Within the first group with free blocks, at its end, in a later one, at one's end.
        for mib in [1, 10, 104, 105, 106, 112, 1000, 1007, 5000, 16_000] {
            let path = dir.join(format!("{mib}.ext4"));
            clone_sparse(&template, &path).unwrap();
            let file = File::options().read(true).write(true).open(&path).unwrap();
            cut(&file, mib << 20).unwrap();
            let Some(header) = output("dumpe2fs", &[], &path) else {
                return;
            };
            assert!(
                !header.contains("checksum does not match"),
                "{mib}: {header}"
            );
            let field = |name: &str| -> u64 {
                let line = header.lines().find(|line| line.starts_with(name)).unwrap();
                line.rsplit(' ').next().unwrap().parse().unwrap()
            };
            let reserve = (field("Block count:") / 50).min(MAX_RESERVE);
            let wanted = (mib << 8) + reserve;
            assert_eq!(field("Free blocks:"), wanted, "{mib}");
            assert_eq!(
                field("Block count:") * BLOCK,
                file.metadata().unwrap().len()
            );
            // Each group's own count, and the ranges that its bitmap has free.
            let free: u64 = header
                .lines()
                .filter_map(|line| line.trim().split_once(" free blocks, "))
                .map(|(count, _)| count.parse::<u64>().unwrap())
                .sum();
            assert_eq!(free, wanted, "{mib}");
            let check = output("e2fsck", &["-fn"], &path).unwrap();
            // Nothing but that the dropped groups' tables are nobody's now.
            for bad in ["checksum", "nvalid", "corrupt", "ount wrong"] {
                let lines: Vec<_> = check.lines().filter(|line| line.contains(bad)).collect();
                let of_nobody = lines
                    .iter()
                    .all(|line| line.starts_with("Free blocks count wrong"));
                assert!(of_nobody, "{mib}: {bad}: {check}");
            }
        }
        // More than there is changes nothing.
        let path = dir.join("whole.ext4");
        clone_sparse(&template, &path).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let before = file.metadata().unwrap().len();
        cut(&file, 1 << 40).unwrap();
        assert_eq!(file.metadata().unwrap().len(), before);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_is_no_such_file_system_is_refused() {
        let path = std::env::temp_dir().join(format!("hullbox-uncut-{}", std::process::id()));
        std::fs::write(&path, vec![0x5a; 8192]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let error = cut(&file, 1 << 20).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        std::fs::remove_file(path).unwrap();
    }
}
