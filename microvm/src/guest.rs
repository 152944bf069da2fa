//! A guest that boots or runs: the microVM backend.

use crate::disks::{OwnDisk, layer_disk};
use crate::error::GuestError;
use crate::files::{Files, volume_disks};
use crate::launch::{Ahead, Spare, cold_because, launch};
use crate::network::{self, CARD};
use crate::shape::{self, GUEST_CID, QUIET, shape};
use crate::snapshots::Work;
use crate::tasks::Tasks;
use crate::templates;
use hullbox_backend::backend::{Backend, BegunFrom, Link, VmUsage};
use hullbox_backend::bundle::{Bundle, GuestSize};
use hullbox_backend::network::Member;
use hullbox_backend::saving::{Description, Saving};
use hullbox_host::clock::wall_clock_ns;
use hullbox_host::error::chain;
use hullbox_host::timing::{Phase, Timing};
use hullbox_protocol::{
    CONTROL_PORT, ENTROPY_BYTES, Failure, FailureKind, Interface, Setup, WritableLayer,
};
use hullbox_vmm::{Outcome, RunningVm, SerialConfig, Vm, VmConfig, VmHandle, VsockConfig};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// A guest that boots or runs.
#[derive(Debug)]
pub struct Guest {
    handle: VmHandle,
    /// Waits for the VM and then writes to `ended`; meanwhile does what it is told with the VM.
    waiter: Option<JoinHandle<Outcome>>,
    tasks: Tasks,
    ended: OwnedFd,
    /// What a copy of it needs to know.
    saved: Saved,
    listener: Option<UnixListener>,
    /// The other ends of what carries its frames.
    members: Vec<OwnedFd>,
    /// The addresses of its interfaces, by the numbers in their names.
    macs: BTreeMap<u8, [u8; 6]>,
    /// Those of its interfaces whose frames nobody carries on.
    down: BTreeSet<u8>,
    warning: Option<String>,
    begun: BegunFrom,
    /// What another guest would need that boots in place of a template's.
    spare: Option<Spare>,
    /// The template was tried in vain.
    useless: bool,
}

/// What is saved with a guest.
#[derive(Debug)]
struct Saved {
    data: PathBuf,
    disk: Option<PathBuf>,
    /// It has both disks, whether there is something behind them or not.
    both_disks: bool,
    /// Nobody reads its serial port.
    silent: bool,
    /// It has files from outside, which change meanwhile.
    has_files: bool,
}

impl Guest {
    /// Starts a guest for the bundle and fills in where the layers lie on its disk, and what makes
    /// it differ from any other that began as the same copy.
    ///
    /// # Errors
    /// [`GuestError`].
    pub fn start(
        bundle: &mut Bundle,
        data: &Path,
        mut ahead: Ahead,
        debug: bool,
        timing: &Timing,
    ) -> Result<Self, GuestError> {
        let files = Files::of(bundle)?;
        let (layers, ranges) = layer_disk(&bundle.layers)?;
        bundle.setup.rootfs.layers = ranges;
        let own_disk = match bundle.setup.rootfs.writable {
            WritableLayer::Disk => Some(OwnDisk::of(bundle, data, ahead.snapshot()?)?),
            WritableLayer::Memory => None,
        };
        bundle.setup.entropy = random::<ENTROPY_BYTES>()?.to_vec();
        let uds_path = bundle.runtime_dir.join("vsock");
        let listener = listen(&uds_path)?;
        let size = GuestSize {
            vcpus: bundle.vcpus,
            memory_mib: bundle.memory_mib,
            disks: volume_disks(&bundle.mounts),
        };
        let mut config = VmConfig::of(shape(size, data)?);
        config.vsock = Some(VsockConfig {
            guest_cid: GUEST_CID,
            uds_path,
        });
        config.net = Some(CARD);
        config.files = Some(shape::files());
        config.serial = match (&bundle.serial_log, debug) {
            (Some(path), _) => SerialConfig::file(path),
            (None, true) => SerialConfig::Stderr,
            (None, false) => SerialConfig::Off,
        };
        if config.serial == SerialConfig::Off {
            QUIET.clone_into(&mut config.cmdline);
        }
        let mut saved = Saved {
            data: data.to_owned(),
            disk: own_disk.as_ref().map(|disk| disk.path.clone()),
            both_disks: false,
            silent: config.serial == SerialConfig::Off,
            has_files: files.are_there(),
        };
        timing.mark(Phase::Disks);
        let (links, members) = network::Links::of(bundle)?;
        let spare = Spare {
            config,
            layers,
            own_disk,
            files,
            links,
            data: data.to_owned(),
        };
        let launched = launch(&mut bundle.setup, spare, ahead, timing)?;
        saved.both_disks = launched.both_disks;
        let watched = watch(launched.running)?;
        Ok(Self {
            handle: watched.handle,
            waiter: Some(watched.waiter),
            tasks: watched.tasks,
            ended: watched.ended,
            saved,
            listener: Some(listener),
            members,
            macs: (0..)
                .zip(bundle.setup.interfaces.iter().map(|one| one.mac))
                .collect(),
            down: BTreeSet::new(),
            warning: launched.warning,
            begun: launched.begun,
            spare: launched.spare,
            useless: launched.useless,
        })
    }

