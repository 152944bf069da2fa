//! One upload of one blob: a stream of it, or pieces. Whatever stalls or breaks, the registry is
//! asked how far it is, and the rest is sent; if it does not know, the upload begins anew.

use super::Job;
use super::body::{BlobBody, Reading};
use super::place::{Next, next};
use crate::ask::Place;
use crate::error::RequestError;
use crate::transport::retry::Backoff;
use crate::transport::{Answer, Call};
use bytes::Bytes;
use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE,
};
use reqwest::{Method, Url};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Up to here a blob is sent in one request with its digest.
const WHOLE_BYTES: u64 = 1 << 20;
/// Pieces in which a blob is sent that a proxy finds too large.
const SMALLER_BYTES: u64 = 8 << 20;
/// How often the progress of a request is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// The smallest piece that a registry takes.
const CHUNK_HEADER: &str = "oci-chunk-min-length";
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Why a blob was not pushed.
pub(super) enum Failure {
    Request(RequestError),
    Source(io::Error),
    /// Its bytes are others: what they are.
    Damaged(String),
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

/// An upload that a registry has begun.
pub(super) struct Upload<'a> {
    job: &'a Job<'a>,
    /// The registry's URL that began it.
    home: Url,
    place: Place,
    /// Bytes that the registry has.
    offset_bytes: u64,
    reading: Arc<Reading>,
    backoff: Backoff,
    chunk_bytes: Option<u64>,
    /// How often the upload began anew.
    restarts: u32,
}

/// What one request came to.
enum Sent {
    /// The registry took it.
    Taken(Answer),
    /// It has to be asked how far it is.
    Unknown(RequestError),
    /// It wants to know again who we are.
    Challenged(Answer, Option<HeaderValue>),
}

impl<'a> Upload<'a> {
    pub(super) async fn begin(job: &'a Job<'a>, answer: Answer) -> Result<Self, Failure> {
        let home = answer.url().clone();
        let smallest = answer
            .header(CHUNK_HEADER)
            .and_then(|text| text.parse().ok());
        let chunk_bytes = job.options.chunk_bytes.map(|wanted| {
            let wanted = wanted.max(1);
            smallest.map_or(wanted, |smallest: u64| smallest.max(wanted))
        });
        let mut own = Self {
            job,
            place: Place {
                url: home.clone(),
                is_registrys: true,
            },
            home,
            offset_bytes: 0,
            reading: Arc::default(),
            backoff: Backoff::new(&job.shared.transport.timing),
            chunk_bytes,
            restarts: 0,
        };
        own.go_on(&answer).await?;
        Ok(own)
    }

    /// Takes over where an answer says that the upload goes on.
    async fn go_on(&mut self, answer: &Answer) -> Result<(), RequestError> {
        self.place = match next(answer, &self.home)? {
            Next::Here(place) => place,
            Next::Perhaps { theirs, ours } => {
                let status = Call::get(String::new());
                let (shared, scope) = (self.job.shared, &self.job.scope);
                match shared
                    .ask_at(&self.job.place, scope, &theirs, &status)
                    .await
                {
                    Ok(answer) if answer.status().is_success() => theirs,
                    _ => ours,
                }
            }
        };
        Ok(())
    }

