//! Proxies from the environment, with the rules of Go's clients, whom Docker's and Podman's users
//! know: `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`, their lower-case forms, and `ALL_PROXY` for
//! either. A SOCKS proxy looks up names itself, as Go's clients have it (RFC 1928).

use super::error::SettingsError;
use super::places::Places;
use reqwest::Url;
use std::net::IpAddr;

/// The port of a SOCKS proxy whose address names none (RFC 1928).
const SOCKS_PORT: u16 = 1080;

/// Which proxy is for which URL.
#[derive(Clone, Default)]
pub(crate) struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exceptions: Vec<Exception>,
}

/// A proxy, and the variable that names it. Shown, it is without a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(crate) url: Url,
    variable: String,
}

impl std::fmt::Display for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port_or_known_default().unwrap_or_default();
        write!(f, "the proxy {host}:{port} of {}", self.variable)
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// No derived one: a proxy's URL may hold a password.
impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxies")
            .field("exceptions", &self.exceptions)
            .finish_non_exhaustive()
    }
}

/// One word of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    All,
    Network(IpAddr, u8),
    /// A domain; itself too unless it began with a dot.
    Domain {
        suffix: String,
        and_itself: bool,
        port: Option<u16>,
    },
    Address(IpAddr, Option<u16>),
}

