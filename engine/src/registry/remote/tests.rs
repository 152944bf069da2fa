//! Both sides of the connection, with a store that keeps what it gets in memory.

use super::*;
use crate::registry::ends::{Form, OutgoingLayer};
use std::os::unix::net::UnixStream;

#[derive(Default)]
struct Kept {
    blobs: Vec<(usize, Vec<u8>)>,
    sent: Vec<String>,
}

#[derive(Default, Clone)]
struct Memory {
    kept: Arc<Mutex<Kept>>,
}

impl Target for Memory {
    fn has(&self, text: &str, platform: Option<&str>) -> Result<bool, EndError> {
        Ok(text == "there" && platform != Some("other"))
    }

    fn known(&self, name: &str, platform: &str) -> Result<Option<String>, EndError> {
        match name {
            "there" => Ok(Some(format!("sha256:{platform}"))),
            _ => Ok(None),
        }
    }

    fn stored_config(&self, digest: &str) -> Result<Option<Vec<u8>>, EndError> {
        Ok((digest == "sha256:c").then(|| b"{}".to_vec()))
    }

    fn begin(&self, incoming: &Incoming) -> Result<Arc<dyn Taking>, EndError> {
        match &incoming.name[..] {
            "refused" => Err(EndError::Store("refused, and why".to_owned())),
            _ => Ok(Arc::new(self.clone())),
        }
    }
}

struct Sink(Memory, usize);

impl Taking for Memory {
    fn wanted(&self) -> Vec<Wanted> {
        let wanted = |index| Wanted {
            index,
            blob: blob(index as u64),
            had: index == 1,
        };
        (0..2).map(wanted).collect()
    }

    fn layer(&self, index: usize) -> Result<Option<Box<dyn LayerSink>>, EndError> {
        Ok((index != 1).then(|| Box::new(Sink(self.clone(), index)) as _))
    }

    fn finish(&self) -> Result<Stored, EndError> {
        Ok(Stored {
            id: format!("{} layers", lock(&self.kept).blobs.len()),
        })
    }
}

impl LayerSink for Sink {
    fn partial_bytes(&self) -> u64 {
        self.1 as u64 * 10
    }

    fn feed(self: Box<Self>, blob: &mut (dyn Read + Send)) -> Result<(), EndError> {
        let mut bytes = Vec::new();
        if self.1 == 7 {
            // Fails before the blob's end.
            return Err(EndError::Store("full".to_owned()));
        }
        blob.read_to_end(&mut bytes)
            .map_err(|error| EndError::Store(error.to_string()))?;
        lock(&self.0.kept).blobs.push((self.1, bytes));
        Ok(())
    }
}

impl Origin for Memory {
    fn outgoing(&self, name: &str, _: Option<Compression>) -> Result<Arc<dyn Giving>, EndError> {
        match name {
            "there" => Ok(Arc::new(Given(outgoing(), self.clone()))),
            name => Err(EndError::NotFound(name.to_owned())),
        }
    }

    fn tags(&self, _: &str) -> Result<Vec<String>, EndError> {
        Ok(vec!["1".to_owned(), "2".to_owned()])
    }
}

struct Given(Outgoing, Memory);

impl Giving for Given {
    fn outgoing(&self) -> &Outgoing {
        &self.0
    }

    fn make(&self, index: usize) -> Result<Blob, EndError> {
        Ok(blob(index as u64))
    }

    fn open(&self, index: usize, from_bytes: u64) -> Result<Box<dyn Read + Send>, EndError> {
        let len = index as u64 * 1_000_000 - from_bytes;
        match index {
            9 => Ok(Box::new(Failing)),
            _ => Ok(Box::new(io::repeat(1).take(len))),
        }
    }

    fn manifest(&self, layers: &[Blob]) -> Result<Document, EndError> {
        let mut document = document();
        document.raw.extend(format!("{}", layers.len()).bytes());
        Ok(document)
    }

    fn sent(&self, name: &str, manifest: &Document, _: &[Blob]) -> Result<(), EndError> {
        let line = format!("{name}@{}", manifest.digest);
        lock(&self.1.kept).sent.push(line);
        Ok(())
    }
}

struct Failing;

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("unreadable"))
    }
}

fn blob(size_bytes: u64) -> Blob {
    Blob {
        media_type: "m".to_owned(),
        digest: "sha256:0".to_owned(),
        size_bytes,
    }
}

fn document() -> Document {
    Document {
        media_type: "m".to_owned(),
        digest: "sha256:0".to_owned(),
        raw: vec![0, 0xff, b'"'],
    }
}

fn outgoing() -> Outgoing {
    Outgoing {
        id: "sha256:1".to_owned(),
        config: vec![0xff],
        layers: vec![OutgoingLayer {
            blob: None,
            local: true,
            diff_id: "sha256:2".to_owned(),
            origins: vec!["a/b".to_owned()],
        }],
    }
}

