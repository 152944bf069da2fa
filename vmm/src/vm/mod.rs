//! A VM from its configuration to its end.

pub(crate) mod ending;
mod foundation;
#[cfg(target_arch = "x86_64")]
pub(crate) mod ioapic;
mod pause;
mod premapping;

pub use foundation::{Foundation, Step};
pub use pause::SaveError;

use crate::arch;
use crate::config::{MAX_CMDLINE_BYTES, SerialConfig, VmConfig};
use crate::devices::{Bus, Devices};
use crate::error::VmError;
use crate::memory::GuestMemory;
use crate::outcome::{Outcome, VmStats};
use crate::snapshot::{Lesson, VmState};
use crate::stats::{Counters, resident_bytes};
use crate::thread::{STOP_LIMIT, Thread};
use crate::vcpu::{Vcpu, VcpuThread};
use crate::virtio::files::Shared;
use crate::virtio::net::Cables;
use crate::worker::{PausedQueues, WorkerThread};
use ending::Ending;
use foundation::{Contents, Parts};
use kvm_ioctls::VmFd;
use premapping::Premapping;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Instant;
use vmm_sys_util::eventfd::EventFd;

/// A VM that is built and has not run an instruction yet.
#[derive(Debug)]
pub struct Vm {
    // NOTE: fields are dropped in order. Virtual CPUs and the VM go before the memory they use.
    vcpus: Vec<Vcpu>,
    devices: Devices,
    vm: Arc<VmFd>,
    memory: GuestMemory,
    first_touched: Vec<(u64, u64)>,
    /// Of a guest that ran before.
    restored: Option<Box<VmState>>,
    lesson: Option<Arc<Lesson>>,
    premapping: Option<Premapping>,
    template: bool,
    counters: Arc<Counters>,
}

impl Vm {
    /// Build a VM. It stays paused until [`Vm::start`].
    ///
    /// # Errors
    /// See [`VmError`]. Nothing is left behind then.
    pub fn new(config: VmConfig) -> Result<Self, VmError> {
        config.check().map_err(VmError::Config)?;
        Self::on(Foundation::new(config.shape.clone())?, config)
    }

    /// Build a VM on what was prepared. If that has another shape than the configuration's, it is
    /// of no use, and another one is made. What was restored needs the devices that were saved, in
    /// their order; what is behind them is the configuration's, and its command line is not used.
    ///
    /// # Errors
    /// See [`VmError`]. Nothing is left behind then.
    pub fn on(foundation: Foundation, config: VmConfig) -> Result<Self, VmError> {
        if foundation.shape() != &config.shape {
            drop(foundation);
            return Self::new(config);
        }
        config.check().map_err(VmError::Config)?;
        let Parts {
            vcpus,
            vm,
            memory,
            next_slot,
            contents,
        } = foundation.into_parts();
        let counters = Arc::new(Counters::default());
        let saved = match &contents {
            Contents::Guest { state, .. } => Some(&state.devices),
            Contents::Kernel { .. } => None,
        };
        let devices = Devices::new(&vm, &memory, &config, next_slot, &counters, saved)?;
        let (first_touched, restored, lesson, premapping) = match contents {
            Contents::Guest {
                state,
                lesson,
                premapping,
            } => (Vec::new(), Some(state), lesson, premapping),
            Contents::Kernel {
                first_touched,
                initramfs,
            } => {
                let cmdline = command_line(&config, &devices.parameters)?;
                let info = arch::BootInfo {
                    cmdline: &cmdline,
                    initramfs,
                    vcpus: config.shape.vcpus.get(),
                };
                arch::write_boot(memory.ram(), &info).map_err(VmError::Boot)?;
                (first_touched, None, None, None)
            }
        };
        Ok(Self {
            vcpus,
            devices,
            vm,
            memory,
            first_touched,
            restored,
            lesson: lesson.map(Arc::new),
            premapping,
            template: config.template,
            counters,
        })
    }

    /// Have the network device pass frames through this socket, of type `SOCK_SEQPACKET`: each is
    /// a message, a virtio-net header of 12 bytes before it. Of several, frames with that source address
    /// pass through this one, and any others through the first. In a VM without a network device, or in a
    /// template, none does.
    ///
    /// # Errors
    /// [`VmError::Setup`]: no more descriptors.
    pub fn connect_network(&self, mac: [u8; 6], socket: OwnedFd) -> Result<(), VmError> {
        let plugged = self.devices.network.plug(mac, socket);
        plugged.map_err(VmError::setup("a network's events"))
    }

