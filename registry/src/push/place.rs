//! Where an upload goes on: `Location`, as registries and the proxies before them say it.

use crate::ask::Place;
use crate::error::RequestError;
use crate::transport::{Answer, origin};
use reqwest::Url;
use reqwest::header::LOCATION;

/// Where an answer says that the upload goes on.
pub(super) enum Next {
    /// There.
    Here(Place),
    /// Another port or scheme of the same host: a registry behind a proxy often names its own.
    /// If nothing answers there, it is meant as `ours`.
    Perhaps { theirs: Place, ours: Place },
}

/// Reads `Location`; `from` is the registry's URL that was asked.
pub(super) fn next(answer: &Answer, from: &Url) -> Result<Next, RequestError> {
    let bad = |what: &str| RequestError::Protocol {
        host: answer.host.clone(),
        what: what.to_owned(),
    };
    let location = answer
        .header(LOCATION)
        .ok_or_else(|| bad("an upload without its place"))?;
    let mut url = answer
        .url()
        .join(location)
        .map_err(|_| bad("an upload at what is no URL"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(bad("an upload at what is no URL"));
    }
    // Neither call can fail for such a URL.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    choose(url, from).ok_or_else(|| bad("an upload without TLS"))
}

/// `None` for another host without TLS where the registry has it.
fn choose(url: Url, from: &Url) -> Option<Next> {
    if origin(&url) == origin(from) {
        return Some(Next::Here(own(url)));
    }
    let is_downgrade = from.scheme() == "https" && url.scheme() == "http";
    let theirs = Place {
        url: url.clone(),
        is_registrys: false,
    };
    if url.host_str() != from.host_str() {
        return (!is_downgrade).then_some(Next::Here(theirs));
    }
    let mut ours = from.clone();
    ours.set_path(url.path());
    ours.set_query(url.query());
    let ours = own(ours);
    Some(if is_downgrade {
        Next::Here(ours)
    } else {
        Next::Perhaps { theirs, ours }
    })
}

const fn own(url: Url) -> Place {
    Place {
        url,
        is_registrys: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(url: &str, from: &str) -> String {
        let own = |place: &Place| format!("{} {}", place.is_registrys, place.url);
        match choose(url.parse().unwrap(), &from.parse().unwrap()) {
            None => "none".to_owned(),
            Some(Next::Here(place)) => own(&place),
            Some(Next::Perhaps { theirs, ours }) => format!("{} or {}", own(&theirs), own(&ours)),
        }
    }

    #[test]
    fn the_token_stays_with_the_registry() {
        let from = "https://q.io:5000/v2/x/blobs/uploads/";
        for (url, expected) in [
            ("https://q.io:5000/u?a=1", "true https://q.io:5000/u?a=1"),
            ("https://s3.io/u", "false https://s3.io/u"),
            ("http://s3.io/u", "none"),
            ("http://q.io:5000/u?a=1", "true https://q.io:5000/u?a=1"),
            (
                "https://q.io/u?a=1",
                "false https://q.io/u?a=1 or true https://q.io:5000/u?a=1",
            ),
        ] {
            assert_eq!(chosen(url, from), expected, "{url}");
        }
        assert_eq!(
            chosen("http://q.io:5000/u", "http://q.io/v2/"),
            "false http://q.io:5000/u or true http://q.io/u"
        );
    }
}
