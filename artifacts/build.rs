//! Embeds the guest kernel, the initramfs, the empty disk and the probe, where they have been built.
//!
//! They come from the directory named by `HULLBOX_ARTIFACTS`, by default `build/artifacts` in the
//! workspace. A build without them is a good build whose program says what is missing.
//!
//! A file is kept as the zstd frame of its data extents, holes left out, so that a sparse disk of
//! gigabytes costs what is written in it.

use sha2::{Digest, Sha256};
use std::error::Error;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const NAMES: [&str; 4] = ["vmlinux", "initramfs.cpio", "empty.ext4", "hullbox-probe"];
const BLOCK: usize = 4096;
/// Good compression at a speed that nobody minds.
const LEVEL: i32 = 9;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    println!("cargo::rerun-if-env-changed=HULLBOX_ARTIFACTS");
    println!("cargo::rerun-if-changed=build.rs");
    let from = match std::env::var_os("HULLBOX_ARTIFACTS") {
        Some(dir) => PathBuf::from(dir),
        None => {
            let manifest = std::env::var("CARGO_MANIFEST_DIR")?;
            let dir = Path::new(&manifest).join("../build/artifacts");
            // Cargo reruns this script at every build while a path that it watches is missing.
            fs::create_dir_all(&dir)?;
            dir
        }
    };
    println!("cargo::rerun-if-changed={}", from.display());
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut table = String::from("&[\n");
    for name in NAMES {
        let path = from.join(name);
        if path.exists() {
            embed(&path, name, &out, &mut table)?;
        }
    }
    table.push_str("]\n");
    fs::write(out.join("artifacts.rs"), table)?;
    Ok(())
}

fn embed(path: &Path, name: &str, out: &Path, table: &mut String) -> Result<()> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let compressed = out.join(format!("{name}.zst"));
    let mut encoder = zstd::Encoder::new(File::create(&compressed)?, LEVEL)?;
    let mut hash = Sha256::new();
    hash.update(len.to_le_bytes());
    let mut extents = String::new();
    for (offset, length) in extents_of(&file, len)? {
        hash.update(offset.to_le_bytes());
        hash.update(length.to_le_bytes());
        let mut data = vec![0; usize::try_from(length)?];
        file.read_exact_at(&mut data, offset)?;
        hash.update(&data);
        encoder.write_all(&data)?;
        write!(extents, "({offset}, {length}), ")?;
    }
    encoder.finish()?.sync_all()?;
    let mut hex = String::new();
    for byte in hash.finalize().iter().take(8) {
        write!(hex, "{byte:02x}")?;
    }
    writeln!(
        table,
        "    Embedded {{ name: {name:?}, hash: {hex:?}, len: {len}, extents: &[{extents}],\n        \
         zstd: include_bytes!({:?}) }},",
        compressed.display().to_string()
    )?;
    Ok(())
}

/// Runs of blocks that are not all zero. Data that happens to be zero becomes a hole too, which
/// makes the result the same whatever became of the holes on the way here.
fn extents_of(file: &File, len: u64) -> Result<Vec<(u64, u64)>> {
    let mut extents: Vec<(u64, u64)> = Vec::new();
    let mut buffer = vec![0u8; 256 * BLOCK];
    let mut at = 0;
    while let Some(start) = next_data(file, at, len)? {
        at = start - start % BLOCK as u64;
        let want = buffer.len().min(usize::try_from(len - at)?);
        let chunk = &mut buffer[..want];
        read_exact(file, chunk, at)?;
        for block in chunk.chunks(BLOCK) {
            let length = block.len() as u64;
            if block.iter().any(|byte| *byte != 0) {
                match extents.last_mut() {
                    Some((offset, sum)) if *offset + *sum == at => *sum += length,
                    _ => extents.push((at, length)),
                }
            }
            at += length;
        }
    }
    Ok(extents)
}

fn read_exact(file: &File, buffer: &mut [u8], at: u64) -> Result<()> {
    let mut reader = file;
    std::io::Seek::seek(&mut reader, std::io::SeekFrom::Start(at))?;
    Ok(reader.read_exact(buffer)?)
}

fn next_data(file: &File, at: u64, len: u64) -> Result<Option<u64>> {
    if at >= len {
        return Ok(None);
    }
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(found) => Ok(Some(found)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
