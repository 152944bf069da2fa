//! `--tmpfs` options, as Docker takes them.

use crate::failure::{failed, setup};
use hullbox_protocol::{Failure, TmpfsMount};
use rustix::mount::MountFlags;
use std::ffi::CString;

/// Options that become mount flags: the name, the flags it sets, those it clears.
const FLAGS: [(&str, MountFlags, MountFlags); 16] = [
    ("ro", MountFlags::RDONLY, NONE),
    ("rw", NONE, MountFlags::RDONLY),
    ("noexec", MountFlags::NOEXEC, NONE),
    ("exec", NONE, MountFlags::NOEXEC),
    ("nosuid", MountFlags::NOSUID, NONE),
    ("suid", NONE, MountFlags::NOSUID),
    ("nodev", MountFlags::NODEV, NONE),
    ("dev", NONE, MountFlags::NODEV),
    ("noatime", MountFlags::NOATIME, NONE),
    ("atime", NONE, MountFlags::NOATIME),
    ("nodiratime", MountFlags::NODIRATIME, NONE),
    ("diratime", NONE, MountFlags::NODIRATIME),
    ("relatime", MountFlags::RELATIME, NONE),
    ("strictatime", MountFlags::STRICTATIME, NONE),
    ("sync", MountFlags::SYNCHRONOUS, NONE),
    ("async", NONE, MountFlags::SYNCHRONOUS),
];
const NONE: MountFlags = MountFlags::empty();

/// What mount(2) takes.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    flags: MountFlags,
    data: String,
    mode: bool,
}

fn parse(options: &str) -> Result<Options, Failure> {
    let mut parsed = Options {
        flags: MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        data: String::new(),
        mode: false,
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        if let Some((_, set, clear)) = FLAGS.iter().find(|(name, ..)| *name == option) {
            parsed.flags = (parsed.flags | *set) - *clear;
            continue;
        }
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        if value.is_empty() || !TmpfsMount::OWN_OPTIONS.contains(&name) {
            return Err(setup(format_args!("invalid tmpfs option \"{option}\"")));
        }
        parsed.mode |= name == "mode";
        if !parsed.data.is_empty() {
            parsed.data.push(',');
        }
        parsed.data.push_str(option);
    }
    Ok(parsed)
}

/// Mounts one, in the container's own root.
pub(super) fn mount(mount: &TmpfsMount) -> Result<(), Failure> {
    let path = mount.path.as_str();
    let what = || format!("cannot mount a tmpfs at {path}");
    if !path.starts_with('/') {
        return Err(setup(format_args!("{}: the path must be absolute", what())));
    }
    let mut options = parse(&mount.options)?;
    let before = rustix::fs::stat(path).ok();
    crate::paths::make_directories(path).map_err(failed(what()))?;
    if let Some(stat) = before.filter(|_| !options.mode) {
        // As Docker's runtime: what is hidden lends its mode.
        let comma = if options.data.is_empty() { "" } else { "," };
        let mode = stat.st_mode & 0o7777;
        options.data = format!("{}{comma}mode={mode:o}", options.data);
    }
    let data = CString::new(options.data).map_err(|_| setup(what()))?;
    rustix::mount::mount("tmpfs", path, "tmpfs", options.flags, &*data).map_err(failed(what()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_defaults_and_words() {
        let default = parse("").unwrap();
        let base = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        assert_eq!((default.flags, &*default.data), (base, ""));
        let parsed = parse("rw,exec,size=64m,mode=1770,uid=5,noatime").unwrap();
        assert_eq!(
            parsed.flags,
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME
        );
        assert_eq!(parsed.data, "size=64m,mode=1770,uid=5");
        assert!(parsed.mode);
        for bad in ["size", "size=", "bogus", "source=/x", "x=y", "noexec=1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
