//! `--mount`.

use super::{
    Below, ContainerMount, Propagation, Source, VolumeMaking, VolumeSource, check_name, clean, csv,
    propagation, propagation_word, target,
};
use crate::units::Bytes;
use hullbox_model::container::{BindOptions, MountDriver, MountSpec, TmpfsOptions, VolumeOptions};
use hullbox_model::value::ValueError;
use hullbox_protocol::TmpfsMount;
use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

/// `KEY=VALUE,…`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFlag {
    kind: Kind,
    /// As typed, or made absolute.
    source: String,
    typed_target: String,
    target: String,
    read_only: bool,
    consistency: String,
    bind: Option<Bind>,
    volume: Option<Volume>,
    tmpfs: Option<Tmpfs>,
}

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A path of the host.
    Bind,
    /// A volume.
    Volume,
    /// Memory.
    Tmpfs,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Volume => "volume",
            Self::Tmpfs => "tmpfs",
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Bind {
    propagation: String,
    not_recursive: bool,
    below: Below,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Volume {
    nocopy: bool,
    subpath: String,
    labels: BTreeMap<String, String>,
    driver: Option<(String, BTreeMap<String, String>)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tmpfs {
    size: u64,
    mode: Option<u32>,
}

/// What was read, before it is known whether it fits together.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    source: String,
    target: Option<String>,
    read_only: bool,
    consistency: String,
    bind: Option<Bind>,
    volume: Option<Volume>,
    tmpfs: Option<Tmpfs>,
}

impl FromStr for MountFlag {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let read = || -> Result<Self, String> {
            let mut fields = Fields::default();
            for field in csv::fields(text)? {
                fields.take(&field)?;
            }
            fields.check()
        };
        read().map_err(ValueError::new)
    }
}

impl Fields {
    fn take(&mut self, field: &str) -> Result<(), String> {
        let Some((key, value)) = field.split_once('=') else {
            match field.to_lowercase().as_str() {
                "readonly" | "ro" => self.read_only = true,
                "volume-nocopy" => self.volume().nocopy = true,
                "bind-nonrecursive" => return Err(deprecated()),
                _ => {
                    return Err(format!("invalid field '{field}' must be a key=value pair"));
                }
            }
            return Ok(());
        };
        let key = key.to_lowercase();
        let invalid = || format!("invalid value for {key}: {value}");
        match key.as_str() {
            "type" => self.kind = Some(value.to_lowercase()),
            "source" | "src" => self.source = value.to_owned(),
            "target" | "dst" | "destination" => self.target = Some(value.to_owned()),
            "readonly" | "ro" => self.read_only = boolean(value).ok_or_else(invalid)?,
            "consistency" => self.consistency = value.to_lowercase(),
            "bind-propagation" => self.bind().propagation = value.to_lowercase(),
            "bind-nonrecursive" => return Err(deprecated()),
            "bind-recursive" => self.recursion(value)?,
            "volume-subpath" => self.volume().subpath = value.to_owned(),
            "volume-nocopy" => self.volume().nocopy = boolean(value).ok_or_else(invalid)?,
            "volume-label" => {
                let (name, value) = pair(value);
                self.volume().labels.insert(name, value);
            }
            "volume-driver" => self.driver().0 = value.to_owned(),
            "volume-opt" => {
                let (name, value) = pair(value);
                self.driver().1.insert(name, value);
            }
            "tmpfs-size" => {
                let bytes: Bytes = value.parse().map_err(|_| invalid())?;
                self.tmpfs.get_or_insert_default().size = bytes.0;
            }
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8).map_err(|_| invalid())?;
                self.tmpfs.get_or_insert_default().mode = Some(mode);
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
        Ok(())
    }

    fn bind(&mut self) -> &mut Bind {
        self.bind.get_or_insert_default()
    }

    fn volume(&mut self) -> &mut Volume {
        self.volume.get_or_insert_default()
    }

    fn driver(&mut self) -> &mut (String, BTreeMap<String, String>) {
        self.volume().driver.get_or_insert_default()
    }

    fn recursion(&mut self, value: &str) -> Result<(), String> {
        let bind = self.bind();
        match value {
            "enabled" => {}
            "disabled" => bind.not_recursive = true,
            "writable" => bind.below = Below::Writable,
            "readonly" => bind.below = Below::Forced,
            _ => {
                return Err(format!(
                    "invalid value for bind-recursive: {value} (must be \"enabled\", \"disabled\", \
                     \"writable\", or \"readonly\")"
                ));
            }
        }
        Ok(())
    }

