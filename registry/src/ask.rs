//! One request to a registry, as often as it takes: with what the registry wants to know of us,
//! again after a failure that may pass, and after as long as the registry says.

use crate::auth::{Auth, Means, Scope};
use crate::error::{RequestError, chain};
use crate::notice::{Notice, Observer};
use crate::settings::Settings;
use crate::settings::registries::Endpoint;
use crate::transport::retry::{Backoff, is_transient, retry_after_ms};
use crate::transport::{Answer, Call, Transport};
use reqwest::Url;
use reqwest::header::{AsHeaderName, HeaderMap, HeaderValue};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Logins for one request: a token may have expired, and its successor be of the wrong kind.
const MAX_LOGINS: usize = 2;

/// The head of an answer whose body was read.
pub(crate) struct Head {
    /// Who sent it, after redirects.
    pub host: String,
    pub url: Url,
    headers: HeaderMap,
}

impl Head {
    /// A header as text.
    pub(crate) fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A URL that a registry has named.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub url: Url,
    /// Whether it is the registry's own: the same scheme, host and port.
    pub is_registrys: bool,
}

/// What all clones of a client share.
pub(crate) struct Shared {
    pub settings: Arc<Settings>,
    pub transport: Transport,
    pub auth: Auth,
    observer: Option<Observer>,
    /// Says something once.
    warn: Box<dyn Fn(String) + Send + Sync>,
    /// Mirrors that could not be reached: not waited for again.
    unreachable: Mutex<HashSet<String>>,
}

impl Shared {
    pub(crate) fn new(
        settings: Arc<Settings>,
        transport: Transport,
        auth: Auth,
        observer: Option<Observer>,
    ) -> Self {
        for password in settings.proxies.passwords() {
            auth.remember(password);
        }
        Self {
            settings,
            transport,
            auth,
            warn: Box::new(once(observer.clone())),
            observer,
            unreachable: Mutex::default(),
        }
    }

    /// Asks a registry. Any answer is given back but a refusal to say who we are and a failure that
    /// did not pass.
    pub(crate) async fn ask(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        call: &Call,
    ) -> Result<Answer, RequestError> {
        let mut backoff = Backoff::new(&self.transport.timing);
        loop {
            let (why, wanted_ms) = match self.ask_once(endpoint, scope, call).await {
                Ok(answer) if is_transient(answer.status().as_u16()) => {
                    let wanted_ms = retry_after_ms(&answer);
                    (self.refusal(answer).await, wanted_ms)
                }
                Err(error) if error.is_transient() => (error, None),
                other => return other,
            };
            let Some(wait_ms) = backoff.fail(wanted_ms) else {
                return Err(why);
            };
            self.wait(&why, wait_ms).await;
        }
    }

    /// A whole document from a registry: its bytes, and the head of the answer. A connection that
    /// breaks in the middle of it is made again.
    pub(crate) async fn document(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        call: &Call,
        what: &'static str,
        limit_bytes: u64,
    ) -> Result<(Head, Vec<u8>), RequestError> {
        let timing = &self.transport.timing;
        let mut backoff = Backoff::new(timing);
        loop {
            let answer = self.ask(endpoint, scope, call).await?;
            let answer = expect(self, answer, &[200]).await?;
            let head = Head {
                host: answer.host.clone(),
                url: answer.url().clone(),
                headers: answer.headers().clone(),
            };
            let read = answer.document(what, limit_bytes, timing.document_ms);
            match read.await {
                Ok(bytes) => return Ok((head, bytes)),
                Err(why @ RequestError::Broken { .. }) => match backoff.fail(None) {
                    Some(wait_ms) => self.wait(&why, wait_ms).await,
                    None => return Err(why),
                },
                Err(why) => return Err(why),
            }
        }
    }

    /// Asks a registry without trying again, but for its challenges.
    pub(crate) async fn ask_once(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        call: &Call,
    ) -> Result<Answer, RequestError> {
        let mut logins = 0;
        loop {
            let header = self.authorization(endpoint, scope).await?;
            let answer = self.transport.call(endpoint, call, header.as_ref()).await;
            let answer = answer.map_err(|error| self.scrubbed(error))?;
            if answer.status() != 401 || !answer.is_registrys {
                return Ok(answer);
            }
            logins += 1;
            if logins > MAX_LOGINS {
                return Err(self.denied(answer, header.is_some()).await);
            }
            self.challenged(endpoint, scope, answer, header.as_ref())
                .await?;
        }
    }

