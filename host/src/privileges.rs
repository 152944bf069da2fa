//! What a process gives up before it talks with somebody who may be hostile.

use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Gid, Resource, Rlimit, Uid, getrlimit, set_dumpable_behavior, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

/// User and group that own nothing (`nobody`, `nogroup`), as the kernel has them for what it cannot map.
pub const NOBODY: u32 = 65534;

/// Which user a process goes on as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoOnAs {
    /// Whoever it was.
    Itself,
    /// [`NOBODY`], if it is root and its user namespace knows that user. The kernel forgets the
    /// parent's death signal over it.
    Nobody,
}

/// Leaves no capability to this thread, which should be the only one, nor to a program that it starts.
///
/// # Errors
/// Failure of `prctl` or `capset`.
pub fn give_up_privileges(user: GoOnAs) -> Result<(), Errno> {
    set_no_new_privs(true)?;
    if rustix::process::geteuid().is_root() {
        limit_bounding_set(CapabilitySet::empty())?;
        if user == GoOnAs::Nobody {
            become_nobody();
        }
    }
    keep_capabilities(CapabilitySet::empty())
}

/// Keeps these capabilities of those that this thread has. A program that it starts gets none of them by
/// itself.
///
/// # Errors
/// Failure of `capset`.
pub fn keep_capabilities(kept: CapabilitySet) -> Result<(), Errno> {
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )
}

/// No program that this thread starts gets any other capability than these.
///
/// # Errors
/// Failure of `prctl`.
pub fn limit_bounding_set(kept: CapabilitySet) -> Result<(), Errno> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Past the kernel's last one.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Each step takes what the next one gives up. Where the user is not known the rest is given up all
/// the same.
fn become_nobody() {
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    let _ = set_thread_groups(&[])
        .and_then(|()| set_thread_res_gid(group, group, group))
        .and_then(|()| set_thread_res_uid(user, user, user));
}

/// Nobody but root may look into this process, and it leaves no core.
pub fn be_opaque() {
    // An older kernel's refusal leaves it as it was.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, none);
}

/// As many descriptors as may be.
pub fn more_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // With fewer it works as well, up to a point.
    let _ = setrlimit(Resource::Nofile, limit);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::geteuid;

    #[test]
    fn root_becomes_nobody_without_capabilities() {
        if !geteuid().is_root() {
            eprintln!("skipped: not root");
            return;
        }
        // It changes the calling thread alone.
        let thread = std::thread::spawn(|| {
            give_up_privileges(GoOnAs::Nobody).unwrap();
            std::fs::read_to_string("/proc/thread-self/status").unwrap()
        });
        let status = thread.join().unwrap();
        let line = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace()
                .skip(1)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(line("Uid:"), "65534 65534 65534 65534");
        assert_eq!(line("Gid:"), "65534 65534 65534 65534");
        assert_eq!(line("Groups:"), "");
        for set in ["CapPrm:", "CapEff:", "CapBnd:", "CapInh:"] {
            assert_eq!(line(set), "0000000000000000", "{set}");
        }
        assert_eq!(line("NoNewPrivs:"), "1");
    }
}
