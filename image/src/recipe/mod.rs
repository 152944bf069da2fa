//! Recipes: how to make a layer's tar again, byte for byte, from its filesystem image.
//!
//! A layer's name is the digest of its tar, and that is not kept. What is kept, beside the image,
//! is every byte of the tar that the image's data blocks do not hold: headers, padding, the short
//! ends of files that stand behind inodes, and whatever follows the archive's end. Data blocks
//! are never moved and never given up while a layer is written, not even those of a file that a
//! later entry replaces, so where they stand is all that has to be noted.
//!
//! ```text
//! one zstd frame with a checksum:
//!   "HBRCP\x01"
//!   1 LEN:u32 BYTES…      these bytes
//!   2 SKEW:i64 LEN:u64    this many bytes of the image, SKEW bytes after the first whole block
//!                         behind those last taken from it (0 for files that follow each other)
//!   0 TOTAL:u64           the end, and the tar's length
//! ```
//!
//! A recipe proves nothing by itself: who uses one compares the digest of what it makes.

mod read;
mod write;

pub use read::RecipeError;
pub(crate) use read::regenerate;
pub(crate) use write::{RecipeWriter, Recorder};

use crate::erofs::BLOCK_SIZE;

const MAGIC: &[u8; 6] = b"HBRCP\x01";
const END: u8 = 0;
const LITERAL: u8 = 1;
const KEPT: u8 = 2;
/// Longest piece of literal bytes in one record.
const MAX_LITERAL: usize = 64 * 1024;

/// Where the bytes after those that end at `end` most likely are.
const fn expected(end: u64) -> u64 {
    end.next_multiple_of(BLOCK_SIZE as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, Read, Write};
    use std::os::unix::fs::FileExt;

    fn image() -> std::fs::File {
        let image = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..40_000u32).map(|n| (n % 251) as u8).collect();
        image.write_all_at(&bytes, 0).unwrap();
        image
    }

    /// Records 20,000 bytes of which some are in the image.
    fn recorded() -> (std::fs::File, Vec<u8>) {
        let mut tar = Vec::new();
        tar.extend_from_slice(&[7; 512]);
        tar.extend((4096..9096u32).map(|n| (n % 251) as u8));
        tar.extend_from_slice(&[9; 1000]);
        tar.extend((12_288..13_288u32).map(|n| (n % 251) as u8));
        tar.extend((0..50u32).map(|n| (n % 251) as u8));
        let writer = RecipeWriter::new(tempfile::tempfile().unwrap()).unwrap();
        let mut recorder = Recorder::new(&tar[..], writer);
        recorder.read_exact(&mut [0; 512]).unwrap();
        use hullbox_tar::TarSource;
        recorder.consume_kept(3000, 4096);
        recorder.consume_kept(2000, 7096);
        recorder.consume(1000);
        recorder.consume_kept(1000, 12_288);
        recorder.consume_kept(50, 0);
        let (_, writer) = recorder.into_parts();
        let (file, total) = writer.finish().unwrap();
        assert_eq!(total, tar.len() as u64);
        (file, tar)
    }

    #[test]
    fn what_was_recorded_comes_back() {
        let (recipe, tar) = recorded();
        let mut out = Vec::new();
        let total = regenerate(&recipe, &image(), tar.len() as u64, &mut out).unwrap();
        assert_eq!((total, out), (tar.len() as u64, tar));
    }

    #[test]
    fn damage_is_noticed() {
        let (recipe, tar) = recorded();
        let len = recipe.metadata().unwrap().len();
        let mut noticed = 0;
        for at in 0..len {
            let mut byte = [0];
            recipe.read_exact_at(&mut byte, at).unwrap();
            recipe.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
            let mut out = Vec::new();
            let made = regenerate(&recipe, &image(), tar.len() as u64, &mut out);
            // The frame's descriptor and window have bits that do not matter here.
            assert!(made.is_err() || out == tar, "byte {at} of {len}");
            noticed += u64::from(made.is_err());
            recipe.write_all_at(&byte, at).unwrap();
        }
        assert!(noticed + 3 > len, "{noticed} of {len}");
        recipe.set_len(len - 1).unwrap();
        let made = regenerate(&recipe, &image(), tar.len() as u64, &mut Vec::new());
        assert!(matches!(made, Err(RecipeError::Damaged(_))));
    }

    #[test]
    fn a_forged_recipe_makes_no_more_than_it_may() {
        let file = tempfile::tempfile().unwrap();
        let mut encoder = zstd::stream::write::Encoder::new(&file, 1).unwrap();
        encoder.write_all(MAGIC).unwrap();
        encoder.write_all(&[KEPT]).unwrap();
        encoder.write_all(&0i64.to_le_bytes()).unwrap();
        encoder.write_all(&u64::MAX.to_le_bytes()).unwrap();
        encoder.finish().unwrap();
        let mut out = Vec::new();
        let made = regenerate(&file, &image(), 100, &mut out);
        assert!(matches!(made, Err(RecipeError::Damaged(_))));
        assert!(out.len() <= 100);
    }
}