    /// Its interfaces have one card, which has a link as long as one of them has.
    fn show_link(&self) {
        let is_up = |index: &u8| !self.down.contains(index);
        let up = self.macs.is_empty() || self.macs.keys().any(is_up);
        self.handle.set_network_link(up);
    }

    fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.ended, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// How the VM ended, in words, once it has.
    fn join(&mut self) -> String {
        match self.waiter.take().map(JoinHandle::join) {
            // Asked to stop while it ran: then its agent had gone silent.
            Some(Ok(Outcome::Stopped)) => "the guest's agent broke off".to_owned(),
            Some(Ok(outcome)) => format!("the virtual machine {outcome}"),
            Some(Err(_)) => "the virtual machine's thread panicked".to_owned(),
            None => "the virtual machine has ended".to_owned(),
        }
    }

    /// Boots a guest in place of one that was of no use.
    fn boot_instead(
        &mut self,
        mut spare: Spare,
        setup: &mut Setup,
        why: Option<&str>,
    ) -> Result<Link, GuestError> {
        self.handle.stop();
        let words = self.join();
        let why = why.unwrap_or(&words);
        match std::mem::replace(&mut self.begun, BegunFrom::Boot) {
            BegunFrom::Template(id) => {
                self.warning = Some(cold_because(why));
                self.useless = true;
                // One that stays is replaced by the next that is made.
                let _ = templates::discard(&id, &spare.data);
            }
            _ => self.warning = Some(format!("the guest boots a second time: {why}")),
        }
        if let Some(disk) = &spare.own_disk {
            // Whatever went on in there has not touched what the container finds.
            disk.renew(&spare.data)?;
        }
        setup.entropy = random::<ENTROPY_BYTES>()?.to_vec();
        setup.resumed = false;
        setup.wall_clock_ns = wall_clock_ns();
        let vsock = spare.config.vsock.as_ref();
        let listener = listen(vsock.map_or(Path::new(""), |vsock| &vsock.uds_path))?;
        let running = spare.start(Vm::new(spare.booting())?)?;
        let watched = watch(running)?;
        (self.handle, self.waiter) = (watched.handle, Some(watched.waiter));
        (self.tasks, self.ended) = (watched.tasks, watched.ended);
        self.saved.both_disks = false;
        self.down.clear();
        Ok(Link::Awaited(listener))
    }
}

/// A VM that a thread waits for: see [`Guest`].
struct Watched {
    handle: VmHandle,
    waiter: JoinHandle<Outcome>,
    tasks: Tasks,
    ended: OwnedFd,
}

/// Has a thread wait for the VM's end, which can be polled for then.
fn watch(running: RunningVm) -> Result<Watched, GuestError> {
    let ended =
        eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| GuestError::Watch(error.into()))?;
    let signal = ended.try_clone().map_err(GuestError::Watch)?;
    let handle = running.handle();
    let (tasks, inbox) = Tasks::new().map_err(GuestError::Watch)?;
    let waiter = std::thread::Builder::new()
        .name("vm-wait".into())
        .spawn(move || {
            let outcome = inbox.wait(running);
            // An eventfd takes a first 1 without fail.
            let _ = rustix::io::write(&signal, &1u64.to_ne_bytes());
            outcome
        })
        .map_err(GuestError::Watch)?;
    Ok(Watched {
        handle,
        waiter,
        tasks,
        ended,
    })
}

impl Backend for Guest {
    fn link(&mut self) -> io::Result<Link> {
        self.listener
            .take()
            .map(Link::Awaited)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
    }

    fn members(&mut self) -> Vec<Member> {
        self.members.drain(..).map(Member::Packets).collect()
    }

