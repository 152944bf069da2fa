//! Images, a host with settings of its own, and the answers of a registry that behaves.

use crate::fake::{Asked, Body, Reply};
use hullbox_registry::{
    Client, Descriptor, Digest, Fetched, ImageName, Notice, Options, Places, Platform, Resolution,
    ResolveError, Resolved, Settings, Timing,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Bytes that are different everywhere.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..length).map(|_| random.u8(..)).collect()
}

/// An image with its blobs.
#[derive(Clone)]
pub struct Image {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
}

pub fn descriptor(bytes: &[u8], media_type: &str) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(bytes),
        size_bytes: bytes.len() as u64,
        platform: None,
        annotations: BTreeMap::new(),
    }
}

impl Image {
    pub fn new(layers: Vec<Vec<u8>>) -> Self {
        let config = br#"{"architecture":"amd64","os":"linux"}"#.to_vec();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(&config, CONFIG),
            "layers": layers.iter().map(|own| descriptor(own, LAYER)).collect::<Vec<_>>(),
        });
        Self {
            manifest: serde_json::to_vec_pretty(&manifest).unwrap(),
            config,
            layers,
        }
    }

    pub fn small() -> Self {
        Self::new(vec![noise(300_000, 1)])
    }

    pub fn layer(&self) -> Descriptor {
        descriptor(&self.layers[0], LAYER)
    }

    pub fn config(&self) -> Descriptor {
        descriptor(&self.config, CONFIG)
    }

    pub fn fetched(&self) -> Fetched {
        Fetched::new(self.manifest.clone(), MANIFEST)
    }

    /// The answer of a registry that behaves and has the image under every name.
    pub fn reply(&self, asked: &Asked) -> Reply {
        let Some((_, wanted)) = asked.path.rsplit_once('/') else {
            return Reply::not_found();
        };
        if asked.path.contains("/manifests/") {
            let digest = Digest::of(&self.manifest).to_string();
            let is_here = !wanted.starts_with("sha256") || wanted == digest;
            return match is_here {
                true => manifest(&self.manifest, MANIFEST),
                false => Reply::not_found(),
            };
        }
        let mut blobs = self.layers.iter().chain([&self.config]);
        match blobs.find(|blob| Digest::of(blob).to_string() == wanted) {
            Some(bytes) => blob(bytes, asked),
            None => Reply::error(404, "BLOB_UNKNOWN", "blob unknown to registry"),
        }
    }
}

pub fn manifest(bytes: &[u8], media_type: &str) -> Reply {
    Reply::new(200, bytes)
        .with("content-type", media_type)
        .with("docker-content-digest", Digest::of(bytes).to_string())
}

/// A blob, or the part of it that was asked for.
pub fn blob(bytes: &[u8], asked: &Asked) -> Reply {
    match asked.range() {
        None => Reply::new(200, bytes),
        Some(start) => part(bytes, start),
    }
}

pub fn part(bytes: &[u8], start: usize) -> Reply {
    let place = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
    Reply::new(206, &bytes[start..]).with("content-range", place)
}

/// The same answer, of which so many bytes are sent.
pub fn cut(reply: Reply, at: usize) -> Reply {
    match reply.body.clone() {
        Body::Whole(bytes) => {
            let at = at.min(bytes.len());
            reply.sent_as(Body::Cut(bytes, at))
        }
        other => panic!("{other:?}"),
    }
}

/// Times that tests can wait for.
pub fn quick() -> Timing {
    Timing {
        connect_ms: 5000,
        response_ms: 2000,
        document_ms: 2000,
        idle_ms: 400,
        slow_window_ms: 300,
        slow_bytes: 1000,
        commit_ms: 5000,
        backoff_ms: 5,
        max_wait_ms: 3000,
        tries: 4,
        progress_bytes: 50_000,
    }
}

/// A host and a user of a test's own.
pub struct Host {
    pub root: tempfile::TempDir,
    pub places: Places,
    pub notices: Arc<Mutex<Vec<Notice>>>,
    pub options: Options,
}

impl Host {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let notices: Arc<Mutex<Vec<Notice>>> = Arc::default();
        let told = notices.clone();
        let places = Places {
            etc: root.path().join("etc"),
            share: root.path().join("share"),
            run: root.path().join("run"),
            home: Some(root.path().join("home")),
            variables: BTreeMap::new(),
        };
        let options = Options {
            observer: Some(Arc::new(move |notice| told.lock().unwrap().push(notice))),
            verify_key: None,
            timing: quick(),
        };
        Self {
            root,
            places,
            notices,
            options,
        }
    }

    /// A file below the host's root.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn registries(&self, text: &str) -> &Self {
        self.write("etc/containers/registries.conf", text);
        self
    }

    /// Keeps a password for a registry in Docker's file.
    pub fn password(&self, registry: &str, user: &str, password: &str) -> &Self {
        let auths = json!({"auths": {registry: {"username": user, "password": password}}});
        self.write("home/.docker/config.json", auths.to_string());
        self
    }

    pub fn set(&mut self, variable: &str, value: &str) {
        self.places
            .variables
            .insert(variable.to_owned(), value.to_owned());
    }

    pub fn client(&self) -> Client {
        let settings = Settings::load(self.places.clone()).unwrap();
        Client::new(Arc::new(settings), self.options.clone()).unwrap()
    }

    pub fn warnings(&self) -> Vec<String> {
        let notices = self.notices.lock().unwrap();
        let text = |notice: &Notice| match notice {
            Notice::Warning(text) => Some(text.clone()),
            _ => None,
        };
        notices.iter().filter_map(text).collect()
    }

    pub fn retries(&self) -> usize {
        let notices = self.notices.lock().unwrap();
        let is_retry = |notice: &&Notice| matches!(notice, Notice::Retry { .. });
        notices.iter().filter(is_retry).count()
    }
}

pub fn name(text: &str) -> ImageName {
    text.parse().unwrap()
}

pub fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

/// From a name to its image.
pub async fn resolve(client: &Client, text: &str) -> Result<Resolved, ResolveError> {
    match client.resolve(&name(text), &amd64(), None).await? {
        Resolution::Image(image) => Ok(*image),
        other => panic!("{other:?}"),
    }
}

/// An error with its causes, as the command line shows it.
pub fn line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    assert!(!text.contains('\n'), "{text}");
    text
}

/// A whole blob, in the way that layers come.
pub async fn download(
    client: &Client,
    name: &ImageName,
    blob: &Descriptor,
    from: u64,
) -> Result<Vec<u8>, hullbox_registry::BlobError> {
    let mut stream = client.blob(name, blob, from).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}