    /// What Docker's client refuses, then what its engine does.
    fn check(self) -> Result<MountFlag, String> {
        let word = self.kind.as_deref().unwrap_or("volume");
        if word.is_empty() {
            return Err("type is required".to_owned());
        }
        let Some(typed_target) = self.target.filter(|target| !target.is_empty()) else {
            return Err("target is required".to_owned());
        };
        for (given, prefix) in [
            (self.volume.is_some(), "volume"),
            (self.bind.is_some(), "bind"),
            (self.tmpfs.is_some(), "tmpfs"),
        ] {
            if given && prefix != word {
                return Err(format!(
                    "cannot mix '{prefix}-*' options with mount type '{word}'"
                ));
            }
        }
        let config = |why: &str| format!("invalid mount config for type {word:?}: {why}");
        let kind = match word {
            "bind" => Kind::Bind,
            "volume" => Kind::Volume,
            "tmpfs" => Kind::Tmpfs,
            _ => return Err(config("mount type unknown")),
        };
        if let Some(bind) = &self.bind {
            together(bind, self.read_only)?;
        }
        let target = target(&typed_target).map_err(|why| config(&why))?;
        let flag = MountFlag {
            kind,
            source: self.source,
            typed_target,
            target,
            read_only: self.read_only,
            consistency: self.consistency,
            bind: self.bind,
            volume: self.volume,
            tmpfs: self.tmpfs,
        };
        flag.check_source().map_err(|why| config(&why))?;
        if let Some(name) = flag.name() {
            check_name(name).map_err(|why| format!("create {name}: {why}"))?;
        }
        Ok(flag)
    }
}

/// What a way to be recursive needs beside it.
fn together(bind: &Bind, read_only: bool) -> Result<(), String> {
    let needs = |word: &str, what: &str| {
        Err(format!(
            "option 'bind-recursive={word}' requires '{what}' to be specified in conjunction"
        ))
    };
    match bind.below {
        Below::Writable if !read_only => needs("writable", "readonly"),
        Below::Forced if !read_only => needs("readonly", "readonly"),
        Below::Forced if bind.propagation != "rprivate" => {
            needs("readonly", "bind-propagation=rprivate")
        }
        _ => Ok(()),
    }
}

fn deprecated() -> String {
    "bind-nonrecursive is deprecated, use bind-recursive=disabled instead".to_owned()
}

/// As Go's `strconv.ParseBool`.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), value.to_owned())
}

impl MountFlag {
    fn check_source(&self) -> Result<(), String> {
        match self.kind {
            Kind::Bind => {
                if self.source.is_empty() {
                    return Err("field Source must not be empty".to_owned());
                }
                let word = self.bind.as_ref().map_or("", |bind| &bind.propagation);
                if !word.is_empty() && propagation(word).is_none() {
                    return Err(format!("invalid propagation mode: {word}"));
                }
                if !self.source.starts_with('/') && !is_relative(&self.source) {
                    return Err(format!(
                        "invalid mount path: '{}' mount path must be absolute",
                        self.source
                    ));
                }
                Ok(())
            }
            Kind::Volume => {
                let anonymous = self.source.is_empty();
                let subpath = self.volume.as_ref().map_or("", |volume| &volume.subpath);
                if !subpath.is_empty() {
                    if anonymous {
                        return Err("must not set Subpath when using anonymous volumes".to_owned());
                    }
                    let inside = |name: &str| name != "..";
                    if subpath.starts_with('/') || !subpath.split('/').all(inside) {
                        return Err("subpath must be a relative path within the volume".to_owned());
                    }
                }
                match self.read_only && anonymous {
                    true => {
                        Err("must not set ReadOnly mode when using anonymous volumes".to_owned())
                    }
                    false => Ok(()),
                }
            }
            Kind::Tmpfs if !self.source.is_empty() => {
                Err("field Source must not be specified".to_owned())
            }
            Kind::Tmpfs => Ok(()),
        }
    }

    /// What it mounts.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// It mounts what it says read-only.
    #[must_use]
    pub const fn read_only(&self) -> bool {
        self.read_only
    }

