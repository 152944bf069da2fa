//! Requests to hosts, one at a time: connections, TLS, names, proxies, redirects and time-outs.
//! Nothing here knows what a registry is, but that credentials are one host's alone.

mod answer;
mod dns;
mod follow;
mod proxy;
pub(crate) mod retry;
mod tls;

pub(crate) use answer::{Answer, ended_early};
pub(crate) use follow::{Call, origin};

use crate::error::{Cause, RequestError};
use crate::settings::certs::HostCertificates;
use crate::settings::registries::Endpoint;
use crate::settings::{Places, Settings, SettingsError};
use dns::Resolver;
use reqwest::Url;
use rustls::RootCertStore;
use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// How long things may take, and how often they are tried.
#[derive(Debug, Clone)]
pub struct Timing {
    /// For a connection with its TLS handshake, in milliseconds.
    pub connect_ms: u64,
    /// From a request to the first byte of its answer, in milliseconds.
    pub response_ms: u64,
    /// For a whole manifest, token or list, in milliseconds.
    pub document_ms: u64,
    /// Without a byte of a blob, in milliseconds.
    pub idle_ms: u64,
    /// In this time, in milliseconds, …
    pub slow_window_ms: u64,
    /// … this many bytes of a blob must come.
    pub slow_bytes: u64,
    /// From the end of an upload to its answer, in milliseconds: registries hash again.
    pub commit_ms: u64,
    /// Before the second try, in milliseconds; doubled each time.
    pub backoff_ms: u64,
    /// Longest that a registry may make us wait before a try, in milliseconds.
    pub max_wait_ms: u64,
    /// Failures in a row that end a request, a download or an upload.
    pub tries: u32,
    /// A connection that brings this many bytes counts as success, however it ends.
    pub progress_bytes: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect_ms: 15_000,
            response_ms: 60_000,
            document_ms: 120_000,
            idle_ms: 30_000,
            slow_window_ms: 60_000,
            slow_bytes: 64 << 10,
            commit_ms: 600_000,
            backoff_ms: 500,
            max_wait_ms: 60_000,
            tries: 5,
            progress_bytes: 256 << 10,
        }
    }
}

/// What is known of one host.
#[derive(Clone)]
struct Host {
    client: reqwest::Client,
    /// Neither a valid certificate nor TLS is asked of it.
    is_lenient: bool,
}

/// Connections to any number of hosts.
pub(crate) struct Transport {
    places: Places,
    proxies: crate::settings::proxy::Proxies,
    pub(crate) timing: Timing,
    resolver: Arc<Resolver>,
    roots: OnceLock<RootCertStore>,
    hosts: Mutex<HashMap<(String, bool), Host>>,
    /// The scheme that a lenient host was found to speak.
    schemes: Mutex<HashMap<String, &'static str>>,
}

impl Transport {
    pub(crate) fn new(settings: &Settings, timing: Timing) -> Self {
        Self {
            resolver: Arc::new(Resolver::new(&settings.places.etc)),
            places: settings.places.clone(),
            proxies: settings.proxies.clone(),
            timing,
            roots: OnceLock::new(),
            hosts: Mutex::default(),
            schemes: Mutex::default(),
        }
    }

    /// The client for one host, made when it is first asked: its certificates are its own.
    fn host(&self, name: &str, alias: &str, is_insecure: bool) -> Result<Host, RequestError> {
        let key = (name.to_owned(), is_insecure);
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(&key) {
            return Ok(host.clone());
        }
        let certificates = HostCertificates::load(&self.places, &[name, alias])?;
        let is_lenient = is_insecure || (is_loopback(name) && certificates.authorities.is_empty());
        let roots = self.roots.get_or_init(tls::host_roots);
        let tls = tls::config(roots, certificates, is_lenient)
            .map_err(|why| bad_certificates(name, why))?;
        let proxies = self.proxies.clone();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .proxy(reqwest::Proxy::custom(move |url| {
                proxies.of_url(url).map(|proxy| proxy.url.clone())
            }))
            .dns_resolver(self.resolver.clone())
            .connect_timeout(Duration::from_millis(self.timing.connect_ms))
            .user_agent(concat!("hullbox/", env!("CARGO_PKG_VERSION")))
            .tcp_nodelay(true)
            .build()
            .map_err(|error| failed(name, error))?;
        let host = Host { client, is_lenient };
        hosts.insert(key, host.clone());
        Ok(host)
    }

