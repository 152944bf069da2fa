//! What `login` writes and `logout` takes back: an entry of `config.json`, or a helper's.

use super::credentials::{Credentials, login_file, parse, server_name};
use super::error::SettingsError;
use super::file::{content, read};
use super::helper::{self, HelperError};
use super::places::Places;
use base64::Engine as _;
use rustix::fs::{FlockOperation, flock};
use serde_json::{Map, Value, json};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where credentials were put.
pub(crate) enum Kept {
    /// In a file, for everybody who may read it.
    File(PathBuf),
    /// By `docker-credential-NAME`.
    Helper(String),
}

/// Keeps a registry's credentials.
pub(crate) fn keep(
    places: &Places,
    registry: &str,
    credentials: &Credentials,
) -> Result<Kept, SettingsError> {
    let mut file = ConfigFile::open(places)?;
    let helper = file.parsed()?.helper(registry).map(str::to_owned);
    let server = server_name(registry);
    if let Some(name) = helper {
        helper::store(places, &name, server, credentials).map_err(|error| failed(&name, error))?;
        // Docker's empty entry: somebody has logged in here.
        file.set(server, json!({}))?;
        file.write()?;
        return Ok(Kept::Helper(name));
    }
    let entry = match credentials {
        Credentials::Password { user, password } => {
            let text = format!("{user}:{}", password.reveal());
            json!({ "auth": base64::engine::general_purpose::STANDARD.encode(text) })
        }
        Credentials::Identity(token) => json!({ "identitytoken": token.reveal() }),
    };
    file.set(server, entry)?;
    file.write()?;
    Ok(Kept::File(file.path))
}

/// Forgets a registry's credentials; `false` if there were none.
pub(crate) fn forget(places: &Places, registry: &str) -> Result<bool, SettingsError> {
    let mut file = ConfigFile::open(places)?;
    let document = file.parsed()?;
    let mut was_there = false;
    if let Some(name) = document.helper(registry) {
        was_there = helper::erase(places, name, server_name(registry))
            .map_err(|error| failed(name, error))?;
    }
    let keys: Vec<String> = document
        .keys(registry)
        .iter()
        .map(ToString::to_string)
        .collect();
    if !keys.is_empty() {
        file.remove(&keys);
        file.write()?;
    }
    Ok(was_there || !keys.is_empty())
}

fn failed(helper: &str, error: HelperError) -> SettingsError {
    SettingsError::Helper {
        helper: helper.to_owned(),
        why: error.0,
    }
}

/// A `config.json` that nobody else changes meanwhile: its directory is locked.
struct ConfigFile {
    path: PathBuf,
    directory: File,
    bytes: Vec<u8>,
    content: Map<String, Value>,
}