    /// The path of the host that it mounts, if it is a bind mount.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        (self.kind == Kind::Bind).then_some(&*self.source)
    }

    fn name(&self) -> Option<&str> {
        let named = self.kind == Kind::Volume && !self.source.is_empty();
        named.then_some(&*self.source)
    }

    /// The same with a relative path made absolute, as Docker's client does it.
    #[must_use]
    pub fn resolved(mut self, directory: &Path) -> Self {
        if self.kind == Kind::Bind && is_relative(&self.source) {
            self.source = super::volume::absolute(&self.source, directory);
        }
        self
    }

    /// In place of the path, this one.
    pub fn set_path(&mut self, path: String) {
        self.source = path;
    }

    /// Where it is mounted, cleaned.
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// The tmpfs, if it is one.
    pub(super) fn tmpfs(&self) -> Option<TmpfsMount> {
        if self.kind != Kind::Tmpfs {
            return None;
        }
        let mut options = Vec::new();
        let tmpfs = self.tmpfs.unwrap_or_default();
        if self.read_only {
            options.push("ro".to_owned());
        }
        if tmpfs.size > 0 {
            options.push(format!("size={}", tmpfs.size));
        }
        if let Some(mode) = tmpfs.mode.filter(|mode| *mode != 0) {
            options.push(format!("mode={mode:o}"));
        }
        Some(TmpfsMount {
            path: self.target.clone(),
            options: options.join(","),
        })
    }

    /// The mount, if it is no tmpfs.
    pub(super) fn mount(&self, outside: bool) -> Option<ContainerMount> {
        let common = ContainerMount {
            read_only: self.read_only,
            ..ContainerMount::anonymous(self.target.clone(), None)
        };
        match self.kind {
            Kind::Tmpfs => None,
            Kind::Bind => {
                let bind = self.bind.clone().unwrap_or_default();
                Some(ContainerMount {
                    source: Source::Bind {
                        path: clean(&self.source),
                        outside,
                        make: false,
                    },
                    recursive: !bind.not_recursive,
                    below: bind.below,
                    propagation: propagation(&bind.propagation).unwrap_or_default(),
                    copy_up: false,
                    ..common
                })
            }
            Kind::Volume => {
                let volume = self.volume.clone().unwrap_or_default();
                let (driver, options) = volume.driver.unwrap_or_default();
                let anonymous = self.source.is_empty();
                Some(ContainerMount {
                    copy_up: !volume.nocopy && volume.subpath.is_empty(),
                    source: Source::Volume(VolumeSource {
                        name: self.source.clone(),
                        anonymous,
                        subpath: clean(&volume.subpath)[1..].to_owned(),
                        make: VolumeMaking {
                            driver,
                            options,
                            labels: volume.labels,
                        },
                    }),
                    mode: "z".to_owned(),
                    ..common
                })
            }
        }
    }

    /// As `HostConfig.Mounts` has it.
    #[must_use]
    pub fn spec(&self) -> MountSpec {
        let bind = self.bind.as_ref().map(|bind| BindOptions {
            propagation: bind.propagation.clone(),
            non_recursive: bind.not_recursive,
            create_mountpoint: false,
            read_only_non_recursive: bind.below == Below::Writable,
            read_only_force_recursive: bind.below == Below::Forced,
        });
        let volume = self.volume.as_ref().map(|volume| VolumeOptions {
            no_copy: volume.nocopy,
            labels: volume.labels.clone(),
            driver_config: volume
                .driver
                .clone()
                .map(|(name, options)| MountDriver { name, options }),
            subpath: volume.subpath.clone(),
        });
        MountSpec {
            kind: self.kind.word().to_owned(),
            source: self.source.clone(),
            target: self.typed_target.clone(),
            read_only: self.read_only,
            consistency: self.consistency.clone(),
            bind_options: bind,
            volume_options: volume,
            tmpfs_options: self.tmpfs.map(|tmpfs| TmpfsOptions {
                size_bytes: tmpfs.size,
                mode: tmpfs.mode.unwrap_or(0),
            }),
        }
    }
}

/// Whether Docker's client makes a source absolute.
fn is_relative(source: &str) -> bool {
    source == "." || source.starts_with("./")
}

/// The name of how a mount spreads, for `inspect`; empty of a volume, as in Docker.
#[must_use]
pub fn shown_propagation(mount: &ContainerMount) -> &'static str {
    match mount.source {
        Source::Bind { .. } => propagation_word(mount.propagation),
        Source::Volume(_) => match mount.propagation {
            Propagation::Rprivate => "",
            other => propagation_word(other),
        },
    }
}
