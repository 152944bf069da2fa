//! The image store of the helper machine, as the two ends of a transfer that the host carries out.
//!
//! ```text
//! host                                              helper machine
//! hullbox pull ─ registry client                    hullbox __images ─ image store
//!       └─ Remote ══ frames over a child's standard streams ══ serve ─┘
//! ```
//!
//! Sockets, proxies, certificates and credentials are those of the command on the host. What comes into
//! the machine is verified there by the store, as everything is.

mod frames;
mod serve;

pub use serve::serve;

use super::ends::{
    Blob, Compression, Document, EndError, Giving, Incoming, LayerSink, Origin, Outgoing, Stored,
    Taking, Target, Wanted,
};
use frames::{Frame, Kind, MAX_DATA};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Pieces of a blob that wait for their reader.
const QUEUED: usize = 4;

/// A question to the store.
#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    Has {
        text: String,
        platform: Option<String>,
    },
    Known {
        name: String,
        platform: String,
    },
    Config {
        digest: String,
    },
    /// Answered with a [`Begun`]. Its channel's number stands for the image from then on.
    Begin(Incoming),
    /// Answered with the bytes that are there, or nothing for a layer that is. In the first case the
    /// rest follows in the channel, and then another answer.
    Layer {
        image: u32,
        index: usize,
    },
    Finish {
        image: u32,
    },
    /// Answered with an [`Outgoing`]. Its channel's number stands for the image from then on.
    Outgoing {
        name: String,
        compression: Option<Compression>,
    },
    Make {
        image: u32,
        index: usize,
    },
    /// The blob follows the answer.
    Open {
        image: u32,
        index: usize,
        from_bytes: u64,
    },
    Manifest {
        image: u32,
        layers: Vec<Blob>,
    },
    Sent {
        image: u32,
        name: String,
        manifest: Document,
        layers: Vec<Blob>,
    },
    Tags {
        repository: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Begun {
    wanted: Vec<Wanted>,
}

type Answer<T> = Result<T, EndError>;

/// Open channels; `None` when the connection has ended.
type Channels = Arc<Mutex<Option<HashMap<u32, SyncSender<Frame>>>>>;

struct Shared {
    /// Closed with the last owner, which ends the connection: the thread that reads is none.
    writer: Mutex<Box<dyn Write + Send>>,
    channels: Channels,
}

/// The store at the other end of a connection.
#[derive(Clone)]
pub struct Remote {
    shared: Arc<Shared>,
    next: Arc<Mutex<u32>>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Remote {
    /// A store that is served ([`serve`]) at the other end of this connection.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn new(
        mut reader: impl Read + Send + 'static,
        writer: impl Write + Send + 'static,
    ) -> io::Result<Self> {
        let channels: Channels = Arc::new(Mutex::new(Some(HashMap::new())));
        let theirs = Arc::clone(&channels);
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                // Whatever is wrong with a frame, nothing after it can be understood.
                while let Ok(Some(frame)) = Frame::read(&mut reader) {
                    let channels = lock(&theirs);
                    let channel = channels.as_ref().and_then(|all| all.get(&frame.channel));
                    let channel = channel.cloned();
                    drop(channels);
                    if let Some(channel) = channel {
                        // Nobody waits for it any more.
                        let _ = channel.send(frame);
                    }
                }
                lock(&theirs).take();
            })?;
        Ok(Self {
            shared: Arc::new(Shared {
                writer: Mutex::new(Box::new(writer)),
                channels,
            }),
            next: Arc::default(),
        })
    }

    /// Opens a channel with a question.
    fn open_channel(&self, ask: &Ask) -> Result<Channel, EndError> {
        let number = {
            let mut next = lock(&self.next);
            *next = next.wrapping_add(1);
            *next
        };
        let (sender, frames) = sync_channel(QUEUED);
        let mut channels = lock(&self.shared.channels);
        let all = channels.as_mut().ok_or(EndError::Broken)?;
        all.insert(number, sender);
        drop(channels);
        let channel = Channel {
            shared: Arc::clone(&self.shared),
            number,
            frames,
        };
        let mut writer = lock(&self.shared.writer);
        Frame::write_words(&mut *writer, number, ask).map_err(|_| EndError::Broken)?;
        drop(writer);
        Ok(channel)
    }

    fn ask<T: DeserializeOwned>(&self, ask: &Ask) -> Answer<T> {
        self.open_channel(ask)?.answer()
    }
}

