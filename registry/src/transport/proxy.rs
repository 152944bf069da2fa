//! What goes wrong at a proxy, and not at the host behind it.

use crate::error::RequestError;
use crate::settings::proxy::Proxy;
use reqwest::header::{HeaderName, PROXY_AUTHENTICATE};
use std::error::Error;
use std::io;

/// What registries send with all their answers (distribution-spec 1.1, "Legacy Docker support").
const REGISTRYS: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// Whether an answer that came through a proxy is the proxy's: it wants a login, or it refuses or cannot
/// go on, and nothing in it is a registry's.
pub(super) fn is_its_own(response: &reqwest::Response) -> bool {
    let headers = response.headers();
    match response.status().as_u16() {
        407 => true,
        502..=504 => headers.contains_key("via") && !headers.contains_key(REGISTRYS),
        403 => headers.contains_key(PROXY_AUTHENTICATE) || headers.contains_key("x-squid-error"),
        _ => false,
    }
}

/// The error that such an answer is.
pub(super) fn refusal(host: String, proxy: &Proxy, status: u16) -> RequestError {
    let why = match status {
        407 => LOGIN.to_owned(),
        status => format!("answers {status}"),
    };
    of(host, proxy, &why)
}

const LOGIN: &str = "wants another user name and password, which belong into its URL";

fn of(host: String, proxy: &Proxy, why: &str) -> RequestError {
    let why = format!("{proxy} {why}");
    RequestError::Proxy { host, why }
}

/// What HTTP's error comes to where a proxy is on the way.
pub(super) fn failed(host: &str, proxy: &Proxy, error: reqwest::Error) -> RequestError {
    let why = fault(&error);
    match why {
        Some(why) => of(host.to_owned(), proxy, &why),
        None => super::failed(host, error),
    }
}

/// What of an error is the proxy's; nothing, where the connection through it was made.
fn fault(error: &reqwest::Error) -> Option<String> {
    if !error.is_connect() {
        return None;
    }
    let mut texts: Vec<String> = Vec::new();
    let mut io_error = None;
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(cause) = next {
        texts.push(cause.to_string());
        io_error = cause.downcast_ref::<io::Error>().or(io_error);
        next = cause.source();
    }
    let says = |words: &str| texts.iter().any(|text| text.contains(words));
    // Their words: the errors of hyper-util's tunnels and of SOCKS are types that nobody can name.
    let is_login = [
        "proxy authorization required",
        "credentials not accepted",
        "user/pass authentication",
        "authentication incorrectly",
    ];
    if is_login.into_iter().any(says) {
        return Some(LOGIN.to_owned());
    }
    if says("tunnel error: unsuccessful") || says("connection not allowed") {
        return Some("refuses to connect to it".to_owned());
    }
    let last = texts.last().map_or("", String::as_str);
    let last = last.rsplit("error: ").next().unwrap_or(last);
    // A connection to the proxy itself: TLS with the host has another kind of error, if any.
    let is_socket = io_error.is_some_and(|error| error.raw_os_error().is_some());
    if is_socket || says("dns error") || says("underlying connection") {
        return Some(format!("cannot be reached: {last}"));
    }
    (says("tunnel error: ") || says("SOCKS error: ")).then(|| format!("fails: {last}"))
}
