//! Certificates for one registry, in the directories that Docker and Podman have for them
//! (containers-certs.d(5)): `*.crt` are authorities, `*.cert` and `*.key` are our own.

use super::error::SettingsError;
use super::file::{content, list, read};
use super::places::Places;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};

/// What a registry's directories hold.
#[derive(Debug, Default)]
pub(crate) struct HostCertificates {
    /// Authorities that are trusted beside the host's own.
    pub authorities: Vec<CertificateDer<'static>>,
    /// What this side shows, if the registry asks.
    pub own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl HostCertificates {
    /// Reads what there is for any of a registry's `names`.
    pub(crate) fn load(places: &Places, names: &[&str]) -> Result<Self, SettingsError> {
        let mut found = Self::default();
        for directory in directories(places, names) {
            for path in list(&directory, "crt")? {
                found.authorities.extend(certificates(&path)?);
            }
            for path in list(&directory, "cert")? {
                let key = path.with_extension("key");
                let Some(bytes) = read(&key)? else {
                    let why = format!("its key is missing: {}", key.display());
                    return Err(content(&path, why));
                };
                let key = PrivateKeyDer::from_pem_slice(&bytes)
                    .map_err(|_| content(&key, "it holds no private key in PEM".to_owned()))?;
                found.own = Some((certificates(&path)?, key));
            }
        }
        Ok(found)
    }
}

fn directories(places: &Places, names: &[&str]) -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = places.user_containers().into_iter().collect();
    roots.extend(["containers", "docker"].map(|folder| places.etc.join(folder)));
    roots
        .iter()
        .flat_map(|root| names.iter().map(|name| root.join("certs.d").join(name)))
        .collect()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let bytes = read(path)?.unwrap_or_default();
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(content(path, "it holds no certificate in PEM".to_owned())),
    }
}
