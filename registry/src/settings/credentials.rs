//! Who we are to a registry: `config.json` as Docker writes it, `auth.json` as Podman does
//! (containers-auth.json(5)), and the helpers that they name.

use super::error::SettingsError;
use super::file::{content, read};
use super::helper::{self, HelperError};
use super::places::Places;
use super::secret::Secret;
use crate::names::DOCKER_HUB;
use base64::Engine as _;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How Docker's files call Docker Hub.
pub(super) const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What a registry is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// A user's name and password.
    Password { user: String, password: Secret },
    /// What a token is asked for with (OAuth 2's refresh token).
    Identity(Secret),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Document {
    auths: BTreeMap<String, Option<Entry>>,
    #[serde(rename = "credsStore")]
    pub(super) store: Option<String>,
    #[serde(rename = "credHelpers")]
    pub(super) helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// No derived one: it would show the password.
impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entry")
    }
}

/// The files that are read, in order. A login of ours is in the first, so it comes before what
/// others have left behind.
fn files(places: &Places) -> Vec<PathBuf> {
    if let Some(only) = places.variable("REGISTRY_AUTH_FILE") {
        return vec![PathBuf::from(only)];
    }
    let docker = places.docker_config().map(|d| d.join("config.json"));
    let runtime = places.variable("XDG_RUNTIME_DIR").map_or_else(
        || places.run.clone(),
        |dir| Path::new(dir).join("containers"),
    );
    let runtime = Some(runtime.join("auth.json"));
    let own = places.user_containers().map(|dir| dir.join("auth.json"));
    [docker, runtime, own].into_iter().flatten().collect()
}

/// The file that a login goes to.
pub(super) fn login_file(places: &Places) -> Option<PathBuf> {
    files(places).into_iter().next()
}

pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Document, SettingsError> {
    // JSON's errors quote values, which are passwords here.
    serde_json::from_slice(bytes).map_err(|error| {
        let at = format!("line {}, column {}", error.line(), error.column());
        content(path, format!("{at}: it is not the JSON of a config.json"))
    })
}

