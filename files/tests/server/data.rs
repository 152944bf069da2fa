//! Data against a model: operations by chance on a file, and the same on bytes in memory. Whatever is read,
//! by the guest's kernel, past its cache, or on the host, is what the model has.

use crate::mounted::Mounted;
use anyhow::{Context, Result, ensure};
use hullbox_files::Export;
use rustix::fs::{FallocateFlags, OFlags, fallocate, fcntl_setfl};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Most bytes of the file.
const MOST: u64 = 300_000;

/// Longer than anything holds that the guest was told, and than a tick.
const SETTLING: Duration = Duration::from_millis(25);

/// How long: `HULLBOX_TEST_DATA_S`, or a second and a half.
fn limit() -> Duration {
    let seconds = std::env::var("HULLBOX_TEST_DATA_S").ok();
    let seconds = seconds.and_then(|text| text.parse().ok());
    seconds.map_or(Duration::from_millis(1500), Duration::from_secs)
}

/// Numbers that look as by chance, and are the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most.max(1)
    }

    /// A part of the file, mostly short, with an end that is sometimes a page's.
    fn range(&mut self, size: u64) -> (u64, usize) {
        let mut begin = self.below(size + 1);
        if self.below(4) == 0 {
            begin &= !4095;
        }
        let most = if self.below(4) == 0 { 70_000 } else { 5000 };
        let len = 1 + self.below(most).min(MOST - 1);
        let begin = begin.min(MOST - len);
        (begin, usize::try_from(len).unwrap_or(1))
    }
}

struct Scene {
    guest: PathBuf,
    host: PathBuf,
    file: File,
    model: Vec<u8>,
    chance: Chance,
    /// What was done last.
    done: Vec<String>,
}

fn open(path: &Path, flags: OFlags) -> Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    options.custom_flags(flags.bits().cast_signed());
    Ok(options.open(path)?)
}

impl Scene {
    fn note(&mut self, what: &str, at: u64, len: usize) {
        self.done.push(format!("{what} {len} at {at}"));
        if self.done.len() > 12 {
            self.done.remove(0);
        }
    }

    fn resize(&mut self, size: usize) {
        self.model.resize(size, 0);
    }

