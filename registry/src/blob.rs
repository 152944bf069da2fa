//! Blobs as streams that go on by themselves: after a drop from where they are, at the next mirror
//! if they must. The end is right only if every byte was.

use crate::ask::Shared;
use crate::auth::Scope;
use crate::error::{Attempt, BlobError, RequestError, Tried};
use crate::manifest::Descriptor;
use crate::names::ImageName;
use crate::settings::registries::Endpoint;
use crate::transport::retry::{Backoff, is_transient, retry_after_ms};
use crate::transport::{Answer, Call, ended_early};
use bytes::{Buf, Bytes};
use hullbox_model::digest::Digest;
use reqwest::header::{CONTENT_RANGE, HeaderValue, RANGE};
use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the end of a body is waited for whose every byte has come, in milliseconds.
const END_PATIENCE_MS: u64 = 1000;

/// A blob on its way here.
pub struct BlobStream {
    shared: Arc<Shared>,
    digest: Digest,
    size_bytes: u64,
    offset_bytes: u64,
    hasher: Option<Sha256>,
    /// Where it may be had, the one that is asked first.
    places: VecDeque<Endpoint>,
    connection: Option<Connection>,
    backoff: Backoff,
    tried: Vec<Attempt>,
}

/// An answer that is being read.
struct Connection {
    answer: Answer,
    /// Bytes at its beginning that are here already.
    skip_bytes: u64,
    /// Bytes that it has brought.
    brought_bytes: u64,
    pace: Pace,
}

/// How fast bytes come.
struct Pace {
    since: Instant,
    bytes: u64,
}

impl fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobStream")
            .field("digest", &self.digest)
            .field("offset_bytes", &self.offset_bytes)
            .field("size_bytes", &self.size_bytes)
            .finish_non_exhaustive()
    }
}

/// Why a connection is given up.
enum Failure {
    /// Another try may go better; after so many milliseconds, if the registry names them.
    Transient(RequestError, Option<u64>),
    /// This place will not give it.
    Place(RequestError),
    /// This place gives something else.
    Wrong(BlobError),
}

impl BlobStream {
    /// A stream that is connected: who cannot give the blob at all says so here.
    pub(crate) async fn open(
        shared: Arc<Shared>,
        name: &ImageName,
        blob: &Descriptor,
        from_bytes: u64,
    ) -> Result<Self, BlobError> {
        // A blob is asked for by its digest: mirrors for digests alone have it too.
        let sources = shared
            .settings
            .registries
            .sources(&name.with_digest(blob.digest));
        let sources = sources.map_err(|_| BlobError::Blocked {
            name: name.to_string(),
        })?;
        let mut own = Self {
            backoff: Backoff::new(&shared.transport.timing),
            places: shared.reachable(sources).into(),
            shared,
            digest: blob.digest,
            size_bytes: blob.size_bytes,
            offset_bytes: from_bytes.min(blob.size_bytes),
            hasher: (from_bytes == 0).then(Sha256::new),
            connection: None,
            tried: Vec::new(),
        };
        if own.offset_bytes < own.size_bytes {
            own.connect().await?;
        }
        Ok(own)
    }

    /// Leaves the digest to the reader, who hashes the bytes anyway. The length is still compared.
    #[must_use]
    pub fn hashed_by_reader(mut self) -> Self {
        self.hasher = None;
        self
    }

