//! A request to a registry, with the redirects that its answer may be.

use super::{Answer, Transport};
use crate::error::RequestError;
use crate::names::shown;
use crate::settings::registries::Endpoint;
use bytes::Bytes;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, Url};

/// Most redirects for one request.
const MAX_REDIRECTS: usize = 10;

/// A request that can be sent again.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub method: Method,
    /// Path and query behind `/v2/`.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Option<Bytes>,
    /// For the head of the answer, in milliseconds, if it is not the usual time.
    pub limit_ms: Option<u64>,
}

impl Call {
    pub(crate) fn new(method: Method, path: String) -> Self {
        Self {
            method,
            path,
            headers: HeaderMap::new(),
            body: None,
            limit_ms: None,
        }
    }

    pub(crate) fn get(path: String) -> Self {
        Self::new(Method::GET, path)
    }

    #[must_use]
    pub(crate) fn with_header(
        mut self,
        name: reqwest::header::HeaderName,
        value: HeaderValue,
    ) -> Self {
        self.headers.append(name, value);
        self
    }
}

/// What two URLs have in common if credentials of one are the other's too.
pub(crate) fn origin(url: &Url) -> (String, Option<String>, Option<u16>) {
    (
        url.scheme().to_owned(),
        url.host_str().map(str::to_owned),
        url.port_or_known_default(),
    )
}

impl Transport {
    /// Asks a registry, and follows it to where it redirects.
    pub(crate) async fn call(
        &self,
        endpoint: &Endpoint,
        call: &Call,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, RequestError> {
        let mut schemes = self.schemes(endpoint)?.into_iter().peekable();
        loop {
            let Some(scheme) = schemes.next() else {
                return Err(bad_host(endpoint.host()));
            };
            let url = format!("{scheme}://{}/v2/{}", endpoint.host(), call.path);
            let url = Url::parse(&url).map_err(|_| bad_host(endpoint.host()))?;
            match self.follow(Some(endpoint), url, call, authorization).await {
                // It does not speak TLS, or speaks nothing: the next scheme tells.
                Err(error) if error.is_unreachable() && schemes.peek().is_some() => {}
                Err(error) => return Err(error),
                Ok(answer) => {
                    self.speaks(endpoint, scheme);
                    return Ok(answer);
                }
            }
        }
    }

    /// Asks for a URL, and for where it redirects. `authorization` goes to the URL's own origin and
    /// nowhere else.
    pub(crate) async fn follow(
        &self,
        endpoint: Option<&Endpoint>,
        mut url: Url,
        call: &Call,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, RequestError> {
        let home = origin(&url);
        let mut method = call.method.clone();
        for _ in 0..=MAX_REDIRECTS {
            let is_home = origin(&url) == home;
            let mut request = reqwest::Request::new(method.clone(), url.clone());
            request.headers_mut().clone_from(&call.headers);
            // A body that is compressed on the way has another digest.
            request
                .headers_mut()
                .insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            if let Some(value) = authorization.filter(|_| is_home) {
                request.headers_mut().insert(AUTHORIZATION, value.clone());
            }
            if let Some(body) = call.body.clone().filter(|_| method == call.method) {
                *request.body_mut() = Some(body.into());
            }
            let limit_ms = call.limit_ms.unwrap_or(self.timing.response_ms);
            let mut answer = self.exchange(endpoint, request, Some(limit_ms)).await?;
            answer.is_registrys = is_home;
            let Some(next) = target(&answer, &method)? else {
                return Ok(answer);
            };
            if answer.status() == 303 {
                method = Method::GET;
            }
            url = next;
        }
        Err(RequestError::Redirect {
            host: super::host_of(&url),
            why: format!("more than {MAX_REDIRECTS} times"),
        })
    }
}

/// Where an answer leads to, if it is a redirect of a request that may be sent elsewhere.
fn target(answer: &Answer, method: &Method) -> Result<Option<Url>, RequestError> {
    let is_redirect = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    if !is_redirect || !matches!(*method, Method::GET | Method::HEAD) {
        return Ok(None);
    }
    let bad = |why: String| RequestError::Redirect {
        host: answer.host.clone(),
        why,
    };
    let location = answer
        .header(LOCATION)
        .ok_or_else(|| bad("without saying where to".to_owned()))?;
    let mut next = answer
        .url()
        .join(location)
        .map_err(|_| bad("to what is no URL".to_owned()))?;
    if !matches!(next.scheme(), "http" | "https") || next.host_str().is_none() {
        return Err(bad(format!("to a URL of {:?}", shown(next.scheme()))));
    }
    if answer.url().scheme() == "https" && next.scheme() == "http" {
        let to = super::host_of(&next);
        return Err(bad(format!("to {to} without TLS, which is not followed")));
    }
    // What an URL holds for a login is not the registry's to give. Neither call can fail here.
    let _ = next.set_username("");
    let _ = next.set_password(None);
    Ok(Some(next))
}

fn bad_host(host: &str) -> RequestError {
    RequestError::Protocol {
        host: shown(host),
        what: "its name makes no URL".to_owned(),
    }
}
