//! The options of a volume: those of Docker's driver `local`, and a disk of its own.

use crate::units::Bytes;
use std::collections::BTreeMap;

/// The driver that there is.
pub const DRIVER: &str = "local";
/// The file system of a disk of its own.
const DISK: &str = "ext4";
/// The least size of a disk, in bytes.
const MIN_DISK: u64 = 1 << 20;
/// The most: what the empty disk has.
const MAX_DISK: u64 = 16 << 30;

/// What holds a volume's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backing {
    /// A directory of the data directory.
    Directory,
    /// A directory of the host (`type=none,o=bind`).
    Bind {
        /// Absolute path.
        path: String,
    },
    /// A file system that is mounted while a container has it.
    FileSystem {
        /// Its type.
        kind: String,
        /// What it is on.
        device: String,
        /// Options of mount(8).
        options: String,
    },
    /// A disk of its own (`type=ext4` without a device).
    Disk {
        /// Bytes of files that it holds.
        bytes: u64,
    },
}

/// Whether a volume is a disk of its own.
#[must_use]
pub fn is_disk(options: &BTreeMap<String, String>) -> bool {
    options.get("type").is_some_and(|kind| kind == DISK) && !options.contains_key("device")
}

/// What options mean.
///
/// # Errors
/// Docker's words, where it has some.
pub fn backing(options: &BTreeMap<String, String>) -> Result<Backing, String> {
    for name in options.keys() {
        if !["type", "o", "device", "size"].contains(&name.as_str()) {
            return Err(format!("invalid option: {name:?}"));
        }
    }
    let get = |name: &str| options.get(name).filter(|value| !value.is_empty());
    if is_disk(options) {
        if get("o").is_some() {
            return Err("a volume with a disk of its own has no mount options (o)".to_owned());
        }
        let Some(size) = get("size") else {
            return Err("missing required option: \"size\"".to_owned());
        };
        let bytes: Bytes = size
            .parse()
            .map_err(|why| format!("invalid size {size:?}: {why}"))?;
        return match bytes.0 {
            MIN_DISK..=MAX_DISK => Ok(Backing::Disk { bytes: bytes.0 }),
            _ => Err(format!("invalid size {size:?}: a disk has 1m to 16g")),
        };
    }
    if get("size").is_some() {
        return Err(
            "quota size requested but no quota support (a volume with a size is one of type=ext4)"
                .to_owned(),
        );
    }
    let (kind, device, o) = (get("type"), get("device"), get("o"));
    // As Docker: whoever says one has to say the others.
    match (kind, device, o) {
        (None, None, None) => Ok(Backing::Directory),
        (None, ..) => Err("missing required option: \"type\"".to_owned()),
        (_, None, _) => Err("missing required option: \"device\"".to_owned()),
        (Some(kind), Some(device), o) => {
            let o = o.map_or("", String::as_str);
            let bind = o.split(',').any(|word| word == "bind" || word == "rbind");
            if !bind {
                return Ok(Backing::FileSystem {
                    kind: kind.clone(),
                    device: device.clone(),
                    options: o.to_owned(),
                });
            }
            if !device.starts_with('/') {
                return Err(format!(
                    "the device of a bind must be an absolute path: {device}"
                ));
            }
            Ok(Backing::Bind {
                path: super::clean(device),
            })
        }
    }
}

/// A disk's new options, with another size.
///
/// # Errors
/// It is none, or the size is less than it was.
pub fn grown(
    options: &BTreeMap<String, String>,
    size: &str,
) -> Result<BTreeMap<String, String>, String> {
    let Backing::Disk { bytes: before } = backing(options)? else {
        return Err("only a volume with a disk of its own (type=ext4) has a size".to_owned());
    };
    let mut options = options.clone();
    options.insert("size".to_owned(), size.to_owned());
    match backing(&options)? {
        Backing::Disk { bytes } if bytes < before => Err(format!(
            "a disk cannot be made smaller: it has {before} bytes"
        )),
        _ => Ok(options),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split(' ').filter_map(|pair| pair.split_once(':'));
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn options_say_what_holds_the_files() {
        assert_eq!(backing(&options("")), Ok(Backing::Directory));
        assert_eq!(
            backing(&options("type:none o:bind device:/srv//x/")),
            Ok(Backing::Bind {
                path: "/srv/x".to_owned()
            })
        );
        assert_eq!(
            backing(&options("type:ext4 size:100m")),
            Ok(Backing::Disk { bytes: 100 << 20 })
        );
        assert_eq!(
            backing(&options("type:tmpfs device:tmpfs o:size=1m,uid=5")),
            Ok(Backing::FileSystem {
                kind: "tmpfs".to_owned(),
                device: "tmpfs".to_owned(),
                options: "size=1m,uid=5".to_owned()
            })
        );
        // A device of the host's that happens to have ext4 is no disk of ours.
        assert!(!is_disk(&options("type:ext4 device:/dev/sdb1")));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, part) in [
            ("foo:bar", "invalid option: \"foo\""),
            ("type:tmpfs", "missing required option: \"device\""),
            ("device:tmpfs", "missing required option: \"type\""),
            ("o:bind device:/x", "missing required option: \"type\""),
            ("type:none o:bind device:x", "must be an absolute path"),
            ("size:1m", "no quota support"),
            ("type:ext4", "missing required option: \"size\""),
            ("type:ext4 size:1k", "1m to 16g"),
            ("type:ext4 size:17g", "1m to 16g"),
            ("type:ext4 size:much", "invalid size"),
            ("type:ext4 size:1m o:ro", "no mount options"),
        ] {
            let why = backing(&options(text)).unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        }
    }

    #[test]
    fn a_disk_grows() {
        let before = options("type:ext4 size:10m");
        assert_eq!(grown(&before, "1g").unwrap()["size"], "1g");
        assert!(grown(&before, "9m").unwrap_err().contains("smaller"));
        assert!(grown(&options(""), "9m").unwrap_err().contains("type=ext4"));
    }
}