/// One question, and what follows it.
struct Channel {
    shared: Arc<Shared>,
    number: u32,
    frames: Receiver<Frame>,
}

impl Channel {
    fn answer<T: DeserializeOwned>(&self) -> Answer<T> {
        let frame = self.frames.recv().map_err(|_| EndError::Broken)?;
        let answer: Answer<T> = frame.words().map_err(|_| EndError::Broken)?;
        answer
    }

    fn send(&self, kind: Kind, payload: &[u8]) -> Result<(), EndError> {
        let mut writer = lock(&self.shared.writer);
        Frame::write(&mut *writer, kind, self.number, payload).map_err(|_| EndError::Broken)
    }

    /// Sends a blob, and reads the answer to it.
    fn send_blob<T: DeserializeOwned>(&self, blob: &mut dyn Read) -> Answer<T> {
        let mut buffer = vec![0; MAX_DATA as usize];
        loop {
            // Whoever has failed before the end says so, and takes no more.
            if let Ok(frame) = self.frames.try_recv() {
                self.send(Kind::End, b"")?;
                return frame.words().map_err(|_| EndError::Broken)?;
            }
            match blob.read(&mut buffer) {
                Ok(0) => break self.send(Kind::End, b"")?,
                Ok(len) => self.send(Kind::Data, &buffer[..len])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let mut text = error.to_string();
                    text.truncate(1024.min(text.floor_char_boundary(1024)));
                    break self.send(
                        Kind::End,
                        if text.is_empty() {
                            b"?"
                        } else {
                            text.as_bytes()
                        },
                    )?;
                }
            }
        }
        self.answer()
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if let Some(all) = lock(&self.shared.channels).as_mut() {
            all.remove(&self.number);
        }
    }
}

impl Target for Remote {
    fn has(&self, text: &str, platform: Option<&str>) -> Result<bool, EndError> {
        self.ask(&Ask::Has {
            text: text.to_owned(),
            platform: platform.map(str::to_owned),
        })
    }

    fn known(&self, name: &str, platform: &str) -> Result<Option<String>, EndError> {
        self.ask(&Ask::Known {
            name: name.to_owned(),
            platform: platform.to_owned(),
        })
    }

    fn stored_config(&self, digest: &str) -> Result<Option<Vec<u8>>, EndError> {
        self.ask(&Ask::Config {
            digest: digest.to_owned(),
        })
    }

    fn begin(&self, incoming: &Incoming) -> Result<Arc<dyn Taking>, EndError> {
        let channel = self.open_channel(&Ask::Begin(incoming.clone()))?;
        let begun: Begun = channel.answer()?;
        Ok(Arc::new(RemoteTaking {
            remote: self.clone(),
            image: channel.number,
            begun,
        }))
    }
}

struct RemoteTaking {
    remote: Remote,
    image: u32,
    begun: Begun,
}

impl Taking for RemoteTaking {
    fn wanted(&self) -> Vec<Wanted> {
        self.begun.wanted.clone()
    }

    fn layer(&self, index: usize) -> Result<Option<Box<dyn LayerSink>>, EndError> {
        let image = self.image;
        let channel = self.remote.open_channel(&Ask::Layer { image, index })?;
        let partial: Option<u64> = channel.answer()?;
        Ok(partial.map(|partial_bytes| {
            Box::new(RemoteSink {
                channel,
                partial_bytes,
            }) as Box<dyn LayerSink>
        }))
    }

