//! In the helper machine: files of the host outside.
//!
//! ```text
//! helper machine                                            host
//! VMM's device ═════════════ vsock, port 1028 ═════════════ __files --granted FILE
//! processes ─ /dev/fuse ─ __files --relay ══ vsock ══════════ __files --granted FILE
//! ```
//!
//! The host's process serves what a user named in a command, and nothing else: see [`crate::grant`].

use crate::ENTRY;
use crate::export::Export;
use crate::hello::{Hello, say};
use crate::launch::{LaunchError, Launcher, Process, Starting};
use crate::relay::RELAY_OPTION;
use hullbox_protocol::MACHINE_FILES_PORT;
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, statx};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// How long the host may take: it starts a process. The machine is emulated.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Has the host serve these exports; a server's stream as if it were here.
///
/// # Errors
/// [`LaunchError::Outside`].
pub fn dial(exports: &[Export]) -> Result<Starting, LaunchError> {
    let connection = hullbox_host::vsock::dial_host(MACHINE_FILES_PORT, ANSWER_LIMIT);
    let here = |export: &Export| Export {
        outside: false,
        ..export.clone()
    };
    let exports: Vec<Export> = exports.iter().map(here).collect();
    ask(connection.map_err(LaunchError::Outside)?, exports)
}

/// The same by a connection that is there.
fn ask(connection: OwnedFd, exports: Vec<Export>) -> Result<Starting, LaunchError> {
    // Whatever its family: what is used of the type is a stream's.
    let connection = UnixStream::from(connection);
    say(&connection, &Hello { exports }).map_err(LaunchError::Outside)?;
    Ok(Starting {
        connection,
        process: None,
    })
}

/// Files of the host, mounted here. When this is dropped, whoever uses them gets errors.
#[derive(Debug)]
pub struct Outside {
    /// A mount that is attached nowhere. In its root each source has its number for a name.
    pub root: OwnedFd,
    /// Between the mount and the stream.
    pub relay: Process,
}

/// Mounts files of the host: paths there, and whether nothing may be changed. Needs root.
///
/// # Errors
/// The host does not serve them, or they cannot be mounted.
pub fn mount(sources: &[(PathBuf, bool)]) -> Result<Outside, LaunchError> {
    let export = |(source, read_only): &(PathBuf, bool)| Export {
        read_only: *read_only,
        ..Export::of(source)
    };
    let exports: Vec<Export> = sources.iter().map(export).collect();
    let relay = Launcher::of("/proc/self/exe", vec![ENTRY.into(), RELAY_OPTION.into()]);
    mount_with(dial(&exports)?, &relay).map(|(outside, _)| outside)
}

/// The same with what a server serves, by a relay that is started so. Gives the server's process, too, if it
/// is here.
///
/// # Errors
/// As of [`mount`].
pub fn mount_with(
    server: Starting,
    relay: &Launcher,
) -> Result<(Outside, Option<Process>), LaunchError> {
    let served = server.finish(ANSWER_LIMIT)?;
    let (root, device) = mount_fuse().map_err(LaunchError::Mount)?;
    let child = relay.spawn(served.connection, Some(device));
    let outside = Outside {
        root,
        relay: Process::of(child.map_err(LaunchError::Start)?),
    };
    // Once something was answered the relay has all that it needs, whatever becomes of its mount namespace.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    statx(&outside.root, c"", flags, StatxFlags::BASIC_STATS)
        .map_err(|errno| LaunchError::Mount(errno.into()))?;
    Ok((outside, served.process))
}

/// A FUSE file system whose requests come from the second descriptor.
fn mount_fuse() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = rustix::fs::open("/dev/fuse", flags, Mode::empty())?;
    let context = fsopen(c"fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let number = device.as_raw_fd().to_string();
    for (key, value) in [
        ("source", "hullbox"),
        ("fd", &number),
        ("rootmode", "40000"),
        ("user_id", "0"),
        ("group_id", "0"),
    ] {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_set_flag(&context, "allow_other")?;
    // The kernel looks at owners and modes: a server looks at nothing but what it can do itself.
    fsconfig_set_flag(&context, "default_permissions")?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    Ok((root, device))
}