    /// Asks for a URL that a registry has named. Who we are is said only to the registry itself.
    pub(crate) async fn ask_at(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        place: &Place,
        call: &Call,
    ) -> Result<Answer, RequestError> {
        let mut logins = 0;
        loop {
            let header = match place.is_registrys {
                true => self.authorization(endpoint, scope).await?,
                false => None,
            };
            let url = place.url.clone();
            let transport = &self.transport;
            let answer = transport
                .follow(Some(endpoint), url, call, header.as_ref())
                .await;
            let answer = answer.map_err(|error| self.scrubbed(error))?;
            if answer.status() != 401 || !place.is_registrys || logins == MAX_LOGINS {
                return Ok(answer);
            }
            logins += 1;
            self.challenged(endpoint, scope, answer, header.as_ref())
                .await?;
        }
    }

    /// What a request of this scope is sent with.
    pub(crate) async fn authorization(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
    ) -> Result<Option<HeaderValue>, RequestError> {
        let header = self.auth.header(self.means(), endpoint, scope).await;
        header.map_err(|error| self.scrubbed(error))
    }

    /// Answers a 401. An error has the registry's own words where they say more.
    pub(crate) async fn challenged(
        &self,
        endpoint: &Endpoint,
        scope: &Scope,
        answer: Answer,
        used: Option<&HeaderValue>,
    ) -> Result<(), RequestError> {
        let headers = answer.headers();
        let outcome = self
            .auth
            .answer(self.means(), endpoint, scope, headers, used)
            .await;
        match outcome {
            Err(RequestError::Denied {
                message,
                has_credentials,
                ..
            }) if message.is_empty() => Err(self.denied(answer, has_credentials).await),
            Err(error) => Err(self.scrubbed(error)),
            Ok(()) => Ok(()),
        }
    }

    fn means(&self) -> Means<'_> {
        Means {
            settings: &self.settings,
            transport: &self.transport,
            warn: &*self.warn,
        }
    }

    /// The refresh token that a login is given, if any.
    pub(crate) async fn identity(
        &self,
        endpoint: &Endpoint,
    ) -> Result<Option<crate::settings::Secret>, RequestError> {
        let token = self.auth.identity(self.means(), endpoint).await;
        token.map_err(|error| self.scrubbed(error))
    }

    async fn denied(&self, answer: Answer, has_credentials: bool) -> RequestError {
        let host = answer.host.clone();
        let message = self.auth.scrub(&answer.message().await);
        RequestError::Denied {
            host,
            message,
            has_credentials,
        }
    }

    /// The error that an answer is, without secrets.
    pub(crate) async fn refusal(&self, answer: Answer) -> RequestError {
        self.scrubbed(answer.refusal().await)
    }

    /// A registry can repeat what it was sent.
    fn scrubbed(&self, mut error: RequestError) -> RequestError {
        match &mut error {
            RequestError::Status { message, .. }
            | RequestError::TooManyRequests { message, .. }
            | RequestError::Denied { message, .. }
            | RequestError::Challenge {
                challenge: message, ..
            }
            | RequestError::Redirect { why: message, .. }
            | RequestError::Proxy { why: message, .. }
            | RequestError::Protocol { what: message, .. } => *message = self.auth.scrub(message),
            _ => {}
        }
        error
    }

    /// Waits before another try, and says so.
    pub(crate) async fn wait(&self, why: &RequestError, wait_ms: u64) {
        if let Some(observer) = &self.observer {
            observer(Notice::Retry {
                why: chain(why),
                wait_ms,
            });
        }
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    }

    /// The places of a list without mirrors that could not be reached before.
    pub(crate) fn reachable(&self, mut places: Vec<Endpoint>) -> Vec<Endpoint> {
        let known = self
            .unreachable
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        places.retain(|place| !place.is_mirror || !known.contains(place.host()));
        places
    }

    /// Remembers a mirror that cannot be reached.
    pub(crate) fn note(&self, endpoint: &Endpoint, error: &RequestError) {
        if endpoint.is_mirror && error.is_unreachable() {
            let mut known = self
                .unreachable
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            known.insert(endpoint.host().to_owned());
        }
    }
}

/// Tells each warning to `observer` the first time.
fn once(observer: Option<Observer>) -> impl Fn(String) + Send + Sync {
    let told = Mutex::new(HashSet::new());
    move |text: String| {
        let is_new = {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            told.insert(text.clone())
        };
        if let Some(observer) = observer.as_ref().filter(|_| is_new) {
            observer(Notice::Warning(text));
        }
    }
}

/// An answer with one of these statuses, or the error that it is.
pub(crate) async fn expect(
    shared: &Shared,
    answer: Answer,
    statuses: &[u16],
) -> Result<Answer, RequestError> {
    if statuses.contains(&answer.status().as_u16()) {
        return Ok(answer);
    }
    Err(shared.refusal(answer).await)
}
