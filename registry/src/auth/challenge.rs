//! `WWW-Authenticate`: what a registry wants.

use crate::error::RequestError;
use crate::names::shown;
use http_auth::ChallengeRef;
use reqwest::Url;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// Longest challenge that is read, in bytes.
const MAX_CHALLENGE_BYTES: usize = 8 << 10;

/// How a registry wants to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// With user and password.
    Basic,
    /// With a token.
    Bearer(Bearer),
}

/// Where a token is to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bearer {
    pub realm: Url,
    pub service: Option<String>,
}

impl Challenge {
    /// The best of what a registry offers: a token rather than a password.
    pub(super) fn choose(host: &str, headers: &HeaderMap) -> Result<Self, RequestError> {
        let mut basic = None;
        let mut unknown = "it names none".to_owned();
        for value in headers.get_all(WWW_AUTHENTICATE) {
            let text = value.to_str().unwrap_or_default();
            if text.len() > MAX_CHALLENGE_BYTES {
                continue;
            }
            // One that is not understood may stand beside one that is.
            for challenge in http_auth::parse_challenges(text).unwrap_or_default() {
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    return bearer(&challenge).map(Self::Bearer).ok_or_else(|| {
                        unsupported(host, "its token service has no valid address")
                    });
                }
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                } else {
                    unknown = shown(challenge.scheme);
                }
            }
        }
        basic.ok_or_else(|| unsupported(host, &unknown))
    }
}

fn bearer(challenge: &ChallengeRef<'_>) -> Option<Bearer> {
    let parameter = |name: &str| {
        let mut all = challenge.params.iter();
        let (_, value) = all.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(value.to_unescaped())
    };
    let realm = Url::parse(&parameter("realm")?).ok()?;
    let is_usable = matches!(realm.scheme(), "http" | "https") && realm.host_str().is_some();
    is_usable.then(|| Bearer {
        realm,
        service: parameter("service").filter(|service| !service.is_empty()),
    })
}

fn unsupported(host: &str, challenge: &str) -> RequestError {
    RequestError::Challenge {
        host: host.to_owned(),
        challenge: challenge.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    fn choose(values: &[&str]) -> Result<Challenge, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap());
        }
        Challenge::choose("q.io", &headers).map_err(|error| error.to_string())
    }

    fn token(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer(Bearer {
            realm: realm.parse().unwrap(),
            service: service.map(str::to_owned),
        })
    }

    #[test]
    fn a_token_is_preferred() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:x:pull",error="invalid_token""#;
        let expected = token("https://auth.docker.io/token", Some("registry.docker.io"));
        assert_eq!(choose(&[hub]), Ok(expected.clone()));
        assert_eq!(choose(&["Basic realm=x", hub]), Ok(expected.clone()));
        assert_eq!(choose(&[&format!("Basic realm=x, {hub}")]), Ok(expected));
        assert_eq!(choose(&["basic realm=\"a \\\" b\""]), Ok(Challenge::Basic));
        assert_eq!(
            choose(&["Negotiate", "Basic realm=x"]),
            Ok(Challenge::Basic)
        );
        assert_eq!(
            choose(&["BEARER realm=\"http://a/?x=1\""]),
            Ok(token("http://a/?x=1", None))
        );
    }

    #[test]
    fn what_cannot_be_answered_is_named() {
        for (values, word) in [
            (&["Negotiate"][..], "Negotiate"),
            (&[], "names none"),
            (&["Bearer service=x"], "no valid address"),
            (&["Bearer realm=\"file:///etc/passwd\""], "no valid address"),
            (&["Bearer realm=\"x\""], "no valid address"),
            (&["===", "\"", "Basic realm=\""], "names none"),
        ] {
            let error = choose(values).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_damaged_challenge_is_no_danger() {
        let whole =
            r#"Bearer realm="https://a.io/token",service="b \" c", Basic realm=x, Negotiate abc=="#;
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..50_000 {
            let mut bytes = whole.as_bytes().to_vec();
            for _ in 0..random.usize(1..8) {
                let at = random.usize(0..bytes.len());
                match random.u8(0..3) {
                    0 => bytes[at] = random.u8(32..=255),
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, *random.choice(b"\"\\,= \t").unwrap()),
                }
            }
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                headers.insert(WWW_AUTHENTICATE, value);
                let _ = Challenge::choose("q.io", &headers);
            }
        }
    }
}
