//! Tokens: asked for with a password by GET, with a refresh token by POST (distribution's "Token
//! Authentication Specification" and "OAuth2 Authentication").

use super::challenge::Bearer;
use super::{Auth, Means, Scope, secret_header};
use crate::error::RequestError;
use crate::settings::Secret;
use crate::settings::credentials::Credentials;
use crate::settings::registries::Endpoint;
use crate::transport::{Answer, Call, Kinship, host_of, is_loopback, kinship};
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;
use std::time::{Duration, Instant};

/// Largest answer of a token service, in bytes.
const MAX_TOKEN_BYTES: u64 = 1 << 20;
/// How long a token lasts that does not say it, in seconds.
const DEFAULT_LIFE_S: u64 = 60;
/// Renewed this long before its end, in seconds.
const MARGIN_S: u64 = 10;
const CLIENT: &str = "hullbox";

/// A token and how long it is used.
pub(super) struct Token {
    pub header: HeaderValue,
    pub expires: Instant,
    pub refresh: Option<Secret>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    expires_in: Option<u64>,
    refresh_token: Option<String>,
}

impl Auth {
    pub(super) async fn token(
        &self,
        means: Means<'_>,
        endpoint: &Endpoint,
        scope: &Scope,
        bearer: &Bearer,
        credentials: Option<&Credentials>,
    ) -> Result<Token, RequestError> {
        check_realm(endpoint, bearer, credentials.is_some())?;
        let host = host_of(&bearer.realm);
        let answer = match credentials {
            Some(Credentials::Identity(token)) => {
                let call = refresh_call(scope, bearer, token);
                let url = bearer.realm.clone();
                means
                    .transport
                    .follow(Some(endpoint), url, &call, None)
                    .await?
            }
            other => {
                let (user, header) = match other {
                    Some(Credentials::Password { user, password }) => {
                        (Some(user), Some(self.basic(user, password)))
                    }
                    _ => (None, None),
                };
                let url = token_url(scope, bearer, user, self.given.is_some());
                let call = Call::get(String::new());
                let transport = means.transport;
                transport
                    .follow(Some(endpoint), url, &call, header.as_ref())
                    .await?
            }
        };
        if !answer.status().is_success() {
            return Err(refused(answer, credentials.is_some()).await);
        }
        let limit_ms = means.transport.timing.document_ms;
        let bytes = answer
            .document("a token", MAX_TOKEN_BYTES, limit_ms)
            .await?;
        self.read(&host, &bytes)
    }

    fn read(&self, host: &str, bytes: &[u8]) -> Result<Token, RequestError> {
        let bad = |what: &str| RequestError::Protocol {
            host: host.to_owned(),
            what: what.to_owned(),
        };
        // JSON's error would quote the token.
        let document: Document =
            serde_json::from_slice(bytes).map_err(|_| bad("a token that is not valid JSON"))?;
        let text = if document.token.is_empty() {
            document.access_token
        } else {
            document.token
        };
        if text.is_empty() {
            return Err(bad("no token"));
        }
        let header = secret_header(&format!("Bearer {text}"))
            .ok_or_else(|| bad("a token that cannot be sent"))?;
        self.remember(&text);
        let life = document.expires_in.unwrap_or(DEFAULT_LIFE_S);
        let life = life.clamp(DEFAULT_LIFE_S, 24 * 3600) - MARGIN_S;
        let refresh = document.refresh_token.filter(|token| !token.is_empty());
        if let Some(refresh) = &refresh {
            self.remember(refresh);
        }
        Ok(Token {
            header,
            expires: Instant::now() + Duration::from_secs(life),
            refresh: refresh.map(Secret::new),
        })
    }
}

/// A registry may name any host for its tokens, and it gets the credentials of this registry, as
/// with Docker. Without TLS it is asked only if the registry may be too, and learns credentials
/// only on the registry's own host.
fn check_realm(
    endpoint: &Endpoint,
    bearer: &Bearer,
    has_credentials: bool,
) -> Result<(), RequestError> {
    let realm = &bearer.realm;
    let is_lenient = endpoint.is_insecure || is_loopback(endpoint.host());
    let is_beside = kinship(realm, endpoint.host()) != Kinship::None;
    if realm.scheme() == "https" || (is_lenient && (is_beside || !has_credentials)) {
        return Ok(());
    }
    Err(RequestError::Challenge {
        host: endpoint.host().to_owned(),
        challenge: format!("its token service {} has no TLS", host_of(realm)),
    })
}

fn token_url(scope: &Scope, bearer: &Bearer, user: Option<&String>, is_login: bool) -> Url {
    let mut url = bearer.realm.clone();
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = &bearer.service {
            query.append_pair("service", service);
        }
        for words in &scope.words {
            query.append_pair("scope", words);
        }
        if let Some(user) = user {
            query.append_pair("account", user);
        }
        if is_login {
            query.append_pair("client_id", CLIENT);
            query.append_pair("offline_token", "true");
        }
    }
    url
}

fn refresh_call(scope: &Scope, bearer: &Bearer, token: &Secret) -> Call {
    // A URL's query is the form's encoding.
    let mut form = bearer.realm.clone();
    form.set_query(None);
    form.query_pairs_mut()
        .append_pair("grant_type", "refresh_token")
        .append_pair("service", bearer.service.as_deref().unwrap_or_default())
        .append_pair("client_id", CLIENT)
        .append_pair("scope", &scope.words.join(" "))
        .append_pair("refresh_token", token.reveal());
    let body = form.query().unwrap_or_default().to_owned();
    let mut call = Call::new(Method::POST, String::new()).with_header(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    call.body = Some(Bytes::from(body));
    call
}

async fn refused(answer: Answer, had_credentials: bool) -> RequestError {
    match answer.refusal().await {
        RequestError::Denied { host, message, .. } => RequestError::Denied {
            host,
            message,
            has_credentials: had_credentials,
        },
        // OAuth's refusals are 400.
        RequestError::Status {
            host,
            status: 400,
            message,
        } if had_credentials => RequestError::Denied {
            host,
            message,
            has_credentials: true,
        },
        other => other,
    }
}
