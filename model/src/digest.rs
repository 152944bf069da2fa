//! Content digests, by which manifests, configurations and layers are known. Only sha256: nothing else is in
//! use by registries.

use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// Not `algorithm:encoded`.
    #[error("{0:?} is not a digest: \"sha256:\" and 64 hexadecimal digits are expected")]
    Malformed(String),
    /// An algorithm other than sha256.
    #[error("digest algorithm {0:?} is not supported: only sha256 is")]
    Algorithm(String),
}

/// A sha256 digest. Its text is `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// A digest from its raw form.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// What a finished hasher says.
    #[must_use]
    pub fn from_hasher(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }

    /// Reads exactly 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn from_hex(hex: &str) -> Option<Self> {
        let digits: &[u8; 64] = hex.as_bytes().try_into().ok()?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Self(bytes))
    }

    /// The 64 digits without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        use fmt::Write;
        self.0
            .iter()
            .fold(String::with_capacity(64), |mut out, byte| {
                // Writing to a String cannot fail.
                let _ = write!(out, "{byte:02x}");
                out
            })
    }

    /// The raw digest.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Upper case is refused as the OCI specification demands: one digest has one spelling.
const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        // A hostile text is not quoted back at length.
        let malformed = || DigestError::Malformed(text.chars().take(80).collect());
        let (algorithm, hex) = text.split_once(':').ok_or_else(malformed)?;
        if algorithm != "sha256" {
            return Err(DigestError::Algorithm(algorithm.chars().take(32).collect()));
        }
        Self::from_hex(hex).ok_or_else(malformed)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn text_round_trips() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(Digest::of(b"")));
        let json = format!("\"{EMPTY}\"");
        assert_eq!(
            serde_json::from_str::<Digest>(&json).unwrap(),
            Digest::of(b"")
        );
        assert_eq!(serde_json::to_string(&Digest::of(b"")).unwrap(), json);
    }

    #[test]
    fn everything_else_is_refused() {
        let upper = EMPTY.to_uppercase().replace("SHA256", "sha256");
        let long = format!("{EMPTY}0");
        for text in [
            "",
            "sha256",
            "sha256:",
            "sha256:ab",
            &upper,
            &long,
            &EMPTY[7..],
        ] {
            assert!(
                matches!(text.parse::<Digest>(), Err(DigestError::Malformed(_))),
                "{text}"
            );
        }
        assert_eq!(
            format!("md5:{}", &EMPTY[7..]).parse::<Digest>(),
            Err(DigestError::Algorithm("md5".into()))
        );
    }
}
