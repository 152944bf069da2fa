//! Pulls the first image of an OCI layout's directory into a store, six layers at a time, and says
//! what came of it: for measuring and trying without a network.
//!
//! `cargo run --profile fast -p hullbox-image --example pull -- STORE LAYOUT [NAME]`

use hullbox_image::{Digest, LayerStep, Pull, PullRequest, Reference, Store};
use serde_json::Value;
use std::error::Error;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

type Failure = Box<dyn Error + Send + Sync>;

const THREADS: usize = 6;

struct Layout(PathBuf);

impl Layout {
    fn path(&self, digest: &Digest) -> PathBuf {
        self.0.join("blobs/sha256").join(digest.hex())
    }

    /// The document that a descriptor leads to, and its digest.
    fn document(&self, descriptor: &Value) -> Result<(Digest, Vec<u8>), Failure> {
        let text = descriptor["digest"].as_str().ok_or("no digest")?;
        let digest: Digest = text.parse()?;
        Ok((digest, std::fs::read(self.path(&digest))?))
    }

    fn request(&self, name: &str) -> Result<PullRequest, Failure> {
        let index: Value = serde_json::from_slice(&std::fs::read(self.0.join("index.json"))?)?;
        let (_, manifest) = self.document(&index["manifests"][0])?;
        let document: Value = serde_json::from_slice(&manifest)?;
        let (_, config) = self.document(&document["config"])?;
        let name = Reference::parse(name)?;
        Ok(PullRequest {
            manifest,
            media_type: None,
            config,
            index: None,
            origin: Some(name.clone()),
            names: vec![name],
        })
    }

    /// Feeds layers until none is left.
    fn feed(&self, pull: &Pull, next: &AtomicUsize) -> Result<(), Failure> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(info) = pull.layers().get(index) else {
                return Ok(());
            };
            if let LayerStep::Fetch(task) = pull.layer(index)? {
                let mut file = File::open(self.path(&info.digest))?;
                file.seek(SeekFrom::Start(task.partial_bytes()))?;
                task.feed(file)?;
            }
        }
    }
}

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: pull STORE LAYOUT [NAME]";
    let root = args.next().ok_or(usage)?;
    let layout = Layout(args.next().ok_or(usage)?.into());
    let name = args.next().unwrap_or_else(|| "pulled".to_owned());
    let began = Instant::now();
    let mut store = Store::open(Path::new(&root))?;
    let pull = store.begin_pull(layout.request(&name)?)?;
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(|| layout.feed(&pull, &next)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
    })?;
    let fed = began.elapsed();
    let loaded = pull.finish(&mut store)?;
    println!("{} in {:?}, fed in {fed:?}", loaded.id, began.elapsed());
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    println!("{}", peak.unwrap_or_default());
    Ok(())
}
