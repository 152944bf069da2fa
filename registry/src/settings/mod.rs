//! What the host's and the user's files say of registries.
//!
//! Read at once: `registries.conf`, `policy.json` and the proxies of the environment. Looked up
//! when a registry is asked: its certificates and its credentials.

pub(crate) mod certs;
pub(crate) mod credentials;
pub(crate) mod error;
mod file;
mod helper;
pub(crate) mod keep;
pub(crate) mod places;
pub(crate) mod proxy;
pub(crate) mod registries;
mod secret;
mod short;

pub use error::SettingsError;
pub use places::Places;
pub(crate) use secret::Secret;

use crate::names::{ImageName, NameError};
use crate::policy::Policy;
use proxy::Proxies;
use registries::Registries;

/// What the files say.
#[derive(Debug)]
pub struct Settings {
    pub(crate) places: Places,
    pub(crate) registries: Registries,
    pub(crate) policy: Policy,
    pub(crate) proxies: Proxies,
}

impl Settings {
    /// Reads `registries.conf`, `policy.json` and the environment. Certificates and credentials
    /// are looked up when a registry is asked.
    ///
    /// # Errors
    /// [`SettingsError`] for a file that is there and cannot be read.
    pub fn load(places: Places) -> Result<Self, SettingsError> {
        Ok(Self {
            registries: Registries::load(&places)?,
            policy: Policy::load(&places)?,
            proxies: Proxies::of(&places)?,
            places,
        })
    }

    /// What a typed name may mean, in the order to try: an alias, or each registry of the search
    /// list, or Docker Hub.
    ///
    /// # Errors
    /// [`NameError`] for what is no name.
    pub fn candidates(&self, typed: &str) -> Result<Vec<ImageName>, NameError> {
        self.registries.short_names.candidates(typed)
    }
}
