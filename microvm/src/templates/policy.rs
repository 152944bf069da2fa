//! Whether guests may begin at a template.

use hullbox_host::config::{self, File, FileError};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;

/// The environment variable of [`Policy`].
pub const POLICY_VARIABLE: &str = "HULLBOX_TEMPLATES";

/// Whether guests may begin at a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// If there is one; and one is made after a run that found none.
    #[default]
    Auto,
    /// Every guest boots, and none is made.
    Never,
}

/// Why the policy cannot be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The environment says something unknown.
    #[error("{POLICY_VARIABLE} is `{0}`; it can be never or auto")]
    Unknown(String),
    /// The configuration file.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What the configuration file says about templates.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Section {
    policy: Option<Policy>,
}

impl Policy {
    /// Of one container, for which the user may want it cold.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn of(cold: bool) -> Result<Self, PolicyError> {
        let policy = Self::configured()?;
        Ok(if cold { Self::Never } else { policy })
    }

    /// As the environment says, else the configuration file.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn configured() -> Result<Self, PolicyError> {
        Self::of_settings(config::variable(POLICY_VARIABLE).as_deref(), config::file)
    }

    /// The file is only looked at if the environment leaves it open.
    fn of_settings<'a>(
        variable: Option<&OsStr>,
        file: impl FnOnce() -> Result<&'a File, FileError>,
    ) -> Result<Self, PolicyError> {
        match variable {
            None => {
                let section: Section = file()?.table("templates")?;
                Ok(section.policy.unwrap_or_default())
            }
            Some(value) => match value.to_str() {
                Some("auto") => Ok(Self::Auto),
                Some("never") => Ok(Self::Never),
                _ => Err(PolicyError::Unknown(value.to_string_lossy().into_owned())),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_one_of_two_words_and_the_environments_counts() {
        let policy = |variable: Option<&str>, text: &str| {
            let file = File::new("/c".into(), text.to_owned());
            Policy::of_settings(variable.map(OsStr::new), || Ok(&file))
        };
        let never = "[templates]\npolicy = \"never\"\n[machine]\npolicy = \"auto\"\n";
        let auto = "[templates]\npolicy = \"auto\"\n";
        assert_eq!(policy(None, "").unwrap(), Policy::Auto);
        assert_eq!(policy(None, auto).unwrap(), Policy::Auto);
        assert_eq!(policy(None, never).unwrap(), Policy::Never);
        assert_eq!(policy(Some("auto"), never).unwrap(), Policy::Auto);
        assert_eq!(policy(Some("never"), auto).unwrap(), Policy::Never);
        let error = policy(Some("Always"), never).unwrap_err().to_string();
        assert_eq!(
            error,
            "HULLBOX_TEMPLATES is `Always`; it can be never or auto"
        );
        for odd in [
            "[templates]\npolicy = \"perhaps\"\n",
            "[templates]\nwhen = \"never\"\n",
            "[templates",
        ] {
            let error = policy(None, odd).unwrap_err();
            assert!(
                matches!(error, PolicyError::File(FileError::Parse { .. })),
                "{error}"
            );
            // Not asked, not read.
            assert_eq!(policy(Some("never"), odd).unwrap(), Policy::Never);
        }
    }
}