    /// One request and its answer's head, without redirects, within `limit_ms`.
    pub(crate) async fn exchange(
        &self,
        endpoint: Option<&Endpoint>,
        request: reqwest::Request,
        limit_ms: Option<u64>,
    ) -> Result<Answer, RequestError> {
        let name = host_of(request.url());
        let kinship = endpoint.map_or(Kinship::None, |own| kinship(request.url(), own.host()));
        let alias = match endpoint {
            Some(own) if kinship == Kinship::Same => own.registry.as_str(),
            _ => name.as_str(),
        };
        // What may be said without TLS to a registry may be said so to its token service beside it.
        let is_insecure = endpoint.is_some_and(|own| own.is_insecure) && kinship != Kinship::None;
        let host = self.host(&name, alias, is_insecure)?;
        let proxy = self.proxies.of_url(request.url());
        // Of a URL without TLS the proxy answers itself.
        let speaks = proxy.filter(|proxy| {
            request.url().scheme() == "http" && !proxy.url.scheme().starts_with("socks")
        });
        let answer = host.client.execute(request);
        let answer = match limit_ms {
            None => answer.await,
            Some(limit_ms) => {
                let limit = Duration::from_millis(limit_ms);
                tokio::time::timeout(limit, answer)
                    .await
                    .map_err(|_| RequestError::Stalled {
                        host: name.clone(),
                        what: "nothing",
                        seconds: limit.as_secs(),
                    })?
            }
        };
        match (answer, speaks, proxy) {
            (Ok(response), Some(proxy), _) if proxy::is_its_own(&response) => {
                Err(proxy::refusal(name, proxy, response.status().as_u16()))
            }
            (Ok(response), ..) => Ok(Answer::new(response, name)),
            (Err(error), _, Some(proxy)) => Err(proxy::failed(&name, proxy, error)),
            (Err(error), _, None) => Err(failed(&name, error)),
        }
    }

    /// The schemes that a registry may speak, the likeliest first.
    fn schemes(&self, endpoint: &Endpoint) -> Result<Vec<&'static str>, RequestError> {
        let name = endpoint.host();
        if !self
            .host(name, &endpoint.registry, endpoint.is_insecure)?
            .is_lenient
        {
            return Ok(vec!["https"]);
        }
        let known = self.schemes.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match known.get(name) {
            Some(scheme) => vec![scheme],
            None => vec!["https", "http"],
        })
    }

    fn speaks(&self, endpoint: &Endpoint, scheme: &'static str) {
        let mut known = self.schemes.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(endpoint.host().to_owned(), scheme);
    }
}

/// What the host of a URL is to a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kinship {
    /// The registry itself.
    Same,
    /// Another port of its host.
    Neighbour,
    None,
}

/// What the host of `url` is to the registry `host`.
pub(crate) fn kinship(url: &Url, host: &str) -> Kinship {
    match Url::parse(&format!("{}://{host}", url.scheme())) {
        Ok(own) if host_of(&own) == host_of(url) => Kinship::Same,
        Ok(own) if own.host_str() == url.host_str() => Kinship::Neighbour,
        _ => Kinship::None,
    }
}

/// Host and port as in a registry's name: the port that goes without saying is left out.
pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Nobody listens in on the way to this host itself: as Docker has it, it needs no certificate,
/// unless there is an authority for it.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = match host.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => host,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn bad_certificates(name: &str, why: String) -> SettingsError {
    SettingsError::Content {
        path: format!("certs.d/{name}").into(),
        why,
    }
}

/// What HTTP's error comes to. Its own text names URLs, so only its last cause is kept.
fn failed(host: &str, error: reqwest::Error) -> RequestError {
    let host = host.to_owned();
    let is_connect = error.is_connect();
    let text = last_cause(error);
    let source = Box::new(Cause(format!("{text}{}", hint(&text, &host))));
    if is_connect {
        RequestError::Connect { host, source }
    } else {
        RequestError::Broken { host, source }
    }
}

/// The last cause of HTTP's error, or that time ran out.
fn last_cause(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return "it did not answer in time".to_owned();
    }
    let error = error.without_url();
    let mut cause: &dyn Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// What to do about a failure that has one well-known reason.
fn hint(cause: &str, host: &str) -> String {
    if cause.contains("UnknownIssuer") {
        return format!(
            " (if its authority is to be trusted, put the authority's certificate into /etc/containers/certs.d/{host}/ca.crt)"
        );
    }
    if cause.contains("InvalidContentType") {
        return " (it does not speak TLS; if it may be asked without, say `insecure = true` in registries.conf)".to_owned();
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_goes_without_saying_is_the_same() {
        let of = |url: &str, host| kinship(&url.parse().unwrap(), host);
        assert_eq!(of("https://q.io/x", "q.io:443"), Kinship::Same);
        assert_eq!(of("https://q.io/x", "Q.io"), Kinship::Same);
        assert_eq!(of("http://q.io/x", "q.io:443"), Kinship::Neighbour);
        assert_eq!(of("https://q.io:5/x", "q.io"), Kinship::Neighbour);
        assert_eq!(of("https://a.q.io/x", "q.io"), Kinship::None);
    }

    #[test]
    fn this_host_itself_is_known() {
        for name in [
            "localhost",
            "localhost:5000",
            "127.0.0.9:1",
            "[::1]:5",
            "[::1]",
        ] {
            assert!(is_loopback(name), "{name}");
        }
        for name in ["localhost.io", "q.io:5000", "128.0.0.1", "[::2]:5"] {
            assert!(!is_loopback(name), "{name}");
        }
    }
}