    /// Where the next bytes belong.
    #[must_use]
    pub const fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// The next bytes, or `None` at the verified end.
    ///
    /// # Errors
    /// [`BlobError`]; the stream is over then.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        loop {
            let is_whole = self.offset_bytes == self.size_bytes;
            let Some(connection) = &mut self.connection else {
                if is_whole {
                    return self.verified().map(|()| None);
                }
                self.connect().await?;
                continue;
            };
            let timing = &self.shared.transport.timing;
            let patience_ms = if is_whole {
                timing.idle_ms.min(END_PATIENCE_MS)
            } else {
                timing.idle_ms
            };
            match connection.read(timing, patience_ms).await {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => return self.take(bytes).map(Some),
                // What comes behind a blob that is whole, or fails to, is of no interest.
                Ok(None) | Err(_) if is_whole => self.connection = None,
                Ok(None) => {
                    let why = ended_early(&connection.answer.host);
                    self.failed(Failure::Transient(why, None)).await?;
                }
                Err(why) => self.failed(Failure::Transient(why, None)).await?,
            }
        }
    }

    /// Counts and hashes bytes that have come.
    fn take(&mut self, bytes: Bytes) -> Result<Bytes, BlobError> {
        let length = bytes.len() as u64;
        if length > self.size_bytes - self.offset_bytes {
            return Err(self.wrong_length("more".to_owned()));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        self.offset_bytes += length;
        Ok(bytes)
    }

    fn verified(&mut self) -> Result<(), BlobError> {
        let Some(hasher) = self.hasher.take() else {
            return Ok(());
        };
        let found = Digest::from_hasher(hasher);
        if found == self.digest {
            return Ok(());
        }
        Err(BlobError::WrongDigest {
            from: self.from(),
            digest: self.digest,
            found,
        })
    }

    fn from(&self) -> String {
        let place = self.places.front();
        place.map_or_else(String::new, |place| place.host().to_owned())
    }

    fn wrong_length(&self, found: String) -> BlobError {
        BlobError::WrongLength {
            from: self.from(),
            digest: self.digest,
            expected: self.size_bytes,
            found,
        }
    }

    /// Connects to the first place that gives the rest.
    async fn connect(&mut self) -> Result<(), BlobError> {
        while self.connection.is_none() {
            match self.request().await {
                Ok(connection) => self.connection = Some(connection),
                Err(failure) => self.failed(failure).await?,
            }
        }
        Ok(())
    }

    /// What a failure leads to: another try, another place, or the end.
    async fn failed(&mut self, failure: Failure) -> Result<(), BlobError> {
        if let Some(old) = self.connection.take()
            && old.brought_bytes >= self.shared.transport.timing.progress_bytes
        {
            self.backoff.succeed();
        }
        let why = match failure {
            Failure::Transient(why, wanted_ms) => match self.backoff.fail(wanted_ms) {
                Some(wait_ms) => {
                    self.shared.wait(&why, wait_ms).await;
                    return Ok(());
                }
                None => why,
            },
            Failure::Place(why) => why,
            // What has been given out cannot be taken back, but here nothing has.
            Failure::Wrong(error) if self.places.len() <= 1 => return Err(error),
            Failure::Wrong(error) => RequestError::Protocol {
                host: self.from(),
                what: error.to_string(),
            },
        };
        if let Some(place) = self.places.pop_front() {
            self.shared.note(&place, &why);
            self.tried.push(Attempt {
                asked: format!("{}/{}", place.host(), place.repository),
                why,
            });
        }
        self.backoff.succeed();
        if self.places.is_empty() {
            return Err(BlobError::Unavailable {
                digest: self.digest,
                source: Tried(std::mem::take(&mut self.tried)),
            });
        }
        Ok(())
    }

    /// Asks the first place for the rest.
    async fn request(&self) -> Result<Connection, Failure> {
        let Some(place) = self.places.front() else {
            let why = ended_early("the registry");
            return Err(Failure::Place(why));
        };
        let mut call = Call::get(format!("{}/blobs/{}", place.repository, self.digest));
        if self.offset_bytes > 0 {
            let range = format!("bytes={}-", self.offset_bytes);
            let range = HeaderValue::from_str(&range).map_err(|_| self.nonsense("a range"))?;
            call = call.with_header(RANGE, range);
        }
        let scope = Scope::pull(&place.repository);
        let answer = match self.shared.ask_once(place, &scope, &call).await {
            Ok(answer) => answer,
            // In the middle of a blob a registry that is gone may come back.
            Err(error) if error.is_transient() || self.was_connected(&error) => {
                return Err(Failure::Transient(error, None));
            }
            Err(error) => return Err(Failure::Place(error)),
        };
        self.accept(answer).await
    }

    fn was_connected(&self, error: &RequestError) -> bool {
        self.offset_bytes > 0 && error.is_unreachable()
    }

    fn nonsense(&self, what: &str) -> Failure {
        Failure::Place(RequestError::Protocol {
            host: self.from(),
            what: what.to_owned(),
        })
    }

    /// Whether an answer brings what is missing, and from where on.
    async fn accept(&self, answer: Answer) -> Result<Connection, Failure> {
        let begins_at = match answer.status().as_u16() {
            200 => 0,
            206 => {
                let range = answer.header(CONTENT_RANGE).and_then(parse_range);
                let Some((start, total)) = range else {
                    return Err(self.nonsense("a part without its place"));
                };
                if start > self.offset_bytes {
                    return Err(self.nonsense("a part behind the one that was asked for"));
                }
                if let Some(total) = total.filter(|total| *total != self.size_bytes) {
                    return Err(Failure::Wrong(self.wrong_length(total.to_string())));
                }
                start
            }
            // It ends before the place that was asked for.
            416 => return Err(Failure::Wrong(self.wrong_length("fewer".to_owned()))),
            status if is_transient(status) => {
                let wanted_ms = retry_after_ms(&answer);
                let why = self.shared.refusal(answer).await;
                return Err(Failure::Transient(why, wanted_ms));
            }
            _ => return Err(Failure::Place(self.shared.refusal(answer).await)),
        };
        if let Some(length) = answer.length_bytes()
            && length.checked_add(begins_at) != Some(self.size_bytes)
        {
            let found = length.saturating_add(begins_at).to_string();
            return Err(Failure::Wrong(self.wrong_length(found)));
        }
        Ok(Connection {
            answer,
            skip_bytes: self.offset_bytes - begins_at,
            brought_bytes: 0,
            pace: Pace {
                since: Instant::now(),
                bytes: 0,
            },
        })
    }
}

