//! Where things are: the data directory, which lasts, and the runtime directory, which need not.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Digits of a container id that people see and that name its runtime directory.
pub const SHORT_ID_LEN: usize = 12;

/// The two directories that everything else lives under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// Images, containers, databases.
    pub data: PathBuf,
    /// Sockets and mount points; may vanish at a reboot.
    pub runtime: PathBuf,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// Neither an override nor a home directory.
    #[error("cannot tell where data goes: neither HULLBOX_ROOT nor HOME is set")]
    NoHome,
    /// An override that depends on the working directory.
    #[error("{variable} must be an absolute path, not {}", path.display())]
    Relative {
        /// The environment variable.
        variable: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// The directory cannot be made or looked at.
    #[error("cannot use the directory {}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody else could plant things in it.
    #[error("the directory {} belongs to user {owner}, not to {expected}", path.display())]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it must be.
        expected: u32,
    },
    /// Not a directory, perhaps a symbolic link.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
}

impl Roots {
    /// From the environment, as the manual says. Creates nothing.
    ///
    /// # Errors
    /// [`PathError::NoHome`] and [`PathError::Relative`].
    pub fn from_env() -> Result<Self, PathError> {
        let root = rustix::process::geteuid().is_root();
        Self::choose(root, rustix::process::geteuid().as_raw(), &|name| {
            std::env::var_os(name).filter(|value| !value.is_empty())
        })
    }

    fn choose(
        root: bool,
        uid: u32,
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, PathError> {
        let absolute = |variable: &'static str| match env(variable).map(PathBuf::from) {
            Some(path) if path.is_relative() => Err(PathError::Relative { variable, path }),
            other => Ok(other),
        };
        let data = match absolute("HULLBOX_ROOT")? {
            Some(path) => path,
            None if root => PathBuf::from("/var/lib/hullbox"),
            // The XDG specification says to ignore relative values.
            None => env("XDG_DATA_HOME")
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
                .or_else(|| env("HOME").map(|home| PathBuf::from(home).join(".local/share")))
                .filter(|path| path.is_absolute())
                .ok_or(PathError::NoHome)?
                .join("hullbox"),
        };
        let runtime = match absolute("HULLBOX_RUNTIME")? {
            Some(path) => path,
            None if root => PathBuf::from("/run/hullbox"),
            None => env("XDG_RUNTIME_DIR")
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
                .map_or_else(
                    || PathBuf::from(format!("/tmp/hullbox-{uid}")),
                    |path| path.join("hullbox"),
                ),
        };
        Ok(Self { data, runtime })
    }

    /// Makes both directories, for their owner alone.
    ///
    /// # Errors
    /// As [`ensure_private_dir`].
    pub fn create(&self) -> Result<(), PathError> {
        ensure_private_dir(&self.data)?;
        ensure_private_dir(&self.runtime)
    }

    /// A container's own directory, which lasts until it is removed.
    #[must_use]
    pub fn container_dir(&self, id: &str) -> PathBuf {
        self.data.join("containers").join(id)
    }

    /// A container's runtime directory. It is named by the short id, because the paths of
    /// sockets in it may not be longer than 107 bytes.
    #[must_use]
    pub fn container_runtime_dir(&self, id: &str) -> PathBuf {
        self.runtime.join(short_id(id))
    }

    /// Where volumes are: a directory for each.
    #[must_use]
    pub fn volumes_dir(&self) -> PathBuf {
        self.data.join("volumes")
    }

    /// Where networks that containers share have their sockets and locks.
    #[must_use]
    pub fn networks_dir(&self) -> PathBuf {
        self.runtime.join(NETWORKS_DIR)
    }
}

/// The directory of networks' sockets in a runtime directory: a container's [`Roots::runtime`], or a helper
/// machine's own.
pub const NETWORKS_DIR: &str = "networks";

/// The same, beside another file or directory of that runtime directory.
#[must_use]
pub fn networks_beside(path: &Path) -> PathBuf {
    path.with_file_name(NETWORKS_DIR)
}

