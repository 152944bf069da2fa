//! Where settings are looked for.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where settings are looked for.
#[derive(Debug, Clone)]
pub struct Places {
    /// `/etc`.
    pub etc: PathBuf,
    /// `/usr/share`: what the distribution says where `/etc` says nothing.
    pub share: PathBuf,
    /// `/run/containers/UID`: where Podman keeps logins of users without a runtime directory.
    pub run: PathBuf,
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
            run: format!("/run/containers/{}", rustix::process::getuid().as_raw()).into(),
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

    pub(super) fn user_cache(&self) -> Option<PathBuf> {
        self.user_directory("XDG_CACHE_HOME", ".cache")
    }

    pub(super) fn docker_config(&self) -> Option<PathBuf> {
        self.user_directory("DOCKER_CONFIG", ".docker")
    }
}