fn incoming(name: &str) -> Incoming {
    Incoming {
        name: name.to_owned(),
        manifest: document(),
        index_digest: None,
        config: b"{}".to_vec(),
    }
}

/// Runs `case` on a connection to `memory`.
fn with_remote(memory: &Memory, case: impl FnOnce(&Remote)) {
    let (host, machine) = UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        let serving = scope.spawn(move || {
            let mut reader = machine.try_clone().unwrap();
            serve(memory, &mut reader, machine)
        });
        let remote = Remote::new(host.try_clone().unwrap(), host.try_clone().unwrap()).unwrap();
        case(&remote);
        host.shutdown(std::net::Shutdown::Write).unwrap();
        serving.join().unwrap().unwrap();
    });
}

#[test]
fn an_image_travels_with_layers_side_by_side() {
    let memory = Memory::default();
    with_remote(&memory, |remote| {
        assert_eq!(
            remote.known("there", "p").unwrap().as_deref(),
            Some("sha256:p")
        );
        assert_eq!(remote.known("x", "p").unwrap(), None);
        assert!(remote.has("there", None).unwrap());
        assert!(!remote.has("there", Some("other")).unwrap());
        assert_eq!(
            remote.begin(&incoming("refused")).err(),
            Some(EndError::Store("refused, and why".to_owned()))
        );
        let taking = remote.begin(&incoming("a")).unwrap();
        assert_eq!(remote.stored_config("sha256:c").unwrap().unwrap(), b"{}");
        assert!(taking.wanted()[1].had && !taking.wanted()[0].had);
        assert!(taking.layer(1).unwrap().is_none(), "it is there");
        // The second is fed while the first is open, and ends before it.
        let first = taking.layer(0).unwrap().unwrap();
        let second = taking.layer(2).unwrap().unwrap();
        assert_eq!(second.partial_bytes(), 20);
        let large = vec![7; 3_000_000];
        second.feed(&mut &large[..]).unwrap();
        first.feed(&mut &b"first"[..]).unwrap();
        assert_eq!(taking.finish().unwrap().id, "2 layers");
    });
    let kept = lock(&memory.kept);
    assert_eq!(kept.blobs[0], (2, vec![7; 3_000_000]));
    assert_eq!(kept.blobs[1], (0, b"first".to_vec()));
}

#[test]
fn failures_of_either_side_are_told_and_end_nothing_else() {
    let memory = Memory::default();
    with_remote(&memory, |remote| {
        let taking = remote.begin(&incoming("a")).unwrap();
        let sink = taking.layer(7).unwrap().unwrap();
        let endless = sink.feed(&mut io::repeat(0));
        assert_eq!(endless, Err(EndError::Store("full".to_owned())));
        let sink = taking.layer(3).unwrap().unwrap();
        let broken = sink.feed(&mut Failing);
        assert_eq!(broken, Err(EndError::Store("unreadable".to_owned())));
        let gone = Origin::outgoing(remote, "gone", gzip()).err();
        assert_eq!(gone, Some(EndError::NotFound("gone".to_owned())));
        assert_eq!(remote.tags("x").unwrap(), ["1", "2"]);
    });
    assert!(lock(&memory.kept).blobs.is_empty());
}

fn gzip() -> Option<Compression> {
    Some(Compression {
        form: Form::Gzip,
        level: Some(6),
    })
}

#[test]
fn blobs_come_back_for_pushing() {
    let memory = Memory::default();
    with_remote(&memory, |remote| {
        let giving = remote.outgoing("there", gzip()).unwrap();
        assert_eq!(*giving.outgoing(), outgoing());
        assert_eq!(giving.make(3).unwrap(), blob(3));
        let mut bytes = Vec::new();
        let mut blob = giving.open(3, 1).unwrap();
        blob.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 2_999_999);
        // One that is left in the middle holds nobody up.
        let mut left = giving.open(5, 0).unwrap();
        left.read_exact(&mut [0; 10]).unwrap();
        drop(left);
        let mut failing = giving.open(9, 0).unwrap();
        let error = failing.read_to_end(&mut bytes).unwrap_err();
        assert!(error.to_string().contains("unreadable"), "{error}");
        let manifest = giving.manifest(&[self::blob(1)]).unwrap();
        assert!(manifest.raw.ends_with(b"1"));
        giving.sent("a/b:1", &manifest, &[self::blob(1)]).unwrap();
    });
    assert_eq!(lock(&memory.kept).sent, ["a/b:1@sha256:0"]);
}

#[test]
fn an_end_of_the_machine_ends_everything() {
    let (host, machine) = UnixStream::pair().unwrap();
    let remote = Remote::new(host.try_clone().unwrap(), host).unwrap();
    drop(machine);
    assert_eq!(remote.known("a", "b"), Err(EndError::Broken));
    assert_eq!(remote.tags("a"), Err(EndError::Broken));
}
