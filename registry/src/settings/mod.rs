//! What the host's and the user's files say of registries.
//!
//! Read at once: `registries.conf`, `policy.json` and the proxies of the environment. Looked up when a
//! registry is asked: its certificates and its credentials.

pub(crate) mod certs;
pub(crate) mod credentials;
mod file;
mod helper;
pub(crate) mod keep;
pub(crate) mod proxy;
pub(crate) mod registries;
mod secret;
mod short;

pub(crate) use secret::Secret;

use crate::names::{ImageName, NameError};
use crate::policy::Policy;
use proxy::Proxies;
use registries::Registries;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Why a file of settings is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// It cannot be read or written.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its content is not what it should be.
    #[error("{}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A variable of the environment that names no proxy.
    #[error(
        "{variable} is not the address of a proxy that can be used: http://HOST:PORT is expected"
    )]
    Proxy {
        /// The variable; its value may hold a password.
        variable: String,
    },
    /// A credential helper that does not do what it is asked.
    #[error("docker-credential-{helper}: {why}")]
    Helper {
        /// Its name.
        helper: String,
        /// What happened.
        why: String,
    },
}

/// Where settings are looked for.
#[derive(Debug, Clone)]
pub struct Places {
    /// `/etc`.
    pub etc: PathBuf,
    /// `/usr/share`: what the distribution says where `/etc` says nothing.
    pub share: PathBuf,
    /// The user's home directory.
    pub home: Option<PathBuf>,
    /// Variables of the environment that mean something here.
    pub variables: BTreeMap<String, String>,
}

/// The variables that are looked at. `PATH` finds credential helpers.
const VARIABLES: [&str; 15] = [
    "ALL_PROXY",
    "CONTAINERS_REGISTRIES_CONF",
    "DOCKER_CONFIG",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "PATH",
    "REGISTRY_AUTH_FILE",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

impl Places {
    /// Those of the calling process.
    #[must_use]
    pub fn of_process() -> Self {
        let variables = VARIABLES
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
            .collect();
        Self {
            etc: PathBuf::from("/etc"),
            share: PathBuf::from("/usr/share"),
            home: std::env::home_dir(),
            variables,
        }
    }

    /// A variable that is set to something.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        let value = self.variables.get(name)?;
        (!value.is_empty()).then_some(value)
    }

    /// `$VARIABLE`, or else `~/DEFAULT`.
    fn user_directory(&self, variable: &str, default: &str) -> Option<PathBuf> {
        self.variable(variable)
            .map(PathBuf::from)
            .or_else(|| Some(self.home.as_ref()?.join(default)))
    }

    /// `~/.config/containers`.
    pub(crate) fn user_containers(&self) -> Option<PathBuf> {
        Some(
            self.user_directory("XDG_CONFIG_HOME", ".config")?
                .join("containers"),
        )
    }

    fn user_cache(&self) -> Option<PathBuf> {
        self.user_directory("XDG_CACHE_HOME", ".cache")
    }

    fn docker_config(&self) -> Option<PathBuf> {
        self.user_directory("DOCKER_CONFIG", ".docker")
    }
}

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
