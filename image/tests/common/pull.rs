//! Images in pieces, as a registry has them.

use super::archive::{CONFIG, INDEX, LAYER, MANIFEST, config, descriptor, gzip};
use hullbox_image::{
    Digest, LayerStep, LayerTask, Loaded, Pull, PullError, PullRequest, Reference, Store,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read;

/// An image that can be pulled.
#[derive(Clone)]
pub struct Remote {
    pub request: PullRequest,
    /// By digest.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
}

impl Remote {
    /// Of these tars, gzipped.
    pub fn new(layers: &[&[u8]], name: &str) -> Self {
        let packed: Vec<_> = layers.iter().map(|layer| gzip(layer)).collect();
        Self::packed(layers, &packed, LAYER, name, |_| {})
    }

    /// Of these tars, which travel as these blobs; `change` may spoil the manifest.
    pub fn packed(
        layers: &[&[u8]],
        packed: &[Vec<u8>],
        media_type: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Self {
        let config = config(layers).to_string();
        let descriptors: Vec<_> = packed
            .iter()
            .map(|blob| descriptor(media_type, blob))
            .collect();
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, config.as_bytes()),
            "layers": descriptors,
        });
        change(&mut manifest);
        let manifest = manifest.to_string().into_bytes();
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [descriptor(MANIFEST, &manifest)],
        });
        let name = Reference::parse(name).unwrap();
        Self {
            request: PullRequest {
                manifest,
                media_type: Some(MANIFEST.to_owned()),
                config: config.into_bytes(),
                index: Some(Digest::of(index.to_string().as_bytes())),
                origin: Some(name.clone()),
                names: vec![name],
            },
            blobs: packed
                .iter()
                .map(|blob| (Digest::of(blob), blob.clone()))
                .collect(),
        }
    }

    pub fn manifest_digest(&self) -> Digest {
        Digest::of(&self.request.manifest)
    }

    /// A layer's bytes from where the task wants them; none of a layer that nobody has.
    pub fn rest(&self, task: &LayerTask) -> &[u8] {
        let from = usize::try_from(task.partial_bytes()).unwrap();
        let blob = self.blobs.get(&task.info().digest);
        blob.map_or(&[], |blob| &blob[from..])
    }

    /// Feeds every layer that is wanted, each from a thread of its own. Answers how many bytes
    /// were fed.
    pub fn feed(&self, pull: &Pull) -> Result<u64, PullError> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..pull.layers().len())
                .map(|index| scope.spawn(move || self.feed_one(pull, index)))
                .collect();
            let mut total = 0;
            for thread in threads {
                total += thread.join().unwrap()?;
            }
            Ok(total)
        })
    }

    fn feed_one(&self, pull: &Pull, index: usize) -> Result<u64, PullError> {
        match pull.layer(index)? {
            LayerStep::Had => Ok(0),
            LayerStep::Fetch(task) => {
                let rest = self.rest(&task);
                let bytes = rest.len() as u64;
                task.feed(rest)?;
                Ok(bytes)
            }
        }
    }

    /// The whole pull.
    pub fn pull(&self, store: &mut Store) -> Result<(Loaded, u64), PullError> {
        let pull = store.begin_pull(self.request.clone())?;
        let bytes = self.feed(&pull)?;
        Ok((pull.finish(store)?, bytes))
    }
}

/// The task of a layer that is to be fetched.
pub fn task(pull: &Pull, index: usize) -> LayerTask {
    let step = pull.layer(index).unwrap();
    let task = match step {
        LayerStep::Fetch(task) => Some(task),
        LayerStep::Had => None,
    };
    task.unwrap()
}

/// A source that fails after some bytes.
pub struct Breaks<'a> {
    pub bytes: &'a [u8],
    pub after: usize,
}

impl Read for Breaks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = buffer.len().min(self.after).min(self.bytes.len());
        if len == 0 {
            return Err(std::io::ErrorKind::ConnectionReset.into());
        }
        buffer[..len].copy_from_slice(&self.bytes[..len]);
        self.bytes = &self.bytes[len..];
        self.after -= len;
        Ok(len)
    }
}