impl ConfigFile {
    fn open(places: &Places) -> Result<Self, SettingsError> {
        let path = login_file(places).ok_or_else(|| {
            content(
                Path::new("config.json"),
                "there is no home directory for it".to_owned(),
            )
        })?;
        // A link leads to where somebody keeps their files: what it points to is replaced.
        let path = std::fs::canonicalize(&path).unwrap_or(path);
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let io = |source| SettingsError::Io {
            path: parent.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(io)?;
        let directory = File::open(parent).map_err(io)?;
        flock(&directory, FlockOperation::LockExclusive).map_err(|error| io(error.into()))?;
        let bytes = read(&path)?.filter(|bytes| !bytes.trim_ascii().is_empty());
        let bytes = bytes.unwrap_or_else(|| b"{}".to_vec());
        parse(&path, &bytes)?;
        let content = serde_json::from_slice(&bytes)
            .map_err(|_| content(&path, "it is not a JSON object".to_owned()))?;
        Ok(Self {
            path,
            directory,
            bytes,
            content,
        })
    }

    fn parsed(&self) -> Result<super::credentials::Document, SettingsError> {
        parse(&self.path, &self.bytes)
    }

    fn set(&mut self, server: &str, entry: Value) -> Result<(), SettingsError> {
        let auths = self.content.entry("auths").or_insert_with(|| json!({}));
        let auths = auths
            .as_object_mut()
            .ok_or_else(|| content(&self.path, "its auths are not an object".to_owned()))?;
        auths.insert(server.to_owned(), entry);
        Ok(())
    }

    fn remove(&mut self, keys: &[String]) {
        if let Some(auths) = self.content.get_mut("auths").and_then(Value::as_object_mut) {
            auths.retain(|key, _| !keys.contains(key));
        }
    }

    /// Replaces the file at once, for its owner alone.
    fn write(&self) -> Result<(), SettingsError> {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let temporary = self.path.with_file_name(name);
        let io = |source| SettingsError::Io {
            path: self.path.clone(),
            source,
        };
        let written = self.write_to(&temporary).and_then(|()| {
            std::fs::rename(&temporary, &self.path)?;
            self.directory.sync_all()
        });
        if written.is_err() {
            // It may not be there; the error that counts is the first.
            let _ = std::fs::remove_file(&temporary);
        }
        written.map_err(io)
    }

    fn write_to(&self, temporary: &Path) -> std::io::Result<()> {
        let mut text = serde_json::to_vec_pretty(&self.content)?;
        text.push(b'\n');
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(temporary)?;
        file.write_all(&text)?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Secret;
    use std::os::unix::fs::PermissionsExt;

    fn password() -> Credentials {
        Credentials::Password {
            user: "user".to_owned(),
            password: Secret::new("a:b"),
        }
    }

    #[test]
    fn what_is_kept_is_found_and_forgotten() {
        let home = tempfile::tempdir().unwrap();
        let places = crate::testing::places(home.path(), &[]);
        let path = home.path().join(".docker/config.json");
        let none =
            |registry| super::super::credentials::look_up(&places, registry, "x", &|_| ()).unwrap();
        assert!(!forget(&places, "q.io").unwrap());
        for registry in ["q.io", "docker.io", "localhost:5000"] {
            keep(&places, registry, &password()).unwrap();
            assert_eq!(none(registry), Some(password()));
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.contains(r#""https://index.docker.io/v1/": {"#),
            "{text}"
        );
        assert!(forget(&places, "docker.io").unwrap());
        assert!(!forget(&places, "docker.io").unwrap());
        assert_eq!(none("docker.io"), None);
        assert_eq!(none("q.io"), Some(password()));
        let names: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn what_others_keep_in_the_file_stays() {
        let home = tempfile::tempdir().unwrap();
        let places = crate::testing::places(home.path(), &[]);
        let kept = home.path().join("dotfiles.json");
        std::fs::write(
            &kept,
            r#"{"psFormat": "x", "auths": {"a.io": {"auth": "YTpi"}}}"#,
        )
        .unwrap();
        std::fs::create_dir(home.path().join(".docker")).unwrap();
        let path = home.path().join(".docker/config.json");
        std::os::unix::fs::symlink(&kept, &path).unwrap();
        keep(&places, "q.io", &password()).unwrap();
        assert!(path.is_symlink());
        let value: Value = serde_json::from_slice(&std::fs::read(&kept).unwrap()).unwrap();
        assert_eq!(value["psFormat"], "x");
        assert_eq!(value["auths"]["a.io"]["auth"], "YTpi");
        assert_eq!(value["auths"]["q.io"]["auth"], "dXNlcjphOmI=");
    }

    #[test]
    fn logins_at_once_lose_nothing() {
        let home = tempfile::tempdir().unwrap();
        let places = crate::testing::places(home.path(), &[]);
        std::thread::scope(|scope| {
            for index in 0..8 {
                let places = &places;
                scope.spawn(move || keep(places, &format!("r{index}.io"), &password()).unwrap());
            }
        });
        let file = ConfigFile::open(&places).unwrap();
        assert_eq!(file.content["auths"].as_object().unwrap().len(), 8);
    }

    #[test]
    fn a_file_that_is_not_understood_is_not_replaced() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("auth.json");
        let text = path.to_str().unwrap().to_owned();
        let places = crate::testing::places(home.path(), &[("REGISTRY_AUTH_FILE", &text)]);
        std::fs::write(&path, "[1]").unwrap();
        assert!(keep(&places, "q.io", &password()).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "[1]");
    }
}
