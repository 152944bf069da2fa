//! An answer on its way: its head, then its body under limits of size and time.

use crate::error::{Cause, RequestError};
use crate::names::shown;
use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_LENGTH, HeaderMap};
use serde::Deserialize;
use std::time::Duration;

/// Most of an error's body that is read, in bytes.
const MAX_ERROR_BYTES: u64 = 64 << 10;
/// Longest that an error's body is waited for, in milliseconds.
const ERROR_PATIENCE_MS: u64 = 5000;

/// An answer whose head is here.
#[derive(Debug)]
pub(crate) struct Answer {
    response: reqwest::Response,
    /// Who sent it, after redirects.
    pub host: String,
    /// Whether it comes from the registry itself and not from where it redirected to.
    pub is_registrys: bool,
}

/// The errors of distribution-spec 1.1, "Error codes".
#[derive(Default, Deserialize)]
#[serde(default)]
struct Errors {
    errors: Vec<ErrorEntry>,
    /// Token services have these.
    details: Option<String>,
    message: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorEntry {
    code: String,
    message: String,
}

impl Answer {
    pub(super) const fn new(response: reqwest::Response, host: String) -> Self {
        Self {
            response,
            host,
            is_registrys: true,
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// Where it came from.
    pub(crate) fn url(&self) -> &reqwest::Url {
        self.response.url()
    }

    /// A header as text; none if it is there twice or is no text.
    pub(crate) fn header(&self, name: impl reqwest::header::AsHeaderName) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// The length that the body is said to have, in bytes.
    pub(crate) fn length_bytes(&self) -> Option<u64> {
        self.header(CONTENT_LENGTH)?.parse().ok()
    }

    /// The next bytes of the body, or `None` at its end.
    pub(crate) async fn chunk(&mut self, idle_ms: u64) -> Result<Option<Bytes>, RequestError> {
        let idle = Duration::from_millis(idle_ms);
        match tokio::time::timeout(idle, self.response.chunk()).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) => Err(super::failed(&self.host, error)),
            Err(_) => Err(RequestError::Stalled {
                host: self.host.clone(),
                what: "nothing",
                seconds: idle.as_secs(),
            }),
        }
    }

    /// The whole body, of at most `limit_bytes`, within `limit_ms`.
    pub(crate) async fn document(
        mut self,
        what: &'static str,
        limit_bytes: u64,
        limit_ms: u64,
    ) -> Result<Vec<u8>, RequestError> {
        let host = self.host.clone();
        if self
            .length_bytes()
            .is_some_and(|length| length > limit_bytes)
        {
            return Err(too_large(host, what, limit_bytes));
        }
        let limit = Duration::from_millis(limit_ms);
        let body = async {
            let mut bytes = Vec::new();
            while let Some(piece) = self.chunk(limit_ms).await? {
                if (bytes.len() + piece.len()) as u64 > limit_bytes {
                    return Err(too_large(self.host.clone(), what, limit_bytes));
                }
                bytes.extend_from_slice(&piece);
            }
            Ok(bytes)
        };
        tokio::time::timeout(limit, body)
            .await
            .map_err(|_| RequestError::Stalled {
                host,
                what: "almost nothing",
                seconds: limit.as_secs(),
            })?
    }

    /// What an answer that says no says. It is the registry's text, without control characters.
    pub(crate) async fn message(mut self) -> String {
        let read = async {
            let mut bytes = Vec::new();
            while let Ok(Some(piece)) = self.chunk(ERROR_PATIENCE_MS).await {
                bytes.extend_from_slice(&piece);
                if bytes.len() as u64 > MAX_ERROR_BYTES {
                    break;
                }
            }
            bytes
        };
        let Ok(bytes) = tokio::time::timeout(Duration::from_millis(ERROR_PATIENCE_MS), read).await
        else {
            return String::new();
        };
        let said: Errors = serde_json::from_slice(&bytes).unwrap_or_default();
        let first = said.errors.into_iter().next().unwrap_or_default();
        let texts = [
            Some(first.message),
            Some(first.code),
            said.details,
            said.message,
        ];
        let text = texts.into_iter().flatten().find(|text| !text.is_empty());
        text.map(|text| shown_line(&text)).unwrap_or_default()
    }

    /// The error that an answer with a status of refusal is.
    pub(crate) async fn refusal(self) -> RequestError {
        let host = self.host.clone();
        let status = self.status().as_u16();
        match status {
            401 | 403 => RequestError::Denied {
                host,
                has_credentials: false,
                message: self.message().await,
            },
            429 => RequestError::TooManyRequests {
                host,
                limit: self.limit(),
                message: self.message().await,
            },
            300..=399 => RequestError::Redirect {
                host,
                why: format!("with status {status}, which is not expected here"),
            },
            _ => RequestError::Status {
                host,
                status,
                message: self.message().await,
            },
        }
    }

    /// The limit of requests that a registry names: `100;w=21600` in Docker Hub's words.
    fn limit(&self) -> String {
        let limit = self.header("ratelimit-limit").unwrap_or_default();
        match limit.split_once(";w=") {
            Some((count, seconds)) => format!("{} requests in {} s", shown(count), shown(seconds)),
            None if limit.is_empty() => String::new(),
            None => format!("limit {}", shown(limit)),
        }
    }
}

/// One line of a registry's text.
fn shown_line(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(300)
        .collect();
    line.trim().to_owned()
}

fn too_large(host: String, what: &'static str, limit_bytes: u64) -> RequestError {
    RequestError::TooLarge {
        host,
        what,
        limit_bytes,
    }
}

/// The connection ended although more was to come.
pub(crate) fn ended_early(host: &str) -> RequestError {
    RequestError::Broken {
        host: host.to_owned(),
        source: Box::new(Cause("it ended early".to_owned())),
    }
}
