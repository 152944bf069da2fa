//! What an image is for: operating system, architecture and its variant.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Why a text is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a platform: OS/ARCHITECTURE[/VARIANT] is expected, such as linux/arm64")]
pub struct PlatformError(String);

/// A platform, as `--platform` and an index say it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system, in Go's words: `linux`.
    pub os: String,
    /// Architecture, in Go's words: `amd64`.
    pub architecture: String,
    /// What of the architecture's versions: `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of guests, and of namespace containers on this host.
    #[must_use]
    pub fn guest() -> Self {
        let (architecture, variant) = normal(std::env::consts::ARCH, None);
        Self {
            os: "linux".to_owned(),
            architecture,
            variant,
        }
    }

    /// How well an image for `offered` runs where this one is asked for: the smaller the better,
    /// `None` for not at all. An older variant runs on a newer one.
    #[must_use]
    pub fn distance(&self, offered: &Self) -> Option<u32> {
        let (architecture, wanted) = normal(&self.architecture, self.variant.as_deref());
        let (other, has) = normal(&offered.architecture, offered.variant.as_deref());
        if self.os != offered.os || architecture != other {
            return None;
        }
        if wanted == has {
            return Some(0);
        }
        let wanted = level(&architecture, wanted.as_deref())?;
        wanted.checked_sub(level(&architecture, has.as_deref())?)
    }
}

/// `v7` is 7. Nothing said is the architecture's first version.
fn level(architecture: &str, variant: Option<&str>) -> Option<u32> {
    match (architecture, variant) {
        ("amd64", None) => Some(1),
        ("arm64", None) => Some(8),
        (_, variant) => variant?.strip_prefix('v')?.parse().ok(),
    }
}

/// One spelling for each architecture: `x86_64` is amd64, `aarch64` is arm64, and the variant
/// that is meant where none is said goes without saying (arm64's v8, amd64's v1), but for arm's v7.
fn normal(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let architecture = match architecture.to_ascii_lowercase().as_str() {
        "x86_64" | "x86-64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        "armhf" => "arm".to_owned(),
        "i386" | "i686" | "x86" => "386".to_owned(),
        other => other.to_owned(),
    };
    let variant = match (architecture.as_str(), variant) {
        ("arm64", Some("v8" | "8" | "")) | ("amd64", Some("v1" | "")) => None,
        ("arm", None | Some("")) => Some("v7".to_owned()),
        (_, Some(digits)) if digits.parse::<u32>().is_ok() => Some(format!("v{digits}")),
        (_, variant) => variant.filter(|text| !text.is_empty()).map(str::to_owned),
    };
    (architecture, variant)
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let bad = || PlatformError(text.chars().take(80).collect());
        let word = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(word) {
            return Err(bad());
        }
        let (os, architecture, variant) = match parts[..] {
            // Docker takes one word for either; systems are fewer.
            ["linux"] => return Ok(Self::guest()),
            [architecture] => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(bad()),
        };
        let (architecture, variant) = normal(architecture, variant);
        Ok(Self {
            os: os.to_ascii_lowercase(),
            architecture,
            variant,
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn platforms_have_one_spelling() {
        for (typed, shown) in [
            ("linux/amd64", "linux/amd64"),
            ("x86_64", "linux/amd64"),
            ("linux/aarch64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(platform(typed).to_string(), shown, "{typed}");
        }
        for bad in ["", "/", "linux/", "a/b/c/d", "linux/amd 64", "linux/\n"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_nearest_variant_runs() {
        let arm = platform("linux/arm/v7");
        assert_eq!(arm.distance(&platform("linux/arm/v7")), Some(0));
        assert_eq!(arm.distance(&platform("linux/arm/v6")), Some(1));
        assert_eq!(platform("linux/arm/v6").distance(&arm), None);
        assert_eq!(arm.distance(&platform("linux/arm64")), None);
        let amd = platform("linux/amd64");
        assert_eq!(amd.distance(&platform("windows/amd64")), None);
        assert_eq!(amd.distance(&platform("linux/amd64/v1")), Some(0));
        // It needs instructions that not every processor has.
        assert_eq!(amd.distance(&platform("linux/amd64/v3")), None);
        assert_eq!(
            platform("linux/amd64/v3").distance(&platform("linux/amd64/v2")),
            Some(1)
        );
    }
}
