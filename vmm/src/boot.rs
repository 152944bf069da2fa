//! Loading.

/// Why a kernel or initramfs could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("cannot read it")]
    Read(#[source] std::io::Error),
}

/// Why the guest's boot could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A table does not fit.
    #[error("the boot tables do not fit into guest memory")]
    Tables,
}
