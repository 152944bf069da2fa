//! The image store, within the limits that the configuration file sets.

use crate::containers::ContainerError;
use crate::paths::Roots;
use hullbox_image::{Limits, Store};
use serde::Deserialize;

/// Opens the store.
///
/// # Errors
/// [`ContainerError::Store`], [`ContainerError::Config`].
pub(crate) fn open(roots: &Roots) -> Result<Store, ContainerError> {
    let section: Section = crate::config::file()?.table("images")?;
    Ok(Store::open(&roots.data)?.with_limits(section.limits()))
}

/// How much an image may cost; what is not said stays as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Section {
    layer_memory_mib: Option<u32>,
    layer_gib: Option<u32>,
    archive_gib: Option<u32>,
    file_gib: Option<u32>,
    linked_gib: Option<u32>,
}

impl Section {
    fn limits(&self) -> Limits {
        let plain = Limits::default();
        let gib = |said: Option<u32>, bytes: u64| said.map_or(bytes, |n| u64::from(n) << 30);
        Limits {
            max_layer_memory_bytes: self
                .layer_memory_mib
                .map_or(plain.max_layer_memory_bytes, |n| u64::from(n) << 20),
            max_layer_bytes: gib(self.layer_gib, plain.max_layer_bytes),
            max_total_layer_bytes: gib(self.archive_gib, plain.max_total_layer_bytes),
            max_file_bytes: gib(self.file_gib, plain.max_file_bytes),
            max_linked_bytes: gib(self.linked_gib, plain.max_linked_bytes),
            ..plain
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::File;

    fn section(text: &str) -> Result<Section, crate::config::FileError> {
        File::new("/c".into(), text.to_owned()).table("images")
    }

    #[test]
    fn what_is_said_counts_and_the_rest_stays() {
        let limits = section("[images]\nlayer_memory_mib = 2\nlinked_gib = 3\n")
            .unwrap()
            .limits();
        assert_eq!(limits.max_layer_memory_bytes, 2 << 20);
        assert_eq!(limits.max_linked_bytes, 3 << 30);
        assert_eq!(limits.max_file_bytes, Limits::default().max_file_bytes);
        assert_eq!(section("").unwrap().limits(), Limits::default());
        assert!(section("[images]\nlayer_memory = 2\n").is_err());
    }
}
