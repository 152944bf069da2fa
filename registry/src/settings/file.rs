//! Files of settings: read whole, up to a limit.

use super::error::SettingsError;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// Largest file of settings, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// A file's content; `None` if there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, SettingsError> {
    let failed = |source| SettingsError::Io {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(content(
            path,
            format!("it has more than {MAX_FILE_BYTES} bytes"),
        ));
    }
    Ok(Some(bytes))
}

/// A file's content as text.
pub(super) fn read_text(path: &Path) -> Result<Option<String>, SettingsError> {
    read(path)?
        .map(|bytes| {
            String::from_utf8(bytes).map_err(|_| content(path, "it is not UTF-8".to_owned()))
        })
        .transpose()
}

/// The files of a directory that end in `.suffix`, sorted by name. A directory that is not there
/// has none.
pub(super) fn list(
    directory: &Path,
    suffix: &str,
) -> Result<Vec<std::path::PathBuf>, SettingsError> {
    let failed = |source| SettingsError::Io {
        path: directory.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|own| own == suffix) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

pub(super) fn content(path: &Path, why: String) -> SettingsError {
    SettingsError::Content {
        path: path.to_owned(),
        why,
    }
}