    /// Sends the blob.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        loop {
            let rest = self.send_all().await?;
            match self.commit(rest).await? {
                None => return Ok(()),
                Some(why) => self.begin_anew(why).await?,
            }
        }
    }

    /// Sends what goes before the end of the upload; what goes with it is given back.
    async fn send_all(&mut self) -> Result<Bytes, Failure> {
        let size = self.job.blob.size_bytes;
        if size <= WHOLE_BYTES && self.chunk_bytes.is_none() {
            return self.whole().await;
        }
        while self.offset_bytes < size {
            let length = (size - self.offset_bytes).min(self.chunk_bytes.unwrap_or(u64::MAX));
            let sent = self.send(length).await;
            if let Some(error) = self.reading.take_error() {
                self.cancel().await;
                return Err(Failure::Source(error));
            }
            match sent? {
                Sent::Taken(answer) => {
                    self.offset_bytes += length;
                    self.backoff.succeed();
                    self.go_on(&answer).await?;
                }
                Sent::Challenged(answer, used) => self.answer(answer, used).await?,
                Sent::Unknown(why) => self.recover(why).await?,
            }
        }
        match self.reading.digest(size) {
            Some(found) if found != self.job.blob.digest => {
                self.cancel().await;
                Err(Failure::Damaged(found.to_string()))
            }
            _ => Ok(Bytes::new()),
        }
    }

    /// Says again who we are.
    async fn answer(
        &mut self,
        answer: Answer,
        used: Option<HeaderValue>,
    ) -> Result<(), RequestError> {
        let job = self.job;
        if self.backoff.fail(Some(0)).is_none() {
            return Err(job.shared.refusal(answer).await);
        }
        let why = RequestError::Denied {
            host: answer.host.clone(),
            message: String::new(),
            has_credentials: used.is_some(),
        };
        job.shared
            .challenged(&job.place, &job.scope, answer, used.as_ref())
            .await?;
        self.locate(why).await
    }

    /// A small blob in memory, verified.
    async fn whole(&self) -> Result<Bytes, Failure> {
        let source = self.job.source.clone();
        let size = self.job.blob.size_bytes;
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            let mut reader = io::Read::take(source.open(0)?, size + 1);
            io::Read::read_to_end(&mut reader, &mut bytes).map(|_| bytes)
        });
        let bytes = read
            .await
            .map_err(|error| Failure::Source(io::Error::other(error)))?;
        let bytes = bytes.map_err(Failure::Source)?;
        let found = hullbox_model::digest::Digest::of(&bytes);
        if found != self.job.blob.digest {
            self.cancel().await;
            return Err(Failure::Damaged(found.to_string()));
        }
        if let Some(progress) = &self.job.options.progress {
            progress(size);
        }
        Ok(bytes.into())
    }

    /// Sends the next `length` bytes in one request.
    async fn send(&self, length: u64) -> Result<Sent, RequestError> {
        let job = self.job;
        let header = match self.place.is_registrys {
            true => job.shared.authorization(&job.place, &job.scope).await?,
            false => None,
        };
        let mut request = reqwest::Request::new(Method::PATCH, self.place.url.clone());
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, OCTETS);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        if self.chunk_bytes.is_some() || self.offset_bytes > 0 {
            let range = format!("{}-{}", self.offset_bytes, self.offset_bytes + length - 1);
            if let Ok(range) = HeaderValue::from_str(&range) {
                headers.insert(CONTENT_RANGE, range);
            }
        }
        if let Some(header) = &header {
            headers.insert(AUTHORIZATION, header.clone());
        }
        let body = BlobBody::new(
            &job.source,
            &self.reading,
            self.offset_bytes,
            length,
            job.options,
        );
        *request.body_mut() = Some(reqwest::Body::wrap(body));
        let answer = match self.watched(request, length).await {
            Ok(answer) => answer,
            Err(error) if may_pass(&error) => return Ok(Sent::Unknown(error)),
            Err(error) => return Err(error),
        };
        match answer.status().as_u16() {
            201 | 202 | 204 => Ok(Sent::Taken(answer)),
            401 if self.place.is_registrys => Ok(Sent::Challenged(answer, header)),
            // 404: it has forgotten the upload, or is elsewhere than we think, as with 416; 413:
            // smaller pieces may do.
            404 | 413 | 416 | 408 | 429 | 500.. => {
                Ok(Sent::Unknown(job.shared.refusal(answer).await))
            }
            _ => Err(job.shared.refusal(answer).await),
        }
    }

    /// Waits for an answer for as long as bytes are taken or made, and then for the usual time.
    async fn watched(
        &self,
        request: reqwest::Request,
        length: u64,
    ) -> Result<Answer, RequestError> {
        let timing = &self.job.shared.transport.timing;
        let transport = &self.job.shared.transport;
        let answer = transport.exchange(Some(&self.job.place), request, None);
        let mut answer = std::pin::pin!(answer);
        let mut seen = (self.reading.sent_bytes(), Instant::now());
        loop {
            if let Ok(answer) = tokio::time::timeout(LOOK, &mut answer).await {
                return answer;
            }
            let sent = self.reading.sent_bytes();
            // A layer may be compressed on the way, slowly: that is not the registry's fault.
            if sent != seen.0 || self.reading.is_hungry() {
                seen = (sent, Instant::now());
            }
            let is_sent = sent >= self.offset_bytes + length;
            let limit_ms = if is_sent {
                timing.response_ms
            } else {
                timing.idle_ms
            };
            if seen.1.elapsed() >= Duration::from_millis(limit_ms) {
                return Err(RequestError::Stalled {
                    host: crate::transport::host_of(&self.place.url),
                    what: if is_sent {
                        "nothing"
                    } else {
                        "no sign that it takes more"
                    },
                    seconds: limit_ms / 1000,
                });
            }
        }
    }

    /// Waits after a failure, then looks where the registry is.
    async fn recover(&mut self, why: RequestError) -> Result<(), RequestError> {
        if matches!(why, RequestError::Status { status: 413, .. }) {
            if self.chunk_bytes.is_some_and(|chunk| chunk <= SMALLER_BYTES) {
                return Err(why);
            }
            self.chunk_bytes = Some(SMALLER_BYTES);
        }
        let why = self.pause(why).await?;
        self.locate(why).await
    }

    /// Waits before another try; `why` is the error if there is none.
    async fn pause(&mut self, why: RequestError) -> Result<RequestError, RequestError> {
        let Some(wait_ms) = self.backoff.fail(None) else {
            return Err(why);
        };
        self.job.shared.wait(&why, wait_ms).await;
        Ok(why)
    }

    /// How far is the registry? If it does not know, the upload begins anew.
    async fn locate(&mut self, mut why: RequestError) -> Result<(), RequestError> {
        let status = Call::get(String::new());
        let job = self.job;
        loop {
            let answer = job
                .shared
                .ask_at(&job.place, &job.scope, &self.place, &status)
                .await;
            match answer {
                Ok(answer) => match offset(&answer) {
                    Some(offset) if answer.status().is_success() => {
                        return self.take_up(&answer, offset).await;
                    }
                    _ => return self.begin_anew(why).await,
                },
                Err(error) if may_pass(&error) => why = self.pause(error).await?,
                Err(_) => return self.begin_anew(why).await,
            }
        }
    }

    /// Goes on where the registry is.
    async fn take_up(&mut self, answer: &Answer, offset: u64) -> Result<(), RequestError> {
        if offset > self.job.blob.size_bytes {
            return Err(RequestError::Protocol {
                host: answer.host.clone(),
                what: "more bytes of an upload than were sent".to_owned(),
            });
        }
        if offset > self.offset_bytes {
            self.backoff.succeed();
        }
        self.offset_bytes = offset;
        match self.go_on(answer).await {
            // An answer without a place means: the same.
            Err(RequestError::Protocol { .. }) => Ok(()),
            other => other,
        }
    }

    /// Begins another upload, as often as other things are tried: `why` is the error then.
    async fn begin_anew(&mut self, why: RequestError) -> Result<(), RequestError> {
        self.restarts += 1;
        if self.restarts >= self.job.shared.transport.timing.tries {
            return Err(why);
        }
        let answer = loop {
            match self.job.start().await {
                Ok(answer) => break answer,
                Err(error) if error.is_unreachable() => drop(self.pause(error).await?),
                Err(error) => return Err(error),
            }
        };
        self.offset_bytes = 0;
        self.home = answer.url().clone();
        self.go_on(&answer).await
    }

    /// Ends the upload with what was not sent yet: the registry compares the digest. `None` if it
    /// has the blob now, or why the upload has to begin anew.
    async fn commit(&mut self, rest: Bytes) -> Result<Option<RequestError>, RequestError> {
        let job = self.job;
        let mut place = self.place.clone();
        place
            .url
            .query_pairs_mut()
            .append_pair("digest", &job.blob.digest.to_string());
        let mut call = Call::new(Method::PUT, String::new()).with_header(CONTENT_TYPE, OCTETS);
        call.limit_ms = Some(job.shared.transport.timing.commit_ms);
        loop {
            call.body = Some(rest.clone());
            let answer = job
                .shared
                .ask_at(&job.place, &job.scope, &place, &call)
                .await;
            let why = match answer {
                Ok(answer) if matches!(answer.status().as_u16(), 201 | 204 | 200) => {
                    return Ok(None);
                }
                Ok(answer) if answer.status() == 404 => {
                    return Ok(Some(job.shared.refusal(answer).await));
                }
                Ok(answer) => job.shared.refusal(answer).await,
                Err(error) => error,
            };
            if !may_pass(&why) {
                return Err(why);
            }
            let why = self.pause(why).await?;
            // It may have been done although nobody heard of it.
            if matches!(job.is_there().await, Ok(true)) {
                return Ok(None);
            }
            if !rest.is_empty() {
                return Ok(Some(why));
            }
        }
    }

    /// Gives an upload up. The registry forgets it by itself, later, if this does not reach it.
    async fn cancel(&self) {
        let call = Call::new(Method::DELETE, String::new());
        let (job, place) = (self.job, &self.place);
        let _ = job
            .shared
            .ask_at(&job.place, &job.scope, place, &call)
            .await;
    }
}

/// Whether another try may go better. In the middle of an upload a registry that is gone may come
/// back.
fn may_pass(error: &RequestError) -> bool {
    error.is_transient() || error.is_unreachable()
}

/// Gives an upload up that was begun and is not needed.
pub(super) async fn cancel(job: &Job<'_>, answer: &Answer) {
    if let Ok(Next::Here(place)) = next(answer, answer.url()) {
        let call = Call::new(Method::DELETE, String::new());
        let _ = job
            .shared
            .ask_at(&job.place, &job.scope, &place, &call)
            .await;
    }
}

/// How many bytes a registry has: `Range: 0-99` is a hundred; `0-0` is none (or one: it is sent
/// again then, which the registry refuses, and the upload begins anew).
fn offset(answer: &Answer) -> Option<u64> {
    let range = answer.header(RANGE)?;
    let range = range.trim().strip_prefix("bytes=").unwrap_or(range.trim());
    let (start, end) = range.split_once('-')?;
    let end: u64 = end.trim().parse().ok()?;
    match (start.trim().parse::<u64>().ok()?, end) {
        (0, 0) => Some(0),
        (0, end) => end.checked_add(1),
        _ => None,
    }
}
