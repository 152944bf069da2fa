//! Who we are to a registry: answers to its challenges (RFC 9110, 11; distribution's token
//! authentication). A token is for one registry and scope; it is renewed when the registry says so.

mod challenge;
mod token;

use crate::error::RequestError;
use crate::settings::credentials::{Credentials, look_up};
use crate::settings::registries::Endpoint;
use crate::settings::{Secret, Settings};
use crate::transport::Transport;
use base64::Engine as _;
use challenge::Challenge;
use reqwest::header::{HeaderMap, HeaderValue};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What is to be done with a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    /// `repository:library/debian:pull`; none for a login.
    words: Vec<String>,
}

impl Scope {
    pub(crate) fn pull(repository: &str) -> Self {
        Self {
            words: vec![format!("repository:{repository}:pull")],
        }
    }

    pub(crate) fn push(repository: &str) -> Self {
        Self {
            words: vec![format!("repository:{repository}:pull,push")],
        }
    }

    /// And reading another repository, to mount a blob from there.
    pub(crate) fn and_pull(mut self, repository: &str) -> Self {
        self.words.push(format!("repository:{repository}:pull"));
        self
    }
}

/// What a registry has accepted for a scope.
#[derive(Default)]
struct Session {
    header: Option<HeaderValue>,
    expires: Option<Instant>,
}

/// One for all who ask at once: the first of them renews it.
type SharedSession = Arc<tokio::sync::Mutex<Session>>;

/// What was looked up for a repository, shared by all who ask at once.
type Known = Arc<tokio::sync::OnceCell<Option<Credentials>>>;

/// The answers to registries' challenges.
#[derive(Default)]
pub(crate) struct Auth {
    sessions: Mutex<HashMap<(String, Scope), SharedSession>>,
    challenges: Mutex<HashMap<String, Challenge>>,
    credentials: Mutex<HashMap<(String, String), Known>>,
    /// Credentials of a login that is being tried; no file is asked.
    given: Option<(String, Credentials)>,
    /// Texts that no message may show.
    secrets: Mutex<Vec<Secret>>,
}

/// What an authentication needs beside itself.
#[derive(Clone, Copy)]
pub(crate) struct Means<'a> {
    pub settings: &'a Arc<Settings>,
    pub transport: &'a Transport,
    /// Is told what the user should know.
    pub warn: &'a (dyn Fn(String) + Send + Sync),
}

impl Auth {
    /// For trying credentials at one registry.
    pub(crate) fn given(registry: &str, credentials: Credentials) -> Self {
        let own = Self {
            given: Some((registry.to_owned(), credentials.clone())),
            ..Self::default()
        };
        own.remember_credentials(&credentials);
        own
    }

    /// What a request is sent with, if anything is known of what the registry wants.
    pub(crate) async fn header(
        &self,
        means: Means<'_>,
        endpoint: &Endpoint,
        scope: &Scope,
    ) -> Result<Option<HeaderValue>, RequestError> {
        let session = self.session(endpoint, scope);
        let mut session = session.lock().await;
        if session
            .expires
            .is_some_and(|expires| expires < Instant::now())
        {
            *session = Session::default();
        }
        if session.header.is_none() {
            let challenge = {
                let known = self
                    .challenges
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                known.get(endpoint.host()).cloned()
            };
            if let Some(challenge) = challenge {
                *session = self.login(means, endpoint, scope, &challenge).await?;
            }
        }
        Ok(session.header.clone())
    }

    /// Answers a 401 to a request that was sent with `used`.
    pub(crate) async fn answer(
        &self,
        means: Means<'_>,
        endpoint: &Endpoint,
        scope: &Scope,
        headers: &HeaderMap,
        used: Option<&HeaderValue>,
    ) -> Result<(), RequestError> {
        let session = self.session(endpoint, scope);
        let mut session = session.lock().await;
        if session.header.is_some() && session.header.as_ref() != used {
            // Somebody else has answered meanwhile.
            return Ok(());
        }
        let challenge = Challenge::choose(endpoint.host(), headers)?;
        let fresh = self.login(means, endpoint, scope, &challenge).await?;
        if fresh.header.as_ref() == used {
            return Err(RequestError::Denied {
                host: endpoint.host().to_owned(),
                message: String::new(),
                has_credentials: used.is_some(),
            });
        }
        *session = fresh;
        let mut known = self
            .challenges
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.insert(endpoint.host().to_owned(), challenge);
        Ok(())
    }

