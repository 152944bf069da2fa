//! Digests of something in particular.

pub use hullbox_model::digest::{Digest, DigestError};
use std::fmt;
use std::str::FromStr;

macro_rules! digest_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(Digest);

        impl $name {
            /// The digest it is.
            #[must_use]
            pub const fn digest(&self) -> &Digest {
                &self.0
            }

            /// The 64 digits without the algorithm.
            #[must_use]
            pub fn hex(&self) -> String {
                self.0.hex()
            }
        }

        impl From<Digest> for $name {
            fn from(digest: Digest) -> Self {
                Self(digest)
            }
        }

        impl FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<Self, DigestError> {
                text.parse().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

digest_name! {
    /// Digest of a layer's uncompressed tar.
    DiffId
}

digest_name! {
    /// Digest of a stack of layers, as the OCI image specification chains them.
    ChainId
}

digest_name! {
    /// Digest of an image's configuration: the image's identity, as in Docker.
    ImageId
}

impl ImageId {
    /// The first 12 digits, as listings show them.
    #[must_use]
    pub fn short(&self) -> String {
        let mut hex = self.hex();
        hex.truncate(12);
        hex
    }
}

impl ChainId {
    /// The chain of `layer` on top of `below`.
    #[must_use]
    pub fn extend(below: Option<&Self>, layer: &DiffId) -> Self {
        match below {
            None => Self(*layer.digest()),
            Some(below) => Self(Digest::of(format!("{below} {layer}").as_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_shown_by_its_first_digits() {
        assert_eq!(ImageId::from(Digest::of(b"")).short(), "e3b0c44298fc");
    }

    #[test]
    fn chains_are_those_of_the_specification() {
        let a = DiffId::from(Digest::of(b"a"));
        let b = DiffId::from(Digest::of(b"b"));
        let bottom = ChainId::extend(None, &a);
        assert_eq!(bottom.digest(), a.digest());
        let top = ChainId::extend(Some(&bottom), &b);
        assert_eq!(*top.digest(), Digest::of(format!("{a} {b}").as_bytes()));
    }
}