    fn connect(&mut self, index: u8, interface: &Interface) -> Result<Member, String> {
        let (ours, theirs) = network::pair().map_err(|error| error.to_string())?;
        let plugged = self.handle.connect_network(interface.mac, ours);
        plugged.map_err(|error| error.to_string())?;
        self.macs.insert(index, interface.mac);
        self.show_link();
        Ok(Member::Packets(theirs))
    }

    fn disconnect(&mut self, index: u8) -> Result<(), String> {
        let Some(mac) = self.macs.remove(&index) else {
            return Ok(());
        };
        self.down.remove(&index);
        self.show_link();
        let unplugged = self.handle.disconnect_network(mac);
        unplugged.map_err(|error| error.to_string())
    }

    fn set_link(&mut self, index: u8, up: bool) {
        match up {
            true => self.down.remove(&index),
            false => self.down.insert(index),
        };
        self.show_link();
    }

    fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    fn kill(&mut self) {
        self.tasks.cancel_save();
        self.handle.stop();
    }

    fn warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    fn has_own_clock(&self) -> bool {
        true
    }

    fn usage(&self) -> Option<VmUsage> {
        let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
        let bytes = |names: &[&str]| {
            let lines = rollup.lines().filter_map(|line| line.split_once(':'));
            let wanted = lines.filter(|(name, _)| names.contains(name));
            let kib = wanted.map(|(_, value)| value.trim().trim_end_matches(" kB").parse::<u64>());
            kib.flatten().sum::<u64>() * 1024
        };
        let events = self.handle.events();
        Some(VmUsage {
            events: events.map(|(name, count)| (name.to_owned(), count)).into(),
            host_private_bytes: bytes(&["Private_Clean", "Private_Dirty"]),
            host_resident_bytes: bytes(&["Rss"]),
        })
    }

    fn save(&mut self, dir: &Path, about: Description) -> Result<Saving, String> {
        if self.saved.has_files {
            return Err("a container with files from outside cannot be saved".to_owned());
        }
        if !self.saved.silent {
            return Err("a guest whose serial port is read cannot be saved".to_owned());
        }
        let work = Work {
            dir: dir.to_owned(),
            data: self.saved.data.clone(),
            disk: self.saved.disk.clone(),
            about: about.with("both_disks", self.saved.both_disks),
        };
        self.tasks.save(work).map_err(|error| chain(&error))
    }

    fn begun(&self) -> Option<BegunFrom> {
        Some(self.begun.clone())
    }

    fn can_begin_anew(&self) -> bool {
        self.spare.is_some()
    }

    fn begin_anew(
        &mut self,
        setup: &mut Setup,
        why: Option<&str>,
    ) -> Option<Result<Link, Failure>> {
        // One that booted and ended would end again. One that stands still may have lost an interrupt.
        if self.begun == BegunFrom::Boot && self.has_ended() {
            return None;
        }
        let spare = self.spare.take()?;
        let link = self.boot_instead(spare, setup, why);
        Some(link.map_err(|error| Failure {
            kind: FailureKind::Setup,
            message: chain(&error),
        }))
    }

    fn found_useless_template(&self) -> bool {
        self.useless
    }

    fn release(mut self: Box<Self>, orderly: bool) -> String {
        if orderly {
            self.handle.teach();
        }
        // A guest has nothing to finish: what must be on its disk was synced before it said so.
        self.kill();
        if orderly {
            // Nobody asks how it ended, and nobody waits while its memory is given back.
            return String::new();
        }
        self.join()
    }
}

/// Random bytes of the host.
fn random<const LEN: usize>() -> Result<[u8; LEN], GuestError> {
    let mut bytes = [0; LEN];
    let mut filled = 0;
    while filled < LEN {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags)
            .map_err(|errno| GuestError::Random(errno.into()))?;
    }
    Ok(bytes)
}

/// Listens where the VMM connects when the guest dials [`CONTROL_PORT`].
fn listen(uds_path: &Path) -> Result<UnixListener, GuestError> {
    let mut path = uds_path.as_os_str().to_owned();
    path.push(format!("_{CONTROL_PORT}"));
    let path = PathBuf::from(path);
    // Left by an earlier run of the same container.
    for old in [uds_path, &path] {
        match fs::remove_file(old) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                let path = old.to_owned();
                return Err(GuestError::Listen { path, source });
            }
            _ => {}
        }
    }
    UnixListener::bind(&path).map_err(|source| GuestError::Listen { path, source })
}