/// The writable layer of a microVM, in its container's directory.
pub const DISK_FILE: &str = "disk.ext4";

/// A file to be locked, and nothing else: readable by its owner alone, made if there is none.
///
/// # Errors
/// It can neither be opened nor made.
pub fn open_lock_file(path: &Path) -> io::Result<fs::File> {
    fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// The directories in a directory, by their names; none where it is not there.
///
/// # Errors
/// It cannot be read.
pub fn directories_in(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.push(entry.path());
        }
    }
    all.sort();
    Ok(all)
}

/// The part of an id that people see.
#[must_use]
pub fn short_id(id: &str) -> &str {
    id.get(..SHORT_ID_LEN).unwrap_or(id)
}

/// The machine id (machine-id(5): 32 hexadecimal digits) of the guest that a container is.
#[must_use]
pub fn machine_id(id: &str) -> &str {
    id.get(..32).unwrap_or_default()
}

/// Makes a directory with mode 0700, or checks that it is ours and closes it to others.
///
/// # Errors
/// It cannot be made, is not a directory (a symbolic link counts as what it is), or has another
/// owner.
pub fn ensure_private_dir(path: &Path) -> Result<(), PathError> {
    let io_error = |source| PathError::Io {
        path: path.to_owned(),
        source,
    };
    let meta = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(io_error)?;
            fs::symlink_metadata(path).map_err(io_error)?
        }
        other => other.map_err(io_error)?,
    };
    // The data directory itself may be a link that its owner put there; what counts is whose.
    let target = if meta.is_symlink() {
        fs::metadata(path).map_err(io_error)?
    } else {
        meta.clone()
    };
    if !target.is_dir() {
        return Err(PathError::NotADirectory {
            path: path.to_owned(),
        });
    }
    let expected = rustix::process::geteuid().as_raw();
    for owner in [meta.uid(), target.uid()] {
        if owner != expected {
            return Err(PathError::Owner {
                path: path.to_owned(),
                owner,
                expected,
            });
        }
    }
    if target.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(io_error)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(root: bool, vars: &[(&str, &str)]) -> Result<Roots, PathError> {
        Roots::choose(root, 1000, &|name| {
            vars.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn directories_follow_the_environment() {
        let roots = choose(true, &[]).unwrap();
        assert_eq!(roots.data, Path::new("/var/lib/hullbox"));
        assert_eq!(roots.runtime, Path::new("/run/hullbox"));
        let roots = choose(false, &[("HOME", "/home/a")]).unwrap();
        assert_eq!(roots.data, Path::new("/home/a/.local/share/hullbox"));
        assert_eq!(roots.runtime, Path::new("/tmp/hullbox-1000"));
        let xdg = [("XDG_DATA_HOME", "/d"), ("XDG_RUNTIME_DIR", "/r")];
        let roots = choose(false, &xdg).unwrap();
        assert_eq!(roots.data, Path::new("/d/hullbox"));
        assert_eq!(roots.runtime, Path::new("/r/hullbox"));
        let vars = [("HULLBOX_ROOT", "/x"), ("HULLBOX_RUNTIME", "/y")];
        let roots = choose(true, &vars).unwrap();
        assert_eq!((roots.data, roots.runtime), ("/x".into(), "/y".into()));
        assert!(matches!(
            choose(true, &[("HULLBOX_ROOT", "x")]),
            Err(PathError::Relative { .. })
        ));
        assert!(matches!(choose(false, &[]), Err(PathError::NoHome)));
    }

    #[test]
    fn private_directories_are_closed_to_others() {
        let dir = std::env::temp_dir().join(format!("hullbox-paths-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        ensure_private_dir(&dir).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        let file = dir.join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(
            ensure_private_dir(&file),
            Err(PathError::NotADirectory { .. })
        ));
        fs::remove_dir_all(&dir).unwrap();
    }
}
