//! Public keys as cosign writes them: PEM with a SubjectPublicKeyInfo (RFC 5280, 4.1.2.7) of ECDSA
//! on P-256 or P-384, RSA, or Ed25519. Signatures are over SHA-256, as cosign's are.

use crate::error::PolicyError;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::alg_id;
use rustls::pki_types::pem::PemObject;
use std::fmt;
use std::path::Path;

/// Largest file of a key, in bytes.
const MAX_KEY_BYTES: usize = 64 << 10;
const TAG_SEQUENCE: u8 = 0x30;
const TAG_BIT_STRING: u8 = 0x03;

/// A public key.
#[derive(Clone)]
pub(crate) struct Key {
    algorithm: &'static dyn VerificationAlgorithm,
    bytes: Vec<u8>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.algorithm)
    }
}

impl Key {
    /// Reads a key's file.
    pub(crate) fn read(path: &Path) -> Result<Self, PolicyError> {
        let pem = std::fs::read(path).map_err(|source| PolicyError::KeyFile {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &pem)
    }

    /// Reads a key in PEM; `path` is for the error.
    pub(super) fn parse(path: &Path, pem: &[u8]) -> Result<Self, PolicyError> {
        let bad = |why: &str| PolicyError::Key {
            path: path.to_owned(),
            why: why.to_owned(),
        };
        if pem.len() > MAX_KEY_BYTES {
            return Err(bad("it is too long"));
        }
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem)
            .map_err(|_| bad("it has no section PUBLIC KEY"))?;
        Self::from_der(&der).ok_or_else(|| {
            bad("keys of ECDSA (P-256, P-384), RSA (2048 bits and more) and Ed25519 are")
        })
    }

    fn from_der(der: &[u8]) -> Option<Self> {
        let (body, rest) = element(der, TAG_SEQUENCE)?;
        let (algorithm, key) = element(body, TAG_SEQUENCE)?;
        let (bits, after) = element(key, TAG_BIT_STRING)?;
        if !rest.is_empty() || !after.is_empty() {
            return None;
        }
        // The first byte counts unused bits: a key has none.
        let bytes = bits.strip_prefix(&[0])?.to_vec();
        let known: [(&[u8], &'static dyn VerificationAlgorithm); 4] = [
            (&alg_id::ECDSA_P256, &ECDSA_P256_SHA256_ASN1),
            (&alg_id::ECDSA_P384, &ECDSA_P384_SHA256_ASN1),
            (&alg_id::RSA_ENCRYPTION, &RSA_PKCS1_2048_8192_SHA256),
            (&alg_id::ED25519, &ED25519),
        ];
        let (_, algorithm) = known.into_iter().find(|(id, _)| *id == algorithm)?;
        Some(Self { algorithm, bytes })
    }

    /// Whether the key has signed a message.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(self.algorithm, &self.bytes);
        key.verify(message, signature).is_ok()
    }
}

/// The content of a DER element with this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&own, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&length, rest) = rest.split_first()?;
            (usize::from(length), rest)
        }
        0x82 => {
            let (length, rest) = rest.split_at_checked(2)?;
            (
                usize::from(u16::from_be_bytes([length[0], length[1]])),
                rest,
            )
        }
        _ => return None,
    };
    if own != tag {
        return None;
    }
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
        -----END PUBLIC KEY-----\n";

    #[test]
    fn a_key_is_read_and_signs_what_it_signed() {
        // RFC 8032, 7.1, test 1.
        let key = Key::parse("k".as_ref(), PEM.as_bytes()).unwrap();
        let hex = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";
        let signature: Vec<u8> = (0..64)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        assert!(key.verifies(b"", &signature));
        assert!(!key.verifies(b"x", &signature));
        assert!(!key.verifies(b"", &signature[..63]));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let cut = PEM.replace("URo=", "");
        let private = PEM.replace("PUBLIC", "PRIVATE");
        for text in ["", "hello", &cut, &private] {
            let error = Key::parse("k".as_ref(), text.as_bytes()).unwrap_err();
            assert!(
                error.to_string().starts_with("k is not a public key"),
                "{error}"
            );
        }
        let mut random = fastrand::Rng::with_seed(5);
        let der = SubjectPublicKeyInfoDer::from_pem_slice(PEM.as_bytes()).unwrap();
        for _ in 0..20_000 {
            let mut bytes = der.to_vec();
            let at = random.usize(0..bytes.len());
            bytes[at] = random.u8(..);
            bytes.truncate(random.usize(1..=bytes.len()));
            let _ = Key::from_der(&bytes);
        }
    }
}
