//! What of a container is made before anything is known of it: its control group, guarded, and in
//! that the process that becomes its workload, with everything mounted that depends on no image.
//!
//! A template is saved with it, so that its guests pay for none of this. It is an ordinary container
//! that is prepared; for any other it is thrown away and made anew.

use super::cgroup::{self, Cgroup, Hierarchy};
use super::ways::Workload;
use super::{confine, mounts};
use crate::failure::failed;
use crate::process::{Handed, Orders, Own, Zygote};
use crate::sys;
use hullbox_protocol::{Access, Failure, ProcessSpec, Setup};
use hullbox_session::children::Spawned;

/// Bit of a mask of capabilities.
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// See the module.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) cgroup: Cgroup,
    zygote: Zygote,
}

/// Whether a process may mount file systems of the kernel's own, and so comes by the kernel's
/// parameters anyway, as in Docker.
pub(super) fn may_mount(spec: &ProcessSpec) -> bool {
    let mask = spec.capabilities;
    mask.is_none_or(|mask| mask & CAP_SYS_ADMIN != 0)
}

impl Prepared {
    /// For an ordinary container.
    pub(super) fn usual(hierarchy: &Hierarchy) -> Result<Self, Failure> {
        Self::new(hierarchy, &Access::default(), false)
    }

    /// For a container with such access.
    fn new(hierarchy: &Hierarchy, access: &Access, may_mount: bool) -> Result<Self, Failure> {
        // Whoever mounts a /proc in a user namespace needs one in sight of the kernel: see
        // [`confine`]. The zygote has the agent's, below its own root.
        cgroup::mount_proc().map_err(failed("cannot mount /proc"))?;
        let cgroup = Cgroup::create()?;
        // It opens no disk: the agent puts its root together.
        hierarchy.guard(&cgroup, access, may_mount)?;
        let zygote = Zygote::fork(cgroup.fd(), |own| live(own, access))?;
        Ok(Self { cgroup, zygote })
    }

    /// This one if it will do, or else another.
    pub(super) fn for_container(
        this: Option<Self>,
        hierarchy: &Hierarchy,
        access: &Access,
        may_mount: bool,
    ) -> Result<Self, Failure> {
        match this {
            Some(this) if is_usual(access) && !may_mount && this.zygote.is_alive() => Ok(this),
            other => {
                other.map_or(Ok(()), Self::discard)?;
                Self::new(hierarchy, access, may_mount)
            }
        }
    }

    /// Does without it; leaves no control group.
    pub(super) fn discard(self) -> Result<(), Failure> {
        self.zygote.discard();
        self.cgroup.remove()
    }

    /// Has it become the workload, in this root and, without an interface, in this network namespace.
    pub(super) fn order(
        self,
        setup: &Setup,
        spec: &ProcessSpec,
        handed: &Handed<'_>,
    ) -> Result<(Cgroup, Spawned), Failure> {
        let spawned = self.zygote.order(setup, spec, handed)?;
        Ok((self.cgroup, spawned))
    }
}

/// Whether an ordinary container has such access.
fn is_usual(access: &Access) -> bool {
    let special = access.privileged || access.manages_cgroups || access.sees_all_cgroups;
    let devices = !access.devices.is_empty() || !access.device_rules.is_empty();
    !special && !devices && confine::has_usual_paths(access)
}

/// The zygote's life. Returns only when it does not become a program.
fn live(own: &Own, access: &Access) -> Result<(), Failure> {
    own.detach()?;
    if !access.sees_all_cgroups {
        sys::unshare_cgroup().map_err(failed("cannot unshare the control group"))?;
    }
    mounts::stage(access)?;
    let confined = confine::has_usual_paths(access);
    if confined {
        confine::confine(access, mounts::STAGE)?;
    }
    let names = mounts::Names::prepare()?;
    let Some(orders) = own.receive()? else {
        return Ok(());
    };
    let Orders {
        setup,
        spec,
        root,
        network,
        files,
        pipes,
    } = orders;
    let workload = Workload {
        setup: &setup,
        root,
        network,
        files,
        names,
        confined,
    };
    Err(own.become_program(&spec, pipes, &workload))
}
