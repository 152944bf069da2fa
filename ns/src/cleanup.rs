//! What a container leaves behind, and its removal.

use crate::cgroup::{self, Cgroup};
use crate::error::NsError;
use crate::rootfs;
use hullbox_backend::bundle::Bundle;
use std::path::{Path, PathBuf};

/// libcontainer's directory in the container's runtime directory.
pub(crate) fn state_dir(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("oci")
}

/// Ends whatever is left of a container whose monitor was killed, and removes what it left:
/// processes, cgroup, runtime files. Does nothing when there is nothing. The writable layer
/// stays.
///
/// # Errors
/// [`NsError::NotRoot`], or [`NsError::Cgroup`] when processes will not die.
pub fn cleanup(bundle: &Bundle) -> Result<(), NsError> {
    if !rustix::process::geteuid().is_root() {
        return Err(NsError::NotRoot);
    }
    if let Some(cgroup) = Cgroup::find(&bundle.id)? {
        cgroup.kill()?;
        cgroup.remove()?;
    }
    cgroup::remove_legacy(&bundle.id)?;
    remove_runtime_files(&bundle.runtime_dir);
    Ok(())
}

/// Removes what [`crate::run`] made in the runtime directory.
pub(crate) fn remove_runtime_files(runtime_dir: &Path) {
    // What is not there need not go, and what cannot go does not stop a later run.
    let _ = std::fs::remove_dir_all(state_dir(runtime_dir));
    rootfs::remove_leftovers(&rootfs::base_of(runtime_dir));
}