    /// Writes to the model, which grows by zeros.
    fn write_model(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let at = usize::try_from(at)?;
        self.resize(self.model.len().max(at + bytes.len()));
        self.model[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        let size = self.model.len() as u64;
        let (at, len) = self.chance.range(size.max(1));
        let fresh: Vec<u8> = (0..len).map(|_| self.chance.below(256) as u8).collect();
        let flags = FallocateFlags::KEEP_SIZE;
        match self.chance.below(12) {
            0..3 => {
                self.note("write", at, len);
                self.file.write_all_at(&fresh, at)?;
                self.write_model(at, &fresh)?;
            }
            3 => {
                self.note("append", size, len);
                if size + (len as u64) < MOST {
                    let mut file = open(&self.guest, OFlags::APPEND)?;
                    std::io::Write::write_all(&mut file, &fresh)?;
                    self.write_model(size, &fresh)?;
                }
            }
            4 => {
                let size = self.chance.below(MOST);
                self.note("truncate", size, 0);
                self.file.set_len(size)?;
                self.resize(usize::try_from(size)?);
            }
            5 => {
                self.note("punch", at, len);
                fallocate(
                    &self.file,
                    flags | FallocateFlags::PUNCH_HOLE,
                    at,
                    len as u64,
                )?;
                let end = self.model.len().min(usize::try_from(at)? + len);
                if let Some(hole) = self.model.get_mut(usize::try_from(at)?..end) {
                    hole.fill(0);
                }
            }
            6 => {
                self.note("allocate", at, len);
                fallocate(&self.file, FallocateFlags::empty(), at, len as u64)?;
                self.resize(self.model.len().max(usize::try_from(at)? + len));
            }
            7 => {
                self.note("copy", at, len);
                let len = len.min(usize::try_from(size.saturating_sub(at))?);
                let (mut from, mut to) = (at, (size + 4096).min(MOST - len as u64));
                let target = to;
                let copied = rustix::fs::copy_file_range(
                    &self.file,
                    Some(&mut from),
                    &self.file,
                    Some(&mut to),
                    len,
                );
                // Onto itself is refused.
                if let Ok(copied) = copied {
                    let begin = usize::try_from(at)?;
                    let bytes = self
                        .model
                        .get(begin..begin + copied)
                        .unwrap_or(&[])
                        .to_vec();
                    if !bytes.is_empty() {
                        self.write_model(target, &bytes)?;
                    }
                }
            }
            8 => {
                self.note("rename and open again", 0, 0);
                let aside = self.guest.with_extension("aside");
                fs::rename(&self.guest, &aside)?;
                fs::rename(&aside, &self.guest)?;
                self.file = open(&self.guest, OFlags::empty())?;
            }
            9 => {
                self.note("pass the cache by", 0, 0);
                let now = rustix::fs::fcntl_getfl(&self.file)?;
                fcntl_setfl(&self.file, now ^ OFlags::DIRECT)?;
            }
            _ => self.compare(&self.file, at, len)?,
        }
        Ok(())
    }

    fn compare(&self, file: &File, at: u64, len: usize) -> Result<()> {
        let mut bytes = vec![0; len];
        let got = file.read_at(&mut bytes, at)?;
        let begin = self.model.len().min(usize::try_from(at)?);
        let wanted = &self.model[begin..self.model.len().min(begin + len)];
        let same = bytes[..got] == *wanted;
        ensure!(
            same,
            "{got} bytes of {} at {at}: {:?}",
            wanted.len(),
            self.done
        );
        Ok(())
    }

    /// All of it, also on the host.
    fn compare_all(&self) -> Result<()> {
        let most = usize::try_from(MOST)?;
        self.compare(&self.file, 0, most)?;
        self.file.sync_all()?;
        self.compare(&File::open(&self.host)?, 0, most)?;
        ensure!(fs::metadata(&self.guest)?.len() == self.model.len() as u64);
        Ok(())
    }

    /// The host's turn: it changes the file, and the guest opens it anew when what it knew has expired.
    /// Not in the tick of the clock in which the guest did: before Linux 6.13 nobody could tell the two apart
    /// but by locks.
    fn host_writes(&mut self) -> Result<()> {
        std::thread::sleep(SETTLING);
        let size = self.model.len() as u64;
        let (at, len) = self.chance.range(size.max(1));
        let fresh: Vec<u8> = (0..len).map(|_| self.chance.below(256) as u8).collect();
        self.note("the host writes", at, len);
        open(&self.host, OFlags::empty())?.write_all_at(&fresh, at)?;
        self.write_model(at, &fresh)?;
        std::thread::sleep(SETTLING);
        self.file = open(&self.guest, OFlags::empty())?;
        self.compare_all()
    }
}

fn against_a_model(change: impl FnOnce(Export) -> Export, host_writes: bool) -> Result<()> {
    let Some(mounted) = Mounted::new(change)? else {
        return Ok(());
    };
    let guest = mounted.path().join("file");
    let mut scene = Scene {
        file: open(&guest, OFlags::empty())?,
        host: mounted.source.path().join("file"),
        guest,
        model: Vec::new(),
        chance: Chance(0x6a09_e667_f3bc_c908),
        done: Vec::new(),
    };
    let end = Instant::now() + limit();
    let mut steps = 0;
    while Instant::now() < end || steps < 200 {
        steps += 1;
        scene
            .step()
            .with_context(|| format!("step {steps}: {:?}", scene.done))?;
        if steps % 100 == 0 {
            scene.compare_all()?;
        }
        if host_writes && steps % 50 == 0 {
            scene.host_writes()?;
        }
    }
    scene.compare_all()?;
    println!("  {steps} operations");
    Ok(())
}

pub fn what_is_written_is_read() -> Result<()> {
    against_a_model(|export| export, true)
}

pub fn what_is_written_later_is_read() -> Result<()> {
    let exclusive = |export| Export {
        exclusive: true,
        volume: true,
        ..export
    };
    against_a_model(exclusive, false)
}
