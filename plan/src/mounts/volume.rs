//! `--volume`.

use super::{
    ContainerMount, Propagation, Source, VolumeMaking, VolumeSource, check_name, clean,
    propagation, target,
};
use hullbox_model::value::ValueError;
use std::path::Path;
use std::str::FromStr;

/// `[SOURCE:]TARGET[:MODE]`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFlag {
    /// What stands before the first colon; a path begins with a slash, anything else names a volume.
    pub source: Option<String>,
    /// Absolute path in the container, cleaned.
    pub target: String,
    /// The same as typed.
    typed_target: String,
    /// The third field.
    pub mode: String,
    words: Words,
}

/// What the words of a mode say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Words {
    read_only: bool,
    nocopy: bool,
    propagation: Option<Propagation>,
}

/// Whether a mode is one, and what it says: one word of each class.
fn words(mode: &str) -> Option<Words> {
    let mut words = Words::default();
    if mode.is_empty() {
        return Some(words);
    }
    let mut seen = [0u8; 5];
    for word in mode.split(',') {
        let class = match word {
            "rw" | "ro" => {
                words.read_only = word == "ro";
                0
            }
            "z" | "Z" => 1,
            "nocopy" => {
                words.nocopy = true;
                3
            }
            // Of hosts that run their engine in a VM; they say nothing here, as with Docker on Linux.
            "consistent" | "cached" | "delegated" => 4,
            word => {
                words.propagation = Some(propagation(word)?);
                2
            }
        };
        seen[class] += 1;
    }
    seen.iter().all(|&count| count < 2).then_some(words)
}

/// Of the flags of a mode, whether it says read-only; `None` is no mode for `--volumes-from`.
pub(super) fn inherited_read_only(mode: &str) -> Option<bool> {
    let words = words(mode)?;
    (!words.nocopy && words.propagation.is_none()).then_some(words.read_only)
}

impl FromStr for VolumeFlag {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        read(text).map_err(ValueError::new)
    }
}

fn read(text: &str) -> Result<VolumeFlag, String> {
    if text.is_empty() {
        return Err("invalid empty volume spec".to_owned());
    }
    let fields: Vec<&str> = text.split(':').collect();
    // Docker's client looks at these before its engine does.
    if text.len() > 2 && fields.contains(&"") {
        return Err(format!(
            "invalid spec: {text}: empty section between colons"
        ));
    }
    if text.len() > 2 && fields.len() > 3 {
        return Err(format!("invalid spec: {text}: too many colons"));
    }
    let invalid = || format!("invalid volume specification: '{text}'");
    if fields.first() == Some(&"") {
        return Err(invalid());
    }
    let (source, typed_target, mode) = match *fields.as_slice() {
        [only] => (None, only, ""),
        // A mode of a volume that nobody named.
        [_, second] if words(second).is_some() => return Err(invalid()),
        [source, target] => (Some(source), target, ""),
        [source, target, mode] => (Some(source), target, mode),
        _ => return Err(invalid()),
    };
    let words = words(mode).ok_or_else(|| format!("invalid mode: {mode}"))?;
    let is_path = source.is_some_and(is_path);
    let kind = if is_path { "bind" } else { "volume" };
    let config = |why: String| {
        format!(
            "{}: invalid mount config for type {kind:?}: {why}",
            invalid()
        )
    };
    let target = target(typed_target).map_err(config)?;
    if is_path && words.nocopy {
        return Err(config(
            "field VolumeOptions must not be specified".to_owned(),
        ));
    }
    if !is_path && words.propagation.is_some() {
        return Err(config("field BindOptions must not be specified".to_owned()));
    }
    if let Some(name) = source.filter(|_| !is_path) {
        check_name(name).map_err(|why| format!("create {name}: {why}"))?;
    }
    Ok(VolumeFlag {
        source: source.map(str::to_owned),
        target,
        typed_target: typed_target.to_owned(),
        mode: mode.to_owned(),
        words,
    })
}

/// Whether a source is a path: an absolute one, or one that Docker's client makes absolute.
fn is_path(source: &str) -> bool {
    source.starts_with(['/', '.'])
}

impl VolumeFlag {
    /// The path of the host that it mounts, if it is a bind mount.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.source.as_deref().filter(|source| is_path(source))
    }

    /// It mounts what it says read-only.
    #[must_use]
    pub const fn read_only(&self) -> bool {
        self.words.read_only
    }

    /// The same with a relative path made absolute, as Docker's client does it.
    #[must_use]
    pub fn resolved(mut self, directory: &Path) -> Self {
        if let Some(path) = self.path() {
            self.source = Some(absolute(path, directory));
        }
        self
    }

    /// In place of the path, this one.
    pub fn set_path(&mut self, path: String) {
        self.source = Some(path);
    }

    /// As `HostConfig.Binds` has it; `None` of a volume that nobody named.
    #[must_use]
    pub fn bind(&self) -> Option<String> {
        let source = self.source.as_deref()?;
        let target = &self.typed_target;
        Some(match self.mode.as_str() {
            "" => format!("{source}:{target}"),
            mode => format!("{source}:{target}:{mode}"),
        })
    }

    pub(super) fn mount(&self, driver: Option<&str>, outside: bool) -> ContainerMount {
        let common = ContainerMount {
            read_only: self.words.read_only,
            mode: self.mode.clone(),
            ..ContainerMount::anonymous(self.target.clone(), driver)
        };
        match (self.path(), &self.source) {
            (Some(path), _) => ContainerMount {
                source: Source::Bind {
                    path: clean(path),
                    outside,
                    make: true,
                },
                propagation: self.words.propagation.unwrap_or_default(),
                copy_up: false,
                ..common
            },
            (None, Some(name)) => ContainerMount {
                source: Source::Volume(VolumeSource {
                    name: name.clone(),
                    make: VolumeMaking {
                        driver: driver.unwrap_or_default().to_owned(),
                        ..VolumeMaking::default()
                    },
                    ..VolumeSource::default()
                }),
                copy_up: !self.words.nocopy,
                mode: match self.mode.as_str() {
                    // Docker's default of a volume of its own.
                    "" => "z".to_owned(),
                    mode => mode.to_owned(),
                },
                ..common
            },
            (None, None) => common,
        }
    }
}

/// A path as Go's `filepath.Abs` makes it, if it is relative.
#[must_use]
pub fn absolute(path: &str, directory: &Path) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    clean(&format!("{}/{path}", directory.display()))
}
