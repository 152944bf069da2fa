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
    // All that is free is at the end.
    let end = end_of(&geometry, size_bytes);
    if end >= geometry.blocks {
        return Ok(());
    }
    let free = end - (geometry.blocks - geometry.free);
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

/// Why a disk that was cut is not made larger.
#[derive(Debug, thiserror::Error)]
pub enum GrowError {
    /// A guest has it.
    #[error("a container uses it")]
    InUse,
    /// Its journal has something that is not in its place yet.
    #[error("it was not unmounted: start a container with it, and stop that")]
    Unclean,
    /// No file system that was cut of the empty disk.
    #[error("its disk is not one of ours")]
    Foreign,
    /// Reading, writing.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// `s_feature_incompat`: the journal needs recovery.
const RECOVER: u32 = 4;

/// Makes a disk that [`cut`] made of `template` hold `size_bytes` of files, if it does not yet. What a guest
/// has written there is not trusted: places come from the template, and numbers are added to.
///
/// The image is longer before its superblock says so, and the last group's end is moved last but one: whoever
/// is killed in between leaves a file system in which some blocks are free that nobody can have.
pub(crate) fn grow(disk: &File, template: &File, size_bytes: u64) -> Result<(), GrowError> {
    let mut whole = [0; SUPER_LEN];
    template.read_exact_at(&mut whole, SUPER_OFFSET)?;
    let whole = geometry(&Fields(&mut whole)).ok_or(GrowError::Foreign)?;
    let mut bytes = [0; SUPER_LEN];
    disk.read_exact_at(&mut bytes, SUPER_OFFSET)?;
    let mut superblock = Fields(&mut bytes);
    if superblock.u32(0x60) & RECOVER != 0 || superblock.u16(0x3a) & 1 == 0 {
        return Err(GrowError::Unclean);
    }
    let geometry = geometry(&superblock).ok_or(GrowError::Foreign)?;
    let is_cut = geometry.blocks <= whole.blocks
        && geometry.blocks > whole.blocks - whole.free
        && geometry.blocks_per_group == whole.blocks_per_group
        && geometry.inodes_per_group == whole.inodes_per_group
        && geometry.seed == whole.seed;
    if !is_cut {
        return Err(GrowError::Foreign);
    }
    let end = end_of(&whole, size_bytes);
    if end <= geometry.blocks {
        return Ok(());
    }
    disk.set_len(end * BLOCK)?;
    let groups = |end: u64| end.div_ceil(whole.blocks_per_group);
    let last = groups(geometry.blocks) - 1;
    for group in last + 1..groups(end) {
        copy_group(disk, template, &whole, group)?;
        if (group + 1) * whole.blocks_per_group > end {
            cut_last_group(disk, &whole, group, end)?;
        }
    }
    extend_group(disk, template, &whole, (last, geometry.blocks, end))?;
    let more = end - geometry.blocks;
    let inodes = u32::try_from(groups(end) - groups(geometry.blocks))
        .ok()
        .and_then(|groups| groups.checked_mul(whole.inodes_per_group))
        .ok_or(GrowError::Foreign)?;
    let free = geometry.free.checked_add(more).filter(|free| *free < end);
    let free = free.ok_or(GrowError::Foreign)?;
    superblock.set_u32(0x00, superblock.u32(0x00).saturating_add(inodes));
    superblock.set_u32(0x04, low(end));
    superblock.set_u32(0x0c, low(free));
    superblock.set_u32(0x10, superblock.u32(0x10).saturating_add(inodes));
    superblock.set_u32(0x150, high(end));
    superblock.set_u32(0x158, high(free));
    let sum = crc32c(u32::MAX, &superblock.0[..0x3fc]);
    superblock.set_u32(0x3fc, sum);
    disk.sync_data()?;
    disk.write_all_at(superblock.0, SUPER_OFFSET)?;
    Ok(disk.sync_all()?)
}

/// Where a group's descriptor is.
const fn descriptor_at(group: u64) -> u64 {
    BLOCK + group * DESCRIPTOR as u64
}

/// Where a group's bitmap of blocks is.
fn bitmap_block(descriptor: &Fields<'_>) -> u64 {
    u64::from(descriptor.u32(0x00)) | u64::from(descriptor.u32(0x20)) << 32
}

/// A group as the template has it.
fn copy_group(disk: &File, template: &File, whole: &Geometry, group: u64) -> io::Result<()> {
    let mut bytes = [0; DESCRIPTOR];
    template.read_exact_at(&mut bytes, descriptor_at(group))?;
    disk.write_all_at(&bytes, descriptor_at(group))?;
    let descriptor = Fields(&mut bytes);
    let block = bitmap_block(&descriptor);
    if descriptor.u16(0x12) & BLOCK_UNINIT == 0 && block < whole.blocks - whole.free {
        let mut bitmap = [0u8; BLOCK as usize];
        template.read_exact_at(&mut bitmap, block * BLOCK)?;
        disk.write_all_at(&bitmap, block * BLOCK)?;
    }
    Ok(())
}

/// The group that was the last one ends later: what is behind its old end is free.
fn extend_group(
    disk: &File,
    template: &File,
    whole: &Geometry,
    (group, old_end, new_end): (u64, u64, u64),
) -> Result<(), GrowError> {
    let first = group * whole.blocks_per_group;
    let until = (first + whole.blocks_per_group).min(new_end);
    if until == old_end {
        return Ok(());
    }
    let mut original = [0; DESCRIPTOR];
    template.read_exact_at(&mut original, descriptor_at(group))?;
    let block = bitmap_block(&Fields(&mut original));
    let mut bytes = [0; DESCRIPTOR];
    disk.read_exact_at(&mut bytes, descriptor_at(group))?;
    let mut descriptor = Fields(&mut bytes);
    if bitmap_block(&descriptor) != block || block >= whole.blocks - whole.free {
        return Err(GrowError::Foreign);
    }
    let had = u64::from(descriptor.u16(0x0c)) | u64::from(descriptor.u16(0x2c)) << 16;
    let free = had + (until - old_end);
    if free > whole.blocks_per_group {
        return Err(GrowError::Foreign);
    }
    descriptor.set_u16(0x0c, (free & 0xffff) as u16);
    descriptor.set_u16(0x2c, (free >> 16) as u16);
    if descriptor.u16(0x12) & BLOCK_UNINIT == 0 {
        let mut bitmap = [0u8; BLOCK as usize];
        disk.read_exact_at(&mut bitmap, block * BLOCK)?;
        for bit in (old_end - first) as usize..(until - first) as usize {
            bitmap[bit / 8] &= !(1 << (bit % 8));
        }
        disk.write_all_at(&bitmap, block * BLOCK)?;
        let sum = crc32c(whole.seed, &bitmap);
        descriptor.set_u16(0x18, (sum & 0xffff) as u16);
        descriptor.set_u16(0x38, (sum >> 16) as u16);
    }
    descriptor.set_u16(0x1e, 0);
    let sum = crc32c(whole.seed, &low(group).to_le_bytes());
    let sum = crc32c(sum, descriptor.0);
    descriptor.set_u16(0x1e, (sum & 0xffff) as u16);
    disk.write_all_at(descriptor.0, descriptor_at(group))?;
    Ok(())
}

/// The block that a file system ends at which holds so much.
fn end_of(whole: &Geometry, size_bytes: u64) -> u64 {
    let wanted = size_bytes.div_ceil(BLOCK);
    let used = whole.blocks - whole.free;
    // A fiftieth of the sum is a forty-ninth of the rest.
    let free = wanted.saturating_add((used.saturating_add(wanted) / 49).min(MAX_RESERVE));
    used + free.min(whole.free)
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
    let at = descriptor_at(group);
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
    let block = bitmap_block(descriptor);
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

    /// A disk that was cut, and grown again, is like one that was cut to that size at once.
    #[test]
    fn a_grown_disk_is_like_one_that_was_cut_later() {
        let Some(template) = template() else { return };
        let dir = std::env::temp_dir().join(format!("hullbox-grow-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let whole = File::open(&template).unwrap();
        let make = |name: &str, mib: u64| {
            let path = dir.join(name);
            clone_sparse(&template, &path).unwrap();
            let file = File::options().read(true).write(true).open(&path).unwrap();
            cut(&file, mib << 20).unwrap();
            (path, file)
        };
        for (from, to) in [
            (1, 2),
            (1, 106),
            (10, 1000),
            (105, 16_000),
            (1000, 5000),
            (5000, 20_000),
        ] {
            let (small, file) = make("small", from);
            grow(&file, &whole, to << 20).unwrap();
            let (large, other) = make("large", to);
            assert_eq!(
                file.metadata().unwrap().len(),
                other.metadata().unwrap().len()
            );
            let (Some(grown), Some(cut)) = (
                output("dumpe2fs", &[], &small),
                output("dumpe2fs", &[], &large),
            ) else {
                return;
            };
            assert_eq!(grown, cut, "{from} {to}");
            // Less than it has changes nothing.
            grow(&file, &whole, 1 << 20).unwrap();
            assert_eq!(output("dumpe2fs", &[], &small).unwrap(), grown);
        }
        let (path, file) = make("unclean", 10);
        let mut byte = [0; 4];
        file.read_exact_at(&mut byte, SUPER_OFFSET + 0x60).unwrap();
        byte[0] |= RECOVER as u8;
        file.write_all_at(&byte, SUPER_OFFSET + 0x60).unwrap();
        assert!(matches!(
            grow(&file, &whole, 1 << 30),
            Err(GrowError::Unclean)
        ));
        std::fs::write(&path, vec![0x5a; 8192]).unwrap();
        assert!(grow(&file, &whole, 1 << 30).is_err());
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