impl Proxies {
    pub(super) fn of(places: &Places) -> Result<Self, SettingsError> {
        let proxy = |names: [&str; 4]| {
            let set = names
                .iter()
                .find_map(|name| Some((*name, places.variable(name)?)));
            let proxy = |(name, value): (&str, &str)| {
                let url = address(name, value)?;
                let variable = name.to_owned();
                Ok::<_, SettingsError>(Proxy { url, variable })
            };
            set.map(proxy).transpose()
        };
        let list = ["NO_PROXY", "no_proxy"];
        let list = list.iter().find_map(|name| places.variable(name));
        Ok(Self {
            http: proxy(["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])?,
            https: proxy(["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])?,
            exceptions: list
                .unwrap_or_default()
                .split(',')
                .filter_map(|word| exception(word.trim()))
                .collect(),
        })
    }

    /// The proxy that a URL is asked for through.
    pub(crate) fn of_url(&self, url: &Url) -> Option<&Proxy> {
        let proxy = match url.scheme() {
            "http" => self.http.as_ref(),
            _ => self.https.as_ref(),
        }?;
        let host = url.host_str()?.trim_end_matches('.').to_ascii_lowercase();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let address: Option<IpAddr> = bare.parse().ok();
        if bare == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return None;
        }
        let port = url.port_or_known_default();
        let is_direct = |exception: &Exception| exception.covers(bare, address, port);
        (!self.exceptions.iter().any(is_direct)).then_some(proxy)
    }

    /// Passwords that may not be shown.
    pub(crate) fn passwords(&self) -> impl Iterator<Item = &str> {
        [&self.http, &self.https]
            .into_iter()
            .flatten()
            .filter_map(|proxy| proxy.url.password())
    }
}

/// A proxy's address; without a scheme it is HTTP's.
fn address(variable: &str, value: &str) -> Result<Url, SettingsError> {
    let bad = || SettingsError::Proxy {
        variable: variable.to_owned(),
    };
    let text = if value.contains("://") {
        value.to_owned()
    } else {
        format!("http://{value}")
    };
    // The `h` says that the name is the proxy's to look up, which goes without saying in Go.
    let text = match text.strip_prefix("socks5://") {
        Some(rest) => format!("socks5h://{rest}"),
        None => text,
    };
    let mut url = Url::parse(&text).map_err(|_| bad())?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(bad());
    }
    match url.scheme() {
        "http" | "https" => Ok(url),
        "socks5h" => {
            if url.port().is_none() {
                url.set_port(Some(SOCKS_PORT)).map_err(|()| bad())?;
            }
            Ok(url)
        }
        _ => Err(bad()),
    }
}

fn exception(word: &str) -> Option<Exception> {
    if word.is_empty() {
        return None;
    }
    if word == "*" {
        return Some(Exception::All);
    }
    if let Some((network, bits)) = word.split_once('/') {
        return Some(Exception::Network(
            network.parse().ok()?,
            bits.parse().ok()?,
        ));
    }
    let bare = |text: &str| {
        text.trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned()
    };
    if let Ok(address) = bare(word).parse() {
        return Some(Exception::Address(address, None));
    }
    let (host, port) = match word.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (word, None),
    };
    if let Ok(address) = bare(host).parse() {
        return Some(Exception::Address(address, port));
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let host = host.strip_prefix('*').unwrap_or(&host);
    Some(Exception::Domain {
        suffix: format!(".{}", host.trim_start_matches('.')),
        and_itself: !host.starts_with('.'),
        port,
    })
}

impl Exception {
    fn covers(&self, host: &str, address: Option<IpAddr>, port: Option<u16>) -> bool {
        match self {
            Self::All => true,
            Self::Network(network, bits) => {
                address.is_some_and(|own| contains(*network, *bits, own))
            }
            Self::Address(wanted, only) => {
                address == Some(*wanted) && (only.is_none() || *only == port)
            }
            Self::Domain {
                suffix,
                and_itself,
                port: only,
            } => {
                let is_in =
                    host.ends_with(suffix.as_str()) || (*and_itself && host == &suffix[1..]);
                is_in && (only.is_none() || *only == port)
            }
        }
    }
}

/// Whether an address lies in a network.
fn contains(network: IpAddr, bits: u8, address: IpAddr) -> bool {
    let (network, address, width) = match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => (
            u128::from(network.to_bits()),
            u128::from(address.to_bits()),
            32,
        ),
        (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits(), address.to_bits(), 128),
        _ => return false,
    };
    let shift = u32::from(width - bits.min(width));
    network.checked_shr(shift).unwrap_or(0) == address.checked_shr(shift).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies, SettingsError> {
        Proxies::of(&crate::testing::places("/nowhere".as_ref(), variables))
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let own = proxies(&[("HTTP_PROXY", "a:1"), ("https_proxy", "https://u:p@b:2")]).unwrap();
        let of = |url: &str| {
            let proxy = own.of_url(&url.parse().unwrap());
            proxy.map(|proxy| proxy.url.to_string())
        };
        assert_eq!(of("http://q.io/"), Some("http://a:1/".to_owned()));
        assert_eq!(of("https://q.io/"), Some("https://u:p@b:2/".to_owned()));
        assert_eq!(of("https://localhost:5000/"), None);
        assert_eq!(of("http://127.0.0.9/"), None);
        assert_eq!(of("http://[::1]:1/"), None);
        assert!(!format!("{own:?}").contains("u:p"));
        let shown = own.of_url(&"https://q.io/".parse().unwrap()).unwrap();
        assert_eq!(shown.to_string(), "the proxy b:2 of https_proxy");
        for (typed, meant) in [
            ("socks5://u:p@x", "socks5h://u:p@x:1080"),
            ("socks5h://x:9", "socks5h://x:9"),
        ] {
            let own = proxies(&[("ALL_PROXY", typed)]).unwrap();
            let proxy = own.of_url(&"http://q.io/".parse().unwrap()).unwrap();
            assert_eq!(proxy.url.as_str(), meant);
        }
        for bad in ["socks4://x:1", "socks5://", "http://", "ftp://x:p4ss@y"] {
            let error = proxies(&[("ALL_PROXY", bad)]).unwrap_err().to_string();
            assert!(error.starts_with("ALL_PROXY is not"), "{error}");
            assert!(!error.contains("p4ss"), "{error}");
        }
    }

    #[test]
    fn no_proxy_names_hosts_domains_and_networks() {
        let list =
            "q.io, .sub.io ,10.0.0.0/8,192.168.1.1,p.io:81,[2001:db8::1],fd00::/8,*.w.io,x/y";
        let own = proxies(&[("ALL_PROXY", "a:1"), ("NO_PROXY", list)]).unwrap();
        let is_direct = |url: &str| own.of_url(&url.parse().unwrap()).is_none();
        for direct in [
            "http://q.io",
            "https://a.q.io",
            "https://Q.IO.",
            "http://a.sub.io",
            "http://10.1.2.3",
            "http://192.168.1.1:99",
            "http://p.io:81",
            "http://[2001:db8::1]:5/",
            "http://[fd00::9]",
            "http://a.w.io",
        ] {
            assert!(is_direct(direct), "{direct}");
        }
        for by_proxy in [
            "http://aq.io",
            "http://sub.io",
            "http://11.0.0.1",
            "http://p.io",
            "http://[2001:db8::2]",
        ] {
            assert!(!is_direct(by_proxy), "{by_proxy}");
        }
        let all = proxies(&[("ALL_PROXY", "a:1"), ("NO_PROXY", "*")]).unwrap();
        assert_eq!(all.of_url(&"http://q.io".parse().unwrap()), None);
    }
}
