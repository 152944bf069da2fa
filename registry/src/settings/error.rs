//! What can be wrong with files of settings.

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
        "{variable} is not the address of a proxy that can be used: http://HOST:PORT, https:// or socks5:// is expected"
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