    /// Have the file system device pass its messages through this stream socket, to and from whoever
    /// serves the files: FUSE's, one after the other, each as long as its header says. When it ends, the
    /// guest's requests fail. Without one they do so from the beginning, and a VM without such a
    /// device, or a template's, has no use for it.
    ///
    /// # Errors
    /// [`VmError::Files`]: it has one already. [`VmError::Kvm`], [`VmError::Setup`].
    pub fn connect_files(&self, stream: OwnedFd) -> Result<(), VmError> {
        self.devices.connect_files(&self.vm, stream)
    }

    /// Let the virtual CPUs run.
    ///
    /// # Errors
    /// [`VmError::Setup`] if a thread cannot be made. Nothing is left behind then.
    pub fn start(self) -> Result<RunningVm, VmError> {
        let ending = Arc::new(Ending::new().map_err(VmError::setup("the end's event"))?);
        let bus = Arc::clone(&self.devices.bus);
        let registers = Arc::clone(&self.devices.registers);
        let dialled = Arc::clone(&self.devices.dialled);
        let network = Arc::clone(&self.devices.network);
        let files = self.devices.files();
        // A virtual CPU that runs has no time for anything else; and once the guest's time goes on,
        // nobody should wait.
        drop(self.premapping);
        if let Some(state) = self.restored {
            self.devices.alert();
            let vcpus = self.vcpus.iter().map(Vcpu::fd);
            arch::restore_time(&self.vm, &state.machine, &state.vcpus, vcpus)?;
        }
        let mut running = RunningVm {
            vcpus: Vec::with_capacity(self.vcpus.len()),
            workers: self.devices.start(&self.counters, &ending)?,
            bus: Arc::clone(&bus),
            dialled,
            held: self.template,
            paused: None,
            vm: self.vm,
            registers,
            network,
            files,
            memory: self.memory,
            counters: self.counters,
            ending,
            lesson: self.lesson,
            populating: None,
        };
        // If a thread cannot be made, dropping `running` stops those before it.
        for vcpu in self.vcpus {
            let thread = vcpu.start(
                Arc::clone(&bus),
                Arc::clone(&running.vm),
                Arc::clone(&running.counters),
                Arc::clone(&running.ending),
            )?;
            running.vcpus.push(thread);
        }
        running.populating = running.populate(self.first_touched);
        Ok(running)
    }
}

/// A VM that runs, or has ended. Dropping it stops the VM and takes everything down.
#[derive(Debug)]
pub struct RunningVm {
    // NOTE: fields are dropped in order: threads, what they use, the VM, its memory.
    vcpus: Vec<VcpuThread>,
    workers: Vec<WorkerThread>,
    bus: Arc<Bus>,
    dialled: Arc<EventFd>,
    /// Its devices answer nothing.
    held: bool,
    /// The queues of all devices, while it is paused.
    paused: Option<PausedQueues>,
    vm: Arc<VmFd>,
    registers: Arc<crate::memory::RegisterPages>,
    network: Arc<Cables>,
    files: Option<Arc<Shared>>,
    memory: GuestMemory,
    counters: Arc<Counters>,
    ending: Arc<Ending>,
    lesson: Option<Arc<Lesson>>,
    /// Ends by itself, soon after the start.
    populating: Option<Thread>,
}

impl RunningVm {
    /// Wait for the end, join all threads and give everything back. A thread that the host's kernel
    /// does not let go of is left to itself after a few seconds, with the memory that it uses.
    #[must_use]
    pub fn wait(mut self) -> Outcome {
        let outcome = self.ending.wait();
        self.take_down();
        outcome
    }