    async fn login(
        &self,
        means: Means<'_>,
        endpoint: &Endpoint,
        scope: &Scope,
        challenge: &Challenge,
    ) -> Result<Session, RequestError> {
        let credentials = self.credentials(means, endpoint).await?;
        match challenge {
            Challenge::Basic => match credentials {
                Some(Credentials::Password { user, password }) => Ok(Session {
                    header: Some(self.basic(&user, &password)),
                    expires: None,
                }),
                _ => Err(RequestError::Denied {
                    host: endpoint.host().to_owned(),
                    message: String::new(),
                    has_credentials: false,
                }),
            },
            Challenge::Bearer(bearer) => {
                let token = self
                    .token(means, endpoint, scope, bearer, credentials.as_ref())
                    .await?;
                Ok(Session {
                    header: Some(token.header),
                    expires: Some(token.expires),
                })
            }
        }
    }

    /// The refresh token that a registry gives for a password, if it does.
    pub(crate) async fn identity(
        &self,
        means: Means<'_>,
        endpoint: &Endpoint,
    ) -> Result<Option<Secret>, RequestError> {
        let challenge = {
            let known = self
                .challenges
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            known.get(endpoint.host()).cloned()
        };
        let Some(Challenge::Bearer(bearer)) = challenge else {
            return Ok(None);
        };
        let credentials = self.credentials(means, endpoint).await?;
        let token = self
            .token(
                means,
                endpoint,
                &Scope::default(),
                &bearer,
                credentials.as_ref(),
            )
            .await?;
        Ok(token.refresh)
    }

    fn session(&self, endpoint: &Endpoint, scope: &Scope) -> SharedSession {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (endpoint.host().to_owned(), scope.clone());
        sessions.entry(key).or_default().clone()
    }

    /// The credentials for a repository, looked up once.
    async fn credentials(
        &self,
        means: Means<'_>,
        endpoint: &Endpoint,
    ) -> Result<Option<Credentials>, RequestError> {
        if let Some((registry, credentials)) = &self.given {
            return Ok((registry == &endpoint.registry).then(|| credentials.clone()));
        }
        let key = (endpoint.registry.clone(), endpoint.repository.clone());
        let known = {
            let mut all = self
                .credentials
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            all.entry(key.clone()).or_default().clone()
        };
        let found = known
            .get_or_try_init(|| async {
                let settings = means.settings.clone();
                // A helper is a program.
                let looked_up = tokio::task::spawn_blocking(move || {
                    let warnings = Mutex::new(Vec::new());
                    let warn = |text| {
                        let mut all = warnings.lock().unwrap_or_else(PoisonError::into_inner);
                        all.push(text);
                    };
                    let found = look_up(&settings.places, &key.0, &key.1, &warn);
                    (
                        found,
                        warnings
                            .into_inner()
                            .unwrap_or_else(PoisonError::into_inner),
                    )
                });
                let (found, warnings) = looked_up.await.map_err(|_| RequestError::Protocol {
                    host: endpoint.host().to_owned(),
                    what: "the look-up of its credentials ended early".to_owned(),
                })?;
                warnings.into_iter().for_each(means.warn);
                let found = found?;
                if let Some(credentials) = &found {
                    self.remember_credentials(credentials);
                }
                Ok::<_, RequestError>(found)
            })
            .await?;
        Ok(found.clone())
    }

    fn basic(&self, user: &str, password: &Secret) -> HeaderValue {
        let pair = format!("{user}:{}", password.reveal());
        let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
        self.remember(&encoded);
        secret_header(&format!("Basic {encoded}")).unwrap_or_else(|| HeaderValue::from_static(""))
    }

    fn remember_credentials(&self, credentials: &Credentials) {
        match credentials {
            Credentials::Password { password, .. } => self.remember(password.reveal()),
            Credentials::Identity(token) => self.remember(token.reveal()),
        }
    }

    /// A text that no message may show.
    pub(crate) fn remember(&self, secret: &str) {
        // A word of one or two letters hides nothing and would make messages unreadable.
        if secret.len() >= 3 {
            let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
            let secret = Secret::new(secret);
            if !secrets.contains(&secret) {
                secrets.push(secret);
            }
        }
    }

    /// A registry's message without secrets: it may repeat what it was sent.
    pub(crate) fn scrub(&self, message: &str) -> String {
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.iter().fold(message.to_owned(), |text, secret| {
            text.replace(secret.reveal(), "***")
        })
    }
}

/// A header that no log shows; none for what cannot be one.
fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}
