//! Being copied while the workload runs, and going on as the copy.
//!
//! The host asks for rest, saves the guest and has this one go on. In a copy everything is as it
//! was then but for the connection, which ends: so a copy knows what it is. It dials its own host,
//! takes on an identity of its own, and only then lets the workload run.

use super::cgroup::mount_proc;
use super::dial::{dial, wait_connected};
use super::{Agent, WORKLOAD, identity, machine_id, mounts, rootfs};
use crate::failure::{failed, setup as setup_failure};
use hullbox_protocol::{Failure, Frame, Hello, Hygiene, PROTOCOL_VERSION, Reply, Started};
use hullbox_session::cgroup;
use hullbox_session::children::uptime_us;
use hullbox_session::connection::ConnectionError;
use hullbox_session::server::Pump;
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;
use std::os::fd::OwnedFd;
use std::time::Instant;

impl Agent {
    /// Comes to rest. A copy must not run the workload before it is one of its own kind.
    pub(super) fn suspend(&mut self) -> Reply {
        let runs = self.sessions.is_running(WORKLOAD) && !self.finishing && self.stop.is_none();
        let container = self.container.as_mut().filter(|c| runs && c.program);
        let Some(container) = container else {
            return Reply::Failed("the container is not running".to_owned());
        };
        if let Some(Err(errno)) = container.writable.as_ref().map(rootfs::Writable::sync_mark) {
            return Reply::Failed(format!("the writable layer cannot be synced: {errno}"));
        }
        let was_frozen = container.cgroup.frozen;
        if !was_frozen && let Err(why) = cgroup::freeze(container.cgroup.fd(), true) {
            return Reply::Failed(why);
        }
        container.cgroup.frozen = true;
        self.copies.suspended = Some(was_frozen);
        self.pump.keep_sessions(true);
        Reply::Done
    }

    /// Goes on as before.
    pub(super) fn resume(&mut self) -> Reply {
        let (Some(was_frozen), Some(container)) =
            (self.copies.suspended.take(), &mut self.container)
        else {
            return Reply::Failed("the container is not suspended".to_owned());
        };
        self.pump.keep_sessions(false);
        if !was_frozen {
            if let Err(why) = cgroup::freeze(container.cgroup.fd(), false) {
                return Reply::Failed(why);
            }
            container.cgroup.frozen = false;
        }
        Reply::Done
    }

    /// The connection has ended at rest: this is a copy. Dials its host.
    pub(super) fn begin_as_copy(&mut self) -> Result<(), ConnectionError> {
        self.copies.suspended = None;
        // Of the other processes' clients none is here.
        self.sessions.abandon_others(WORKLOAD);
        self.open.clear();
        self.copies.carried = self.pump.carry(WORKLOAD);
        self.setup = None;
        self.dialled = Instant::now();
        let connection = dial()
            .and_then(|connection| wait_connected(&connection).map(|()| connection))
            .map_err(|why| ConnectionError::Io(std::io::Error::other(why)))?;
        self.pump = Pump::new(connection)?;
        self.pump.send(&Frame::Hello(Hello {
            version: PROTOCOL_VERSION,
            uptime_us: uptime_us(),
        }))
    }

    /// The workload's second beginning.
    pub(super) fn go_on_as_copy(&mut self) -> Result<(), ConnectionError> {
        let Some(carried) = self.copies.carried.take() else {
            return Ok(());
        };
        let has_machine_id = match self.identify() {
            Ok(has_machine_id) => has_machine_id,
            Err(failure) => return self.pump.fail(WORKLOAD, failure),
        };
        let pid = self.sessions.pid(WORKLOAD);
        let pid = pid.map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
        let done = self.done(true);
        let started = Started {
            pid,
            uptime_us: uptime_us(),
            rooted_us: 0,
            hygiene: Hygiene {
                machine_id_replaced: done.machine_id_replaced && has_machine_id,
                ..done
            },
        };
        self.pump.started(WORKLOAD, started)?;
        self.pump.adopt(WORKLOAD, carried);
        Ok(())
    }

    /// Takes on the copy's own names and lets the workload run. Whether its machine id is the copy's.
    fn identify(&mut self) -> Result<bool, Failure> {
        let workload = self.sessions.pid(WORKLOAD);
        let (Some(setup), Some(container)) = (&self.setup, &mut self.container) else {
            return Err(setup_failure("no Setup before Exec"));
        };
        self.reseeded.clone()?;
        identity::forget_boot_id()?;
        if !setup.hostname.is_empty() {
            rustix::system::sethostname(setup.hostname.as_bytes())
                .map_err(failed("cannot set the host name"))?;
        }
        mounts::rewrite_names(setup)?;
        let isolated = container.isolated.as_mut();
        container
            .interfaces
            .begin_anew(&setup.interfaces, isolated)?;
        let has_machine_id = match workload {
            // Written into the container's own file; what an init system has read of it, it keeps until
            // it reads it again.
            Some(pid) if setup.access.runs_systemd && !setup.machine_id.is_empty() => {
                machine_id::write(root_of(pid)?, &setup.machine_id)?
            }
            _ => true,
        };
        cgroup::freeze(container.cgroup.fd(), false).map_err(setup_failure)?;
        container.cgroup.frozen = false;
        Ok(has_machine_id)
    }
}

/// The root directory of a process of the container.
fn root_of(pid: Pid) -> Result<OwnedFd, Failure> {
    let what = || failed("cannot open the container's root");
    mount_proc().map_err(what())?;
    let path = format!("/proc/{}/root", pid.as_raw_nonzero());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(what())
}