/// The credentials for a repository, or none. It may start programs: call it where it may block.
/// What is wrong with a helper is told to `warn`, and the registry is asked anonymously.
pub(crate) fn look_up(
    places: &Places,
    registry: &str,
    repository: &str,
    warn: &dyn Fn(String),
) -> Result<Option<Credentials>, SettingsError> {
    for path in files(places) {
        let Some(bytes) = read(&path)? else { continue };
        let document = parse(&path, &bytes)?;
        if let Some(found) = document.look_up(places, &path, registry, repository, warn)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

impl Document {
    fn look_up(
        &self,
        places: &Places,
        path: &Path,
        registry: &str,
        repository: &str,
        warn: &dyn Fn(String),
    ) -> Result<Option<Credentials>, SettingsError> {
        if let Some(name) = self.helper(registry) {
            match helper::get(places, name, server_name(registry)) {
                Ok(Some(credentials)) => return Ok(Some(credentials)),
                Ok(None) => {}
                Err(HelperError(why)) => warn(format!(
                    "docker-credential-{name} is named in {}: {why}; going on without it",
                    path.display()
                )),
            }
        }
        let Some((key, entry)) = self.entry(registry, repository) else {
            return Ok(None);
        };
        entry.credentials().map_err(|()| {
            content(
                path,
                format!("the entry of {key:?} is not base64 of USER:PASSWORD"),
            )
        })
    }

    /// The helper that has a registry's credentials.
    pub(super) fn helper(&self, registry: &str) -> Option<&str> {
        self.helpers
            .iter()
            .find(|(key, _)| is_for(key, registry))
            .map(|(_, name)| name)
            .or(self.store.as_ref())
            .map(String::as_str)
            .filter(|name| !name.is_empty())
    }

    /// The entry that says most of where the image is: `q.io/team/app` before `q.io/team` before
    /// `q.io`.
    fn entry(&self, registry: &str, repository: &str) -> Option<(&str, &Entry)> {
        let mut scope = format!("{registry}/{repository}");
        while scope.len() > registry.len() {
            if let Some((key, Some(entry))) = self.auths.get_key_value(&scope) {
                return Some((key, entry));
            }
            let end = scope.rfind('/').unwrap_or(0);
            scope.truncate(end);
        }
        self.auths
            .iter()
            .filter_map(|(key, entry)| Some((key.as_str(), entry.as_ref()?)))
            .find(|(key, entry)| is_for(key, registry) && entry.says_something())
    }

    /// The keys of `auths` that are a registry's.
    pub(super) fn keys(&self, registry: &str) -> Vec<&str> {
        let keys = self.auths.keys().map(String::as_str);
        keys.filter(|key| is_for(key, registry)).collect()
    }
}

impl Entry {
    const fn says_something(&self) -> bool {
        self.auth.is_some() || self.username.is_some() || self.identitytoken.is_some()
    }

    fn credentials(&self) -> Result<Option<Credentials>, ()> {
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = filled(&self.identitytoken) {
            return Ok(Some(Credentials::Identity(Secret::new(token))));
        }
        if let Some(auth) = filled(&self.auth) {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(auth.trim())
                .map_err(|_| ())?;
            let text = String::from_utf8(bytes).map_err(|_| ())?;
            // Docker pads what it writes with NULs.
            let (user, password) = text.trim_end_matches('\0').split_once(':').ok_or(())?;
            return Ok(Some(Credentials::Password {
                user: user.to_owned(),
                password: Secret::new(password),
            }));
        }
        let user = filled(&self.username);
        let password = filled(&self.password);
        Ok(user
            .zip(password)
            .map(|(user, password)| Credentials::Password {
                user,
                password: Secret::new(password),
            }))
    }
}

/// Whether a key of a file is a registry's: old files have URLs for keys.
pub(super) fn is_for(key: &str, registry: &str) -> bool {
    let host = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let host = ["/v1/", "/v2/", "/v1", "/v2", "/"]
        .iter()
        .find_map(|end| host.strip_suffix(end))
        .unwrap_or(host);
    let hub = ["index.docker.io", "registry-1.docker.io", DOCKER_HUB];
    host == registry || (hub.contains(&host) && hub.contains(&registry))
}

/// What a registry is called in `auths` and by helpers.
pub(super) fn server_name(registry: &str) -> &str {
    if registry == DOCKER_HUB {
        DOCKER_HUB_KEY
    } else {
        registry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Credentials {
        Credentials::Password {
            user: user.to_owned(),
            password: Secret::new(password),
        }
    }

    fn found(json: &str, registry: &str, repository: &str) -> Option<Credentials> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, json).unwrap();
        let places = crate::testing::places(
            directory.path(),
            &[("REGISTRY_AUTH_FILE", path.to_str().unwrap())],
        );
        look_up(&places, registry, repository, &|text| panic!("{text}")).unwrap()
    }

    #[test]
    fn the_nearest_entry_is_used() {
        // a:b, c:d:e and x:y
        let json = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "YTpi"},
            "q.io/team": {"auth": "Yzpk"},
            "q.io/team/app": {"auth": "YzpkOmU="},
            "http://q.io/v2/": {"username": "x", "password": "y"},
            "empty.io": {},
            "null.io": null,
            "t.io": {"auth": "YTpi", "identitytoken": "refresh"}
        }}"#;
        assert_eq!(
            found(json, "docker.io", "library/x"),
            Some(password("a", "b"))
        );
        assert_eq!(found(json, "q.io", "team/app"), Some(password("c", "d:e")));
        assert_eq!(
            found(json, "q.io", "team/app/x"),
            Some(password("c", "d:e"))
        );
        assert_eq!(found(json, "q.io", "team/other"), Some(password("c", "d")));
        assert_eq!(found(json, "q.io", "teams/x"), Some(password("x", "y")));
        assert_eq!(found(json, "empty.io", "x"), None);
        assert_eq!(found(json, "null.io", "x"), None);
        assert_eq!(found(json, "io", "x"), None);
        assert_eq!(
            found(json, "t.io", "x"),
            Some(Credentials::Identity(Secret::new("refresh")))
        );
    }

    #[test]
    fn ours_come_before_what_others_have_left_behind() {
        let root = tempfile::tempdir().unwrap();
        let places = crate::testing::places(root.path(), &[]);
        let files = [
            (
                "run/auth.json",
                r#"{"auths": {"q.io": {"auth": "YTpi"}, "p.io": {"auth": "YTpi"}}}"#,
            ),
            (
                ".docker/config.json",
                r#"{"auths": {"q.io": {"auth": "eDp5"}}}"#,
            ),
            (
                ".config/containers/auth.json",
                r#"{"auths": {"r.io": {"auth": "eDp5"}}}"#,
            ),
        ];
        for (path, json) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, json).unwrap();
        }
        let of = |registry| look_up(&places, registry, "x", &|_| ()).unwrap();
        assert_eq!(of("q.io"), Some(password("x", "y")));
        assert_eq!(of("p.io"), Some(password("a", "b")));
        assert_eq!(of("r.io"), Some(password("x", "y")));
        assert_eq!(of("s.io"), None);
    }

    #[test]
    fn errors_do_not_show_what_is_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        let places = crate::testing::places(
            directory.path(),
            &[("REGISTRY_AUTH_FILE", path.to_str().unwrap())],
        );
        for json in [
            r#"{"auths": {"q.io": "hunter2"}}"#,
            r#"{"auths": {"q.io": {"auth": "hunter2"}}}"#,
            r#"{"auths": {"q.io": {"auth": "aHVudGVyMg=="}}}"#,
            r#"{"hunter2"#,
        ] {
            std::fs::write(&path, json).unwrap();
            let error = look_up(&places, "q.io", "x", &|_| ()).unwrap_err();
            let text = crate::error::chain(&error);
            assert!(text.contains("config.json: "), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
