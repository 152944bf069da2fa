//! The configuration file: the user's, else the system's. Each of its tables is for whoever asks for
//! it to define; the environment over it, too.

use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{} is not a valid configuration", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<toml::de::Error>,
    },
}

/// A configuration file's text, not yet understood.
#[derive(Debug, Default)]
pub struct File {
    path: PathBuf,
    text: String,
}

/// A variable of the environment, unless it is empty.
#[must_use]
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// This process's file, read once. One that is not there says nothing.
///
/// # Errors
/// [`FileError::Read`].
pub fn file() -> Result<&'static File, FileError> {
    static FILE: OnceLock<File> = OnceLock::new();
    match FILE.get() {
        Some(file) => Ok(file),
        None => {
            let file = File::find(&variable)?;
            Ok(FILE.get_or_init(|| file))
        }
    }
}

impl File {
    /// A file with this text, which errors name by `path`.
    #[must_use]
    pub fn new(path: PathBuf, text: String) -> Self {
        Self { path, text }
    }

    /// The file that the environment leads to.
    fn find(env: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, FileError> {
        let user = env("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| env("HOME").map(|home| PathBuf::from(home).join(".config")))
            .map(|dir| dir.join("hullbox/config.toml"));
        let system = PathBuf::from("/etc/hullbox/config.toml");
        for path in user.into_iter().chain([system]) {
            match fs::read_to_string(&path) {
                Ok(text) => return Ok(Self { path, text }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(FileError::Read { path, source }),
            }
        }
        Ok(Self::default())
    }

    /// What its table of this name says; the default where it has none. Other tables are others'
    /// business.
    ///
    /// # Errors
    /// [`FileError::Parse`]: the file is not TOML, or the table is not a `T`.
    pub fn table<T: DeserializeOwned + Default>(&self, name: &'static str) -> Result<T, FileError> {
        let visitor = Table {
            name,
            kind: PhantomData,
        };
        toml::Deserializer::parse(&self.text)
            .and_then(|document| document.deserialize_map(visitor))
            .map_err(|source| FileError::Parse {
                path: self.path.clone(),
                source: Box::new(source),
            })
    }
}

/// Takes one table of a document. Read from the text itself, so that an error tells the line.
struct Table<T> {
    name: &'static str,
    kind: PhantomData<T>,
}

impl<'de, T: DeserializeOwned + Default> Visitor<'de> for Table<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a document with a table {}", self.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut found = T::default();
        while let Some(key) = map.next_key::<String>()? {
            if key == self.name {
                found = map.next_value()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::error::Error;
    use std::path::Path;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct One {
        number: Option<u32>,
    }

    fn file(text: &str) -> File {
        File::new("/c".into(), text.to_owned())
    }

    #[test]
    fn a_table_is_read_and_the_others_are_not() {
        let text = "[other]\nkey = 1\n[one]\nnumber = 2\n";
        let one: One = file(text).table("one").unwrap();
        assert_eq!(one.number, Some(2));
        assert_eq!(file(text).table::<One>("none").unwrap(), One::default());
        assert_eq!(file("").table::<One>("one").unwrap(), One::default());
        assert!(file(text).table::<One>("other").is_err());
    }

    #[test]
    fn an_error_names_the_file_and_the_line() {
        for text in [
            "[other]\n[one]\nnumbre = 2\n",
            "[other]\n[one]\nnumber = -\n",
        ] {
            let error = file(text).table::<One>("one").unwrap_err();
            assert_eq!(error.to_string(), "/c is not a valid configuration");
            let cause = error.source().unwrap().to_string();
            assert!(cause.contains("line 3"), "{cause}");
        }
    }

    #[test]
    fn the_users_file_comes_before_the_systems() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hullbox/config.toml");
        fs::create_dir_all(dir.path().join("hullbox")).unwrap();
        fs::write(&path, "[one]\nnumber = 3\n").unwrap();
        let find = |variable: &str, dir: &Path| {
            File::find(&|name| (name == variable).then(|| dir.into())).unwrap()
        };
        let found = find("XDG_CONFIG_HOME", dir.path());
        assert_eq!(found.path, path);
        assert_eq!(found.table::<One>("one").unwrap().number, Some(3));
        fs::create_dir(dir.path().join(".config")).unwrap();
        fs::rename(
            dir.path().join("hullbox"),
            dir.path().join(".config/hullbox"),
        )
        .unwrap();
        let found = find("HOME", dir.path());
        assert_eq!(found.table::<One>("one").unwrap().number, Some(3));
        fs::write(dir.path().join("file"), "").unwrap();
        let unreadable = |name: &str| (name == "HOME").then(|| dir.path().join("file").into());
        assert!(matches!(
            File::find(&unreadable),
            Err(FileError::Read { .. })
        ));
    }
}
