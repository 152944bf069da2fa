//! The state file's envelope: what it is, how long it is, that it is whole, and that we wrote it.
//!
//! ```text
//!  0      8         12       16      16+n          48+n             80+n
//!  ├ magic ┼ version ┼ length ┼ body … ┼ SHA-256(…) ┼ HMAC-SHA-256(…) ┤   little endian
//! ```
//!
//! Either digest covers everything before it. The first tells damage from the second, forgery;
//! nothing of the body is looked at before both are right.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

const MAGIC: [u8; 8] = *b"HULLVMS\0";
/// Raised with every change of the body.
const VERSION: u32 = 2;
const HEADER_LEN: usize = 16;
const DIGEST_LEN: usize = 32;
/// Longest state file: 32 virtual CPUs take half a MiB.
pub(super) const MAX_LEN: usize = 4 << 20;

/// The secret that authenticates the snapshots of one data directory.
#[derive(Clone)]
pub struct SnapshotKey([u8; 32]);

impl SnapshotKey {
    /// Length, in bytes.
    pub const LEN: usize = 32;

    /// These bytes, which nobody else may know.
    #[must_use]
    pub const fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for SnapshotKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SnapshotKey(…)")
    }
}

/// What is wrong with an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It does not begin as one.
    #[error("it is no state file")]
    Magic,
    /// It is of another version.
    #[error("its format has version {0}, not {VERSION}")]
    Version(u32),
    /// Its length is not what it says.
    #[error("it is truncated or too long")]
    Length,
    /// Its checksum is wrong.
    #[error("its checksum does not match")]
    Damaged,
    /// Its authentication code is wrong.
    #[error("it was not made with this data directory's key")]
    Forged,
}

fn mac(key: &SnapshotKey, bytes: &[u8]) -> Result<Hmac<Sha256>, SealError> {
    // Every length of key is a good one.
    let mut mac = Hmac::<Sha256>::new_from_slice(&key.0).map_err(|_| SealError::Forged)?;
    mac.update(bytes);
    Ok(mac)
}

/// Put a body into its envelope.
pub(super) fn seal(body: &[u8], key: &SnapshotKey) -> Result<Vec<u8>, SealError> {
    let whole = HEADER_LEN + body.len() + 2 * DIGEST_LEN;
    let len = u32::try_from(body.len()).map_err(|_| SealError::Length)?;
    if whole > MAX_LEN {
        return Err(SealError::Length);
    }
    let mut file = Vec::with_capacity(whole);
    file.extend_from_slice(&MAGIC);
    file.extend_from_slice(&VERSION.to_le_bytes());
    file.extend_from_slice(&len.to_le_bytes());
    file.extend_from_slice(body);
    let digest = Sha256::digest(&file);
    file.extend_from_slice(&digest);
    let code = mac(key, &file)?.finalize().into_bytes();
    file.extend_from_slice(&code);
    Ok(file)
}

/// Take a body out of its envelope.
pub(super) fn unseal<'a>(file: &'a [u8], key: &SnapshotKey) -> Result<&'a [u8], SealError> {
    let header: &[u8; HEADER_LEN] = file.first_chunk().ok_or(SealError::Length)?;
    if header[..8] != MAGIC {
        return Err(SealError::Magic);
    }
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    if word(8) != VERSION {
        return Err(SealError::Version(word(8)));
    }
    let body_end = usize::try_from(word(12))
        .ok()
        .and_then(|len| len.checked_add(HEADER_LEN))
        .ok_or(SealError::Length)?;
    let rest = file.get(body_end..).ok_or(SealError::Length)?;
    if rest.len() != 2 * DIGEST_LEN || file.len() > MAX_LEN {
        return Err(SealError::Length);
    }
    let (digest, code) = rest.split_at(DIGEST_LEN);
    if Sha256::digest(&file[..body_end])[..] != *digest {
        return Err(SealError::Damaged);
    }
    mac(key, &file[..body_end + DIGEST_LEN])?
        .verify_slice(code)
        .map_err(|_| SealError::Forged)?;
    Ok(&file[HEADER_LEN..body_end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: SnapshotKey = SnapshotKey::new([7; 32]);

    #[test]
    fn what_was_sealed_comes_out_again() {
        for body in [&b""[..], b"body", &[0x5a; 70_000]] {
            let file = seal(body, &KEY).unwrap();
            assert_eq!(unseal(&file, &KEY).unwrap(), body);
            let other = SnapshotKey::new([8; 32]);
            assert_eq!(unseal(&file, &other), Err(SealError::Forged));
        }
        assert_eq!(seal(&vec![0; MAX_LEN], &KEY), Err(SealError::Length));
        assert!(!format!("{KEY:?}").contains('7'));
    }

    /// RFC 4231, test case 2.
    #[test]
    fn the_code_is_hmac_sha_256() {
        let mut code = Hmac::<Sha256>::new_from_slice(b"Jefe").unwrap();
        code.update(b"what do ya want for nothing?");
        let code = code.finalize().into_bytes();
        assert_eq!(code[..4], [0x5b, 0xdc, 0xc1, 0x46]);
    }

    #[test]
    fn every_bit_and_every_length_counts() {
        let file = seal(&[0x33; 100], &KEY).unwrap();
        for bit in 0..file.len() * 8 {
            let mut edited = file.clone();
            edited[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(&edited, &KEY).is_err(), "bit {bit}");
        }
        for len in 0..file.len() {
            assert!(unseal(&file[..len], &KEY).is_err(), "length {len}");
        }
        let mut longer = file.clone();
        longer.push(0);
        assert_eq!(unseal(&longer, &KEY), Err(SealError::Length));
        // A checksum that was corrected to fit an edited body does not help.
        let mut edited = file;
        edited[20] ^= 1;
        let digest = Sha256::digest(&edited[..116]);
        edited[116..148].copy_from_slice(&digest);
        assert_eq!(unseal(&edited, &KEY), Err(SealError::Forged));
    }
}