impl Connection {
    /// The next bytes that are not here yet; they may be none.
    async fn read(
        &mut self,
        timing: &crate::transport::Timing,
        patience_ms: u64,
    ) -> Result<Option<Bytes>, RequestError> {
        let Some(mut bytes) = self.answer.chunk(patience_ms).await? else {
            return Ok(None);
        };
        self.pace.bytes += bytes.len() as u64;
        let window = Duration::from_millis(timing.slow_window_ms);
        if self.pace.since.elapsed() >= window {
            if self.pace.bytes < timing.slow_bytes {
                return Err(RequestError::Stalled {
                    host: self.answer.host.clone(),
                    what: "almost nothing",
                    seconds: window.as_secs(),
                });
            }
            self.pace = Pace {
                since: Instant::now(),
                bytes: 0,
            };
        }
        let skip = self.skip_bytes.min(bytes.len() as u64);
        self.skip_bytes -= skip;
        // It is at most the length of what came.
        bytes.advance(usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len()));
        self.brought_bytes += bytes.len() as u64;
        Ok(Some(bytes))
    }
}

/// `bytes 5-9/10` (RFC 9110, 14.4): where a part begins, and the whole's length.
fn parse_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.trim().split_once('-')?;
    let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    (start <= end).then_some((start, total))
}

/// See [`crate::Client::blob_bytes`]. What a place sends wrongly the next may have right.
pub(crate) async fn whole(
    shared: &Arc<Shared>,
    name: &ImageName,
    blob: &Descriptor,
    limit_bytes: u64,
) -> Result<Vec<u8>, BlobError> {
    if blob.size_bytes > limit_bytes {
        return Err(BlobError::TooLarge {
            digest: blob.digest,
            size_bytes: blob.size_bytes,
            limit_bytes,
        });
    }
    let mut stream = BlobStream::open(shared.clone(), name, blob, 0).await?;
    loop {
        match collect(&mut stream).await {
            Ok(bytes) => return Ok(bytes),
            Err(error @ (BlobError::WrongDigest { .. } | BlobError::WrongLength { .. })) => {
                stream.connection = None;
                stream.failed(Failure::Wrong(error)).await?;
                stream.offset_bytes = 0;
                stream.hasher = Some(Sha256::new());
            }
            Err(error) => return Err(error),
        }
    }
}

async fn collect(stream: &mut BlobStream) -> Result<Vec<u8>, BlobError> {
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parts_place_is_read() {
        assert_eq!(parse_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse_range("bytes 5-9/*"), Some((5, None)));
        for bad in [
            "",
            "bytes */10",
            "5-9/10",
            "bytes 9-5/10",
            "bytes -1-5/10",
            "bytes 5-9",
        ] {
            assert_eq!(parse_range(bad), None, "{bad}");
        }
    }
}