    /// How the VM ended, if it has.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.ending.outcome()
    }

    /// A descriptor that becomes readable when the VM ends, for an event loop. Do not read it.
    #[must_use]
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.ending.event()
    }

    /// A way to stop the VM from elsewhere.
    #[must_use]
    pub fn handle(&self) -> VmHandle {
        VmHandle {
            ending: Arc::clone(&self.ending),
            counters: Arc::clone(&self.counters),
            lesson: self.lesson.clone(),
            network: Arc::clone(&self.network),
            bus: Arc::downgrade(&self.bus),
        }
    }

    /// What the VM cost until now. Measuring resident memory takes a while; ask rarely.
    #[must_use]
    pub fn stats(&self) -> VmStats {
        VmStats {
            io_exits: self.counters.io_exits.get(),
            mmio_read_exits: self.counters.mmio_read_exits.get(),
            mmio_write_exits: self.counters.mmio_write_exits.get(),
            other_exits: self.counters.other_exits.get(),
            queue_notifications: self.counters.queue_notifications.get(),
            interrupts: self.counters.interrupts.get(),
            dropped_frames: self.counters.dropped_frames.get(),
            memory_bytes: self.memory.bytes(),
            resident_bytes: resident_bytes(self.memory.host_range()),
        }
    }

    /// Commit memory ahead of the guest, as far as there is a processor for it.
    fn populate(&self, ranges: Vec<(u64, u64)>) -> Option<Thread> {
        let memory = self.memory.clone();
        let ending = Arc::clone(&self.ending);
        let populate = move || {
            for (start, end) in ranges {
                if ending.outcome().is_none() {
                    memory.populate(start, end);
                }
            }
        };
        let builder = std::thread::Builder::new()
            .name("populate".into())
            .stack_size(64 << 10);
        // Without it the guest starts as well, only later.
        Thread::spawn(builder, populate).ok()
    }

    fn take_down(&mut self) {
        self.ending.end(Outcome::Stopped);
        // A virtual CPU may be waiting for a device.
        for worker in &self.workers {
            worker.stop();
        }
        for vcpu in &self.vcpus {
            vcpu.kick();
        }
        let deadline = Instant::now() + STOP_LIMIT;
        let mut all = true;
        for vcpu in &mut self.vcpus {
            all &= vcpu.join_until(deadline);
        }
        for worker in &mut self.workers {
            all &= worker.join_until(deadline);
        }
        if let Some(thread) = self.populating.take() {
            all &= thread.join_until(deadline);
        }
        if !all {
            // KVM knows the guest's memory by its addresses in this process: they stay taken, so
            // that a guest that goes on finds nothing else there.
            std::mem::forget((self.memory.clone(), Arc::clone(&self.registers)));
        }
    }
}

impl Drop for RunningVm {
    fn drop(&mut self) {
        self.take_down();
    }
}

/// Stops a VM, from any thread, any number of times, and tells what it does.
#[derive(Debug, Clone)]
pub struct VmHandle {
    ending: Arc<Ending>,
    counters: Arc<Counters>,
    lesson: Option<Arc<Lesson>>,
    network: Arc<Cables>,
    /// It goes with the VM.
    bus: Weak<Bus>,
}

impl VmHandle {
    /// As [`Vm::connect_network`], while it runs.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn connect_network(&self, mac: [u8; 6], socket: OwnedFd) -> std::io::Result<()> {
        self.network.plug(mac, socket)
    }

    /// Let go of the socket that was given with this address.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn disconnect_network(&self, mac: [u8; 6]) -> std::io::Result<()> {
        self.network.unplug(mac)
    }

    /// Have the guest see a link at its network device, or none. It does from the start.
    pub fn set_network_link(&self, up: bool) {
        if let Some(bus) = self.bus.upgrade() {
            bus.set_network_link(up);
        }
    }

    /// If this VM is the first that began at its snapshot: note for those after it which memory a
    /// guest needs for itself. To be called when the guest has done its work and not ended yet.
    pub fn teach(&self) {
        if let Some(lesson) = &self.lesson {
            // The next one may be luckier.
            let _ = lesson.teach();
        }
    }

    /// Ask the VM to stop now; [`RunningVm::wait`] then returns [`Outcome::Stopped`], unless the
    /// guest was faster.
    pub fn stop(&self) {
        self.ending.end(Outcome::Stopped);
    }

    /// How often what has happened, by name: exits by reason, notifications, interrupts, frames
    /// that were dropped.
    #[must_use]
    pub fn events(&self) -> [(&'static str, u64); 7] {
        let counters = &self.counters;
        [
            ("io_exits", counters.io_exits.get()),
            ("mmio_read_exits", counters.mmio_read_exits.get()),
            ("mmio_write_exits", counters.mmio_write_exits.get()),
            ("other_exits", counters.other_exits.get()),
            ("queue_notifications", counters.queue_notifications.get()),
            ("interrupts", counters.interrupts.get()),
            ("dropped_frames", counters.dropped_frames.get()),
        ]
    }
}

fn command_line(config: &VmConfig, devices: &str) -> Result<String, VmError> {
    let serial = match config.serial {
        SerialConfig::Off => arch::NO_SERIAL_PARAMETERS,
        _ => arch::SERIAL_PARAMETERS,
    };
    // The VMM's own come first, so that the caller's can override them, and the devices before
    // a possible `--`, after which the kernel passes everything to init.
    let line = format!(
        "{} {serial}{devices} {}",
        arch::KERNEL_PARAMETERS,
        config.cmdline
    );
    let line = line.trim_end().to_owned();
    if line.len() > MAX_CMDLINE_BYTES {
        return Err(VmError::Config(crate::ConfigError::CmdlineLength(
            line.len(),
        )));
    }
    Ok(line)
}
