//! Becoming the user that the process is to run as.

use crate::failure::{failed, setup};
use crate::sys;
use hullbox_protocol::{Failure, ProcessSpec, UserSpec};
use hullbox_session::user;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{self, CapabilitySet, CapabilitySets};

/// Longest passwd or group file that is read, in bytes.
const MAX_FILE: usize = 16 * 1024 * 1024;
/// One more than the highest capability that this program knows of; the kernel refuses
/// those that it does not.
const CAPABILITIES: u32 = 64;

pub(super) use user::Identity;

/// Resolves the user in the files of the root that the process is in by now.
pub(super) fn resolve(spec: &UserSpec) -> Result<Identity, Failure> {
    match spec {
        UserSpec::Named {
            user,
            additional_groups,
        } => {
            let passwd = read("/etc/passwd")?;
            let group = read("/etc/group")?;
            user::resolve(user, additional_groups, &passwd, &group).map_err(setup)
        }
        UserSpec::Ids { uid, gid, groups } => Ok(Identity {
            uid: *uid,
            gid: *gid,
            groups: groups.clone(),
            // Who resolved the ids has decided about the environment as well.
            home: Vec::new(),
        }),
    }
}

/// A file of the image. An absent one is empty; one that is no file, or too long, is an error
/// rather than an endless read.
fn read(path: &str) -> Result<Vec<u8>, Failure> {
    let what = || format!("cannot read the image's {path}");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
        Err(errno) => return Err(failed(what())(errno)),
    };
    let stat = rustix::fs::fstat(&file).map_err(failed(what()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(setup(format_args!("{}: not a regular file", what())));
    }
    let mut bytes = Vec::new();
    loop {
        bytes.reserve(4096);
        let buffer = rustix::buffer::spare_capacity(&mut bytes);
        if rustix::io::read(&file, buffer).map_err(failed(what()))? == 0 {
            return Ok(bytes);
        }
        if bytes.len() > MAX_FILE {
            return Err(setup(format_args!("{}: it is too long", what())));
        }
    }
}

/// Takes on groups, ids, capabilities and a filter of system calls; the last thing that needs root.
pub(super) fn become_user(
    identity: &Identity,
    spec: &ProcessSpec,
    filter: Option<&[u8]>,
) -> Result<(), Failure> {
    let root = identity.uid == 0;
    let install = || {
        let installed = filter.map_or(Ok(()), sys::filter_system_calls);
        installed.map_err(failed("cannot install the seccomp filter"))
    };
    // It takes privileges, or that no more can be had.
    if !spec.no_new_privileges {
        install()?;
    }
    let capabilities = spec.capabilities.filter(|_| !spec.privileged);
    if let Some(mask) = capabilities {
        drop_from_bounding_set(mask)?;
    }
    let groups: Vec<_> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    thread::set_thread_groups(&groups).map_err(failed("cannot set groups"))?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    thread::set_thread_res_gid(gid, gid, gid).map_err(failed("cannot set the group id"))?;
    thread::set_thread_res_uid(uid, uid, uid).map_err(failed("cannot set the user id"))?;
    // The kernel takes a user's capabilities away with the id; root keeps its own. So that
    // already looking for the program happens with the rights the program will have:
    if root && let Some(mask) = capabilities {
        let now = thread::capabilities(None).map_err(failed("cannot read capabilities"))?;
        let kept = now.permitted & CapabilitySet::from_bits_retain(mask);
        let sets = CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        };
        thread::set_capabilities(None, sets).map_err(failed("cannot set capabilities"))?;
    }
    if spec.no_new_privileges {
        thread::set_no_new_privs(true).map_err(failed("cannot set no_new_privs"))?;
        install()?;
    }
    Ok(())
}

fn drop_from_bounding_set(mask: u64) -> Result<(), Failure> {
    for number in (0..CAPABILITIES).filter(|number| mask >> number & 1 == 0) {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Past the kernel's last one.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(failed("cannot drop capabilities")(errno)),
        }
    }
    Ok(())
}