    fn finish(&self) -> Result<Stored, EndError> {
        self.remote.ask(&Ask::Finish { image: self.image })
    }
}

struct RemoteSink {
    channel: Channel,
    partial_bytes: u64,
}

impl LayerSink for RemoteSink {
    fn partial_bytes(&self) -> u64 {
        self.partial_bytes
    }

    fn feed(self: Box<Self>, blob: &mut (dyn Read + Send)) -> Result<(), EndError> {
        self.channel.send_blob(blob)
    }
}

impl Origin for Remote {
    fn outgoing(
        &self,
        name: &str,
        compression: Option<Compression>,
    ) -> Result<Arc<dyn Giving>, EndError> {
        let channel = self.open_channel(&Ask::Outgoing {
            name: name.to_owned(),
            compression,
        })?;
        let outgoing = channel.answer()?;
        Ok(Arc::new(RemoteGiving {
            remote: self.clone(),
            image: channel.number,
            outgoing,
        }))
    }

    fn tags(&self, repository: &str) -> Result<Vec<String>, EndError> {
        self.ask(&Ask::Tags {
            repository: repository.to_owned(),
        })
    }
}

struct RemoteGiving {
    remote: Remote,
    image: u32,
    outgoing: Outgoing,
}

impl Giving for RemoteGiving {
    fn outgoing(&self) -> &Outgoing {
        &self.outgoing
    }

    fn make(&self, index: usize) -> Result<Blob, EndError> {
        let image = self.image;
        self.remote.ask(&Ask::Make { image, index })
    }

    fn open(&self, index: usize, from_bytes: u64) -> Result<Box<dyn Read + Send>, EndError> {
        let channel = self.remote.open_channel(&Ask::Open {
            image: self.image,
            index,
            from_bytes,
        })?;
        channel.answer::<()>()?;
        Ok(Box::new(Pieces::new(channel)))
    }

    fn manifest(&self, layers: &[Blob]) -> Result<Document, EndError> {
        self.remote.ask(&Ask::Manifest {
            image: self.image,
            layers: layers.to_vec(),
        })
    }

    fn sent(&self, name: &str, manifest: &Document, layers: &[Blob]) -> Result<(), EndError> {
        self.remote.ask(&Ask::Sent {
            image: self.image,
            name: name.to_owned(),
            manifest: manifest.clone(),
            layers: layers.to_vec(),
        })
    }
}

/// A blob that comes in frames.
struct Pieces<S> {
    frames: S,
    piece: io::Cursor<Vec<u8>>,
    ended: bool,
}

/// Where frames come from.
trait Frames {
    fn next_frame(&mut self) -> Option<Frame>;
}

impl Frames for Channel {
    fn next_frame(&mut self) -> Option<Frame> {
        self.frames.recv().ok()
    }
}

impl Frames for Receiver<Frame> {
    fn next_frame(&mut self) -> Option<Frame> {
        self.recv().ok()
    }
}

impl<S: Frames> Pieces<S> {
    fn new(frames: S) -> Self {
        Self {
            frames,
            piece: io::Cursor::default(),
            ended: false,
        }
    }
}

impl<S: Frames> Read for Pieces<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let len = self.piece.read(buffer)?;
            if len > 0 || self.ended || buffer.is_empty() {
                return Ok(len);
            }
            let broken = || io::Error::new(io::ErrorKind::UnexpectedEof, EndError::Broken);
            let frame = self.frames.next_frame().ok_or_else(broken)?;
            match frame.kind {
                Kind::Data => self.piece = io::Cursor::new(frame.payload),
                Kind::End if frame.payload.is_empty() => self.ended = true,
                Kind::End => {
                    let text = String::from_utf8_lossy(&frame.payload).into_owned();
                    return Err(io::Error::other(text));
                }
                Kind::Words => return Err(broken()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
