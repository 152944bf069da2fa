//! `--volumes-from`.

use super::volume::inherited_read_only;
use super::{ContainerMount, Source};
use hullbox_model::value::ValueError;
use std::str::FromStr;

/// `CONTAINER[:MODE]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumesFrom {
    /// Name or id of the container.
    pub container: String,
    /// They are read-only here, whatever they are there.
    pub read_only: bool,
    /// As typed.
    pub text: String,
}

impl FromStr for VolumesFrom {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            return Err(ValueError::new(
                "volumes-from specification cannot be an empty string",
            ));
        }
        let (container, mode) = text.split_once(':').unwrap_or((text, ""));
        let read_only = inherited_read_only(mode)
            .ok_or_else(|| ValueError::new(format!("invalid mode: {mode}")))?;
        Ok(Self {
            container: container.to_owned(),
            read_only,
            text: text.to_owned(),
        })
    }
}

impl VolumesFrom {
    /// That container's mounts, as they are in another one.
    pub fn inherit<'a>(
        &self,
        mounts: &'a [ContainerMount],
    ) -> impl Iterator<Item = ContainerMount> + use<'a> {
        let read_only = self.read_only;
        mounts.iter().map(move |mount| {
            let mut mount = mount.clone();
            mount.read_only |= read_only;
            mount.copy_up = false;
            mount.mode.clear();
            if let Source::Bind { make, .. } = &mut mount.source {
                *make = false;
            }
            mount
        })
    }
}
