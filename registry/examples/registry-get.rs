//! Fetches an image's blobs, six at once, and throws them away: what the client alone costs.
//!
//! `registry-get IMAGE` prints the bytes, the time and the peak of resident memory.
#![expect(clippy::print_stdout, reason = "it is a program of its own")]

use hullbox_registry::{
    Client, Descriptor, ImageName, Options, Places, Platform, Resolution, Settings,
};
use std::collections::VecDeque;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

const DOWNLOADS: usize = 6;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

async fn get(client: &Client, name: &ImageName, blob: &Descriptor) -> Outcome<u64> {
    let mut stream = client.blob(name, blob, 0).await?;
    let mut bytes = 0;
    while let Some(piece) = stream.next().await? {
        bytes += piece.len() as u64;
    }
    Ok(bytes)
}

async fn get_all(client: Client, typed: String) -> Outcome<u64> {
    let candidates = client.settings().candidates(&typed)?;
    let name = candidates.first().ok_or("no name")?;
    let image = match client.resolve(name, &Platform::guest(), None).await? {
        Resolution::Image(image) => image,
        other => return Err(format!("{other:?}").into()),
    };
    let blobs = image.layers.iter().chain([&image.config]).cloned();
    let queue: Arc<Mutex<VecDeque<Descriptor>>> = Arc::new(Mutex::new(blobs.collect()));
    let tasks: Vec<_> = (0..DOWNLOADS)
        .map(|_| {
            let (client, name, queue) = (client.clone(), name.clone(), queue.clone());
            tokio::spawn(async move {
                let mut bytes = 0;
                loop {
                    let next = queue
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .pop_front();
                    let Some(blob) = next else {
                        return Outcome::Ok(bytes);
                    };
                    bytes += get(&client, &name, &blob).await?;
                }
            })
        })
        .collect();
    let mut bytes = 0;
    for task in tasks {
        bytes += task.await??;
    }
    Ok(bytes)
}

fn main() -> Outcome<()> {
    let typed = std::env::args().nth(1).ok_or("usage: registry-get IMAGE")?;
    let settings = Arc::new(Settings::load(Places::of_process())?);
    let client = Client::new(settings, Options::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let started = Instant::now();
    let bytes = runtime.block_on(get_all(client, typed))?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    println!(
        "{bytes} bytes in {} ms, {}",
        started.elapsed().as_millis(),
        peak.unwrap_or("?")
    );
    Ok(())
}
