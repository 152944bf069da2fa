//! The side that has the store.

use super::frames::{Frame, Kind, MAX_DATA};
use super::{Answer, Ask, Begun, Pieces, QUEUED, lock};
use crate::registry::ends::{EndError, Giving, Origin, Taking, Target};
use serde::Serialize;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

/// Questions that are worked on at a time.
const MAX_AT_ONCE: usize = 64;

/// Serves a store until the connection ends.
///
/// # Errors
/// What came is no frame, or there is no thread for a question.
pub fn serve<E>(ends: &E, reader: &mut impl Read, writer: impl Write + Send) -> io::Result<()>
where
    E: Target + Origin,
{
    let served = Served {
        ends,
        writer: Mutex::new(writer),
        takings: Mutex::default(),
        givings: Mutex::default(),
    };
    std::thread::scope(|scope| {
        // Of questions that are followed by a blob. Dropped at the end, so that nobody waits for more.
        let mut blobs: HashMap<u32, SyncSender<Frame>> = HashMap::new();
        let mut threads: Vec<std::thread::ScopedJoinHandle<'_, ()>> = Vec::new();
        while let Some(frame) = Frame::read(reader)? {
            let channel = frame.channel;
            if frame.kind != Kind::Words {
                let is_end = frame.kind == Kind::End;
                if let Some(sender) = blobs.get(&channel) {
                    // Who takes it may have failed, and has said so.
                    let _ = sender.send(frame);
                }
                if is_end {
                    blobs.remove(&channel);
                }
                continue;
            }
            let ask: Ask = frame.words()?;
            threads.retain(|thread| !thread.is_finished());
            if threads.len() >= MAX_AT_ONCE {
                return Err(io::Error::other("too many questions at a time"));
            }
            let blob = matches!(ask, Ask::Layer { .. }).then(|| {
                let (sender, receiver) = sync_channel(QUEUED);
                blobs.insert(channel, sender);
                receiver
            });
            let served = &served;
            let thread = std::thread::Builder::new()
                .name("question".to_owned())
                .spawn_scoped(scope, move || served.answer(channel, ask, blob))?;
            threads.push(thread);
        }
        Ok(())
    })
}

/// Images that are transferred, by the number of the question with which that began.
type Images<T> = Mutex<HashMap<u32, Arc<T>>>;

struct Served<'a, E, W> {
    ends: &'a E,
    writer: Mutex<W>,
    takings: Images<dyn Taking>,
    givings: Images<dyn Giving>,
}

impl<E: Target + Origin, W: Write> Served<'_, E, W> {
    fn say(&self, channel: u32, words: &impl Serialize) {
        // Without a listener nothing is left to do, and the connection's end is seen by the reader.
        let _ = Frame::write_words(&mut *lock(&self.writer), channel, words);
    }

    fn answer(&self, channel: u32, ask: Ask, blob: Option<Receiver<Frame>>) {
        match ask {
            Ask::Has { text, platform } => {
                self.say(channel, &self.ends.has(&text, platform.as_deref()));
            }
            Ask::Known { name, platform } => self.say(channel, &self.ends.known(&name, &platform)),
            Ask::Config { digest } => self.say(channel, &self.ends.stored_config(&digest)),
            Ask::Begin(incoming) => {
                let begun = self.ends.begin(&incoming).map(|taking| {
                    let wanted = taking.wanted();
                    lock(&self.takings).insert(channel, taking);
                    Begun { wanted }
                });
                self.say(channel, &begun);
            }
            Ask::Layer { image, index } => self.layer(channel, image, index, blob),
            Ask::Finish { image } => {
                let taking = lock(&self.takings).remove(&image).ok_or(EndError::Broken);
                self.say(channel, &taking.and_then(|taking| taking.finish()));
            }
            Ask::Tags { repository } => self.say(channel, &self.ends.tags(&repository)),
            ask => self.give(channel, ask),
        }
    }

    /// Questions about images that are sent.
    fn give(&self, channel: u32, ask: Ask) {
        let giving = |image: u32| {
            let found = lock(&self.givings).get(&image).cloned();
            found.ok_or(EndError::Broken)
        };
        match ask {
            Ask::Outgoing { name, compression } => {
                let begun = self.ends.outgoing(&name, compression).map(|giving| {
                    let outgoing = giving.outgoing().clone();
                    lock(&self.givings).insert(channel, giving);
                    outgoing
                });
                self.say(channel, &begun);
            }
            Ask::Make { image, index } => {
                self.say(channel, &giving(image).and_then(|image| image.make(index)));
            }
            Ask::Open {
                image,
                index,
                from_bytes,
            } => match giving(image).and_then(|image| image.open(index, from_bytes)) {
                Ok(blob) => {
                    self.say(channel, &Answer::Ok(()));
                    self.send(channel, blob);
                }
                Err(error) => self.say(channel, &Answer::<()>::Err(error)),
            },
            Ask::Manifest { image, layers } => {
                let made = giving(image).and_then(|image| image.manifest(&layers));
                self.say(channel, &made);
            }
            Ask::Sent {
                image,
                name,
                manifest,
                layers,
            } => {
                let noted = giving(image).and_then(|image| image.sent(&name, &manifest, &layers));
                self.say(channel, &noted);
            }
            _ => self.say(channel, &Answer::<()>::Err(EndError::Broken)),
        }
    }

    fn layer(&self, channel: u32, image: u32, index: usize, blob: Option<Receiver<Frame>>) {
        let taking = lock(&self.takings).get(&image).cloned();
        let taking = taking.ok_or(EndError::Broken);
        match taking.and_then(|taking| taking.layer(index)) {
            Ok(Some(sink)) => {
                self.say(channel, &Answer::Ok(Some(sink.partial_bytes())));
                let fed = match blob {
                    Some(blob) => sink.feed(&mut Pieces::new(blob)),
                    None => Err(EndError::Broken),
                };
                self.say(channel, &fed);
            }
            Ok(None) => self.say(channel, &Answer::<Option<u64>>::Ok(None)),
            Err(error) => self.say(channel, &Answer::<Option<u64>>::Err(error)),
        }
    }

    fn send(&self, channel: u32, mut blob: Box<dyn Read + Send>) {
        let mut buffer = vec![0; MAX_DATA as usize];
        loop {
            let (kind, payload) = match blob.read(&mut buffer) {
                Ok(0) => (Kind::End, Vec::new()),
                Ok(len) => {
                    let sent = Frame::write(
                        &mut *lock(&self.writer),
                        Kind::Data,
                        channel,
                        &buffer[..len],
                    );
                    match sent {
                        Ok(()) => continue,
                        Err(_) => return,
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => (Kind::End, format!("{error} ").into_bytes()),
            };
            // As in `say`.
            let _ = Frame::write(&mut *lock(&self.writer), kind, channel, &payload);
            return;
        }
    }
}
