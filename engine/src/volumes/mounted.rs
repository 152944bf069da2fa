//! File systems that are volumes: `--opt type=tmpfs`, `nfs` and the like.
//!
//! As with Docker they are mounted on the host, where the volume's directory is, while a container has
//! them. There is no daemon that would unmount them with the last container: that is done before the next
//! one, which so finds a fresh one, and when the volume is removed.

use super::VolumesError;
use crate::state::VolumeRecord;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, unmount as unmount_at};
use std::ffi::CString;
use std::io;
use std::net::ToSocketAddrs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Mounts a volume's file system (type, device, options), unless another container has it mounted.
pub(super) fn mount(
    record: &VolumeRecord,
    (kind, device, options): (&str, &str, &str),
    in_use: bool,
) -> Result<(), VolumesError> {
    let on = record.data();
    if in_use && is_mounted(&on) {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err(VolumesError::NotRoot(record.name.clone()));
    }
    unmount(record);
    let failed = |source: io::Error| VolumesError::Mount {
        name: record.name.clone(),
        device: device.to_owned(),
        on: on.clone(),
        source,
    };
    let (flags, data) = words(options, kind).map_err(failed)?;
    let data = CString::new(data).map_err(|error| failed(error.into()))?;
    let mounted = rustix::mount::mount(device, &on, kind, flags, data.as_c_str());
    mounted.map_err(|errno: Errno| failed(errno.into()))
}

/// Unmounts what is mounted for a volume, however often.
pub(super) fn unmount(record: &VolumeRecord) {
    let on = record.data();
    // A bound: somebody else may mount there without pause.
    for _ in 0..64 {
        if !is_mounted(&on) || unmount_at(&on, UnmountFlags::DETACH).is_err() {
            return;
        }
    }
}

/// Whether a directory is on another file system than the one that it lies in.
fn is_mounted(path: &Path) -> bool {
    let device = |path: &Path| std::fs::symlink_metadata(path).map(|found| found.dev());
    match (device(path), path.parent().map(device)) {
        (Ok(here), Some(Ok(above))) => here != above,
        _ => false,
    }
}

/// Flags of mount(2), and what is left for the file system. The address of a server that is named is looked
/// up: the kernel cannot.
fn words(options: &str, kind: &str) -> io::Result<(MountFlags, String)> {
    let mut flags = MountFlags::empty();
    let mut data: Vec<String> = Vec::new();
    for word in options.split(',').filter(|word| !word.is_empty()) {
        match word {
            "rw" | "defaults" | "auto" | "noauto" => {}
            "ro" => flags |= MountFlags::RDONLY,
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            "noatime" => flags |= MountFlags::NOATIME,
            "nodiratime" => flags |= MountFlags::NODIRATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            "strictatime" => flags |= MountFlags::STRICTATIME,
            word => match word.strip_prefix("addr=") {
                Some(host) if kind.starts_with("nfs") || kind == "cifs" => {
                    let mut found = (host, 0).to_socket_addrs()?;
                    let address = found.next().ok_or(io::ErrorKind::NotFound)?;
                    data.push(format!("addr={}", address.ip()));
                }
                _ => data.push(word.to_owned()),
            },
        }
    }
    Ok((flags, data.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_flags_or_the_file_systems_own() {
        let (flags, data) = words("ro,size=1m,nosuid,rw,mode=700", "tmpfs").unwrap();
        assert_eq!(flags, MountFlags::RDONLY | MountFlags::NOSUID);
        assert_eq!(data, "size=1m,mode=700");
        let (_, data) = words("addr=127.0.0.1,rw", "nfs").unwrap();
        assert_eq!(data, "addr=127.0.0.1");
        let (_, data) = words("addr=x", "tmpfs").unwrap();
        assert_eq!(data, "addr=x");
    }
}
