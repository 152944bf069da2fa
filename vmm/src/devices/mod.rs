//! A VM's devices: from the configuration to registers, interrupts and threads.

pub(crate) mod serial;

use crate::arch::{layout, ports::Ports};
use crate::config::{FilesConfig, SerialConfig, VmConfig};
use crate::error::VmError;
use crate::memory::{GuestMemory, PAGE, RegisterPages, add_slot};
use crate::outcome::{InternalError, Outcome};
use crate::stats::Counters;
use crate::virtio::block::{Block, Disk};
use crate::virtio::files::{self, Files, Shared};
use crate::virtio::held::Held;
use crate::virtio::mmio::{DeviceState, Transport};
use crate::virtio::net::{self, Cables, Card, Net};
use crate::virtio::registers::{INTERRUPT_ACK, QUEUE_NOTIFY};
use crate::virtio::rng::{self, Rng};
use crate::virtio::vsock::{self, Vsock};
use crate::virtio::{Backend, Identity, Interrupt, InterruptLine};
use crate::vm::ending::Ending;
use crate::worker::{DeviceLink, PausedQueues, Worker, WorkerThread};
use kvm_ioctls::{Cap, IoEventAddress, NoDatamatch, VmFd};
use serde::{Deserialize, Serialize};
use serial::{Line, Output, Serial, SerialRegisters};
use std::fmt::Write;
use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmm_sys_util::eventfd::EventFd;

/// Everything that virtual CPUs reach by leaving the guest.
#[derive(Debug)]
pub(crate) struct Bus {
    devices: Vec<OnBus>,
    /// Which of them is the network device.
    network: Option<usize>,
    pub(crate) ports: Ports,
}

/// A device as virtual CPUs reach it.
#[derive(Debug)]
struct OnBus {
    transport: Mutex<Transport>,
    /// For notifications, of which several virtual CPUs may make some at once.
    link: DeviceLink,
}

impl Bus {
    fn device(&self, address: u64) -> Option<(&OnBus, usize)> {
        let offset = usize::try_from(address.checked_sub(layout::MMIO_BASE)?).ok()?;
        let device = self.devices.get(offset / PAGE as usize)?;
        Some((device, offset % PAGE as usize))
    }

    /// Have the guest see a link at its network device, or none.
    pub(crate) fn set_network_link(&self, up: bool) {
        if let Some(device) = self.network.and_then(|at| self.devices.get(at)) {
            lock(&device.transport).configure(net::LINK_AT, &net::link(up));
        }
    }

    /// The guest reads device memory. Where there is no device, it reads ones.
    pub(crate) fn mmio_read(&self, address: u64, data: &mut [u8]) {
        match self.device(address) {
            Some((device, offset)) => lock(&device.transport).read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// The guest writes device memory. Where there is no device, nothing happens.
    pub(crate) fn mmio_write(&self, address: u64, data: &[u8]) {
        match self.device(address) {
            Some((device, QUEUE_NOTIFY)) => device.link.notify(),
            Some((device, offset)) => lock(&device.transport).write(offset, data),
            None => {}
        }
    }
}

/// An input pin of KVM's interrupt controllers.
///
/// An eventfd (`KVM_IRQFD`) would do the same, but for a pin of an I/O APIC KVM hands it to a kernel
/// thread, which has to be woken for each interrupt; and each one costs the VM's start a grace
/// period of RCU.
#[derive(Debug)]
struct Pin {
    vm: Arc<VmFd>,
    irq: u32,
    /// Held from the line's rising to its falling.
    edge: Mutex<()>,
}

impl InterruptLine for Pin {
    fn pulse(&self) {
        let _edge = lock(&self.edge);
        for level in [true, false] {
            // It fails only for a VM without interrupt controllers.
            let _ = self.vm.set_irq_line(self.irq, level);
        }
    }
}

/// All devices of a VM that stands still.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DevicesState {
    devices: Vec<DeviceState>,
    serial: Option<SerialRegisters>,
    /// The devices have kept still since the VM was made.
    held: bool,
}

#[cfg(test)]
impl Bus {
    pub(crate) fn without_devices() -> Self {
        Self {
            devices: Vec::new(),
            network: None,
            ports: Ports::new(None),
        }
    }
}

/// The devices of a VM whose threads do not run yet.
#[derive(Debug)]
pub(crate) struct Devices {
    pub(crate) bus: Arc<Bus>,
    /// Keeps the pages that KVM shows to the guest.
    pub(crate) registers: Arc<RegisterPages>,
    /// Kernel parameters that announce the devices.
    pub(crate) parameters: String,
    /// Disk I/O blocks, so that everything else has a thread of its own.
    disk_worker: Worker,
    stream_worker: Worker,
    /// Readable once a template's guest has dialled.
    pub(crate) dialled: Arc<EventFd>,
    /// What carries the network device's frames.
    pub(crate) network: Arc<Cables>,
    /// What carries the file system device's messages, and which device that is.
    files: Option<(Arc<Shared>, usize)>,
    /// After a restore, the devices whose drivers are to look.
    alerts: Vec<usize>,
}

/// What is needed to attach a device, and where the next one goes.
struct Builder<'a> {
    vm: &'a Arc<VmFd>,
    memory: &'a GuestMemory,
    counters: &'a Arc<Counters>,
    registers: Arc<RegisterPages>,
    /// Takes the acknowledgements of all interrupts, which nobody looks at, inside KVM.
    acknowledged: EventFd,
    devices: Vec<OnBus>,
    parameters: String,
}

/// Have KVM take the guest's writes to a register, and make the event readable for each.
fn wire(vm: &VmFd, event: &EventFd, register: u64) -> Result<(), VmError> {
    vm.register_ioevent(event, &IoEventAddress::Mmio(register), NoDatamatch)
        .map_err(VmError::kvm("KVM_IOEVENTFD"))
}

impl Builder<'_> {
    fn attach(
        &mut self,
        identity: Identity,
        backend: Box<dyn Backend>,
        worker: &mut Worker,
    ) -> Result<(), VmError> {
        self.attach_with(identity, backend, worker, true)
    }

    /// The same, perhaps without what costs a start a grace period of RCU: [`Devices::connect_files`].
    fn attach_with(
        &mut self,
        identity: Identity,
        backend: Box<dyn Backend>,
        worker: &mut Worker,
        wiring: bool,
    ) -> Result<(), VmError> {
        let index = self.devices.len();
        let irq = layout::device_irq(index);
        let page = index * PAGE as usize;
        let address = layout::MMIO_BASE + page as u64;
        let line = Arc::new(Pin {
            vm: Arc::clone(self.vm),
            irq,
            edge: Mutex::new(()),
        });
        let link = worker
            .add(backend)
            .map_err(VmError::setup("a device's events"))?;
        let acknowledged = wiring.then_some(&self.acknowledged);
        for (register, event) in [
            (QUEUE_NOTIFY, link.notify_event()),
            (INTERRUPT_ACK, acknowledged),
        ] {
            if let Some(event) = event {
                wire(self.vm, event, address + register as u64)?;
            }
        }
        let interrupt = Interrupt::new(
            line,
            Arc::clone(&self.registers),
            page,
            Arc::clone(self.counters),
        );
        let transport = Mutex::new(Transport::new(
            identity,
            Arc::clone(&self.registers),
            page,
            self.memory.ram().clone(),
            interrupt,
            link.clone(),
        ));
        self.devices.push(OnBus { transport, link });
        // Writing to a string cannot fail.
        let _ = write!(self.parameters, " virtio_mmio.device=4K@{address:#x}:{irq}");
        Ok(())
    }
}

impl Devices {
    /// Make all devices and connect them to KVM. `slot` is the first free memory slot. In a
    /// restored VM they are what they were when it was saved.
    pub(crate) fn new(
        vm: &Arc<VmFd>,
        memory: &GuestMemory,
        config: &VmConfig,
        slot: u32,
        counters: &Arc<Counters>,
        restored: Option<&DevicesState>,
    ) -> Result<Self, VmError> {
        let others = [
            config.vsock.is_some(),
            config.rng,
            config.net.is_some(),
            config.files.is_some(),
        ];
        let count = config.disks.len() + others.into_iter().filter(|is_there| *is_there).count();
        let registers = RegisterPages::new(count).map_err(VmError::setup("device registers"))?;
        let registers = Arc::new(registers);
        let mut disk_worker = Worker::new().map_err(VmError::setup("a device thread"))?;
        let mut stream_worker = Worker::new().map_err(VmError::setup("a device thread"))?;
        let mut builder = Builder {
            vm,
            memory,
            counters,
            registers: Arc::clone(&registers),
            acknowledged: crate::virtio::event().map_err(VmError::setup("an interrupt"))?,
            devices: Vec::new(),
            parameters: String::new(),
        };
        for disk in &config.disks {
            let disk =
                Disk::open(disk).map_err(|(path, source)| VmError::DeviceFile { path, source })?;
            let identity = disk.identity();
            builder.attach(identity, Box::new(Block::new(disk)), &mut disk_worker)?;
        }
        let dialled = Arc::new(crate::virtio::event().map_err(VmError::setup("an event"))?);
        if let Some(vsock) = &config.vsock {
            let identity = vsock::identity(vsock.guest_cid);
            let device: Box<dyn Backend> = if config.template {
                Box::new(Held::new(Some((vsock::TRANSMIT, Arc::clone(&dialled)))))
            } else {
                let device = Vsock::new(vsock).map_err(|source| VmError::DeviceFile {
                    path: vsock.uds_path.clone(),
                    source,
                })?;
                let streams = restored.is_some_and(|state| !state.held);
                Box::new(if streams {
                    device.resets_streams()
                } else {
                    device
                })
            };
            builder.attach(identity, device, &mut stream_worker)?;
        }
        if config.rng {
            let device: Box<dyn Backend> = if config.template {
                Box::new(Held::new(None))
            } else {
                Box::new(Rng::default())
            };
            builder.attach(rng::identity(), device, &mut stream_worker)?;
        }
        let network = Arc::<Cables>::default();
        let network_at = config.net.is_some().then_some(builder.devices.len());
        if let Some(net) = &config.net {
            let device: Box<dyn Backend> = if config.template {
                Box::new(Held::new(None))
            } else {
                Box::new(Card::new(Net::new(
                    Arc::clone(&network),
                    Arc::clone(counters),
                )))
            };
            builder.attach(net::identity(net), device, &mut stream_worker)?;
            if let Some(on_bus) = builder.devices.last().filter(|_| !config.template) {
                network.belong_to(on_bus.link.of_thread());
            }
        }
        let files = match &config.files {
            Some(files) => Some(attach_files(
                &mut builder,
                files,
                config.template,
                &mut stream_worker,
            )?),
            None => None,
        };
        let alerts = match restored {
            Some(state) => restore(&mut builder.devices, state)?,
            None => Vec::new(),
        };
        if count > 0 && vm.check_extension(Cap::ReadonlyMem) {
            add_slot(
                vm,
                slot,
                layout::MMIO_BASE,
                registers.len() as u64,
                registers.host_start(),
                true,
            )
            .map_err(VmError::Memory)?;
        }
        let registers_of = restored.and_then(|state| state.serial.as_ref());
        let ports = Ports::new(serial(vm, &config.serial, registers_of)?);
        Ok(Self {
            bus: Arc::new(Bus {
                network: network_at,
                devices: builder.devices,
                ports,
            }),
            registers,
            parameters: builder.parameters,
            disk_worker,
            stream_worker,
            dialled,
            network,
            files,
            alerts,
        })
    }

    /// Have the file system device pass its messages through this stream. A VM without one, or a
    /// template's, does without.
    pub(crate) fn connect_files(&self, vm: &VmFd, stream: OwnedFd) -> Result<(), VmError> {
        let Some((files, index)) = &self.files else {
            return Ok(());
        };
        if !files.connect(stream) {
            return Err(VmError::Files);
        }
        let event = crate::virtio::event().map_err(VmError::setup("an interrupt"))?;
        let page = layout::MMIO_BASE + *index as u64 * PAGE;
        wire(vm, &event, page + INTERRUPT_ACK as u64)
    }

    /// What tells whether that was done.
    pub(crate) fn files(&self) -> Option<Arc<Shared>> {
        self.files.as_ref().map(|(shared, _)| Arc::clone(shared))
    }

    /// Interrupt the drivers that have something to look at. The interrupt controllers must be
    /// restored.
    pub(crate) fn alert(&self) {
        for index in &self.alerts {
            if let Some(device) = self.bus.devices.get(*index) {
                lock(&device.transport).alert();
            }
        }
    }

    /// Start the devices' threads.
    pub(crate) fn start(
        self,
        counters: &Arc<Counters>,
        ending: &Arc<Ending>,
    ) -> Result<Vec<WorkerThread>, VmError> {
        let mut threads = Vec::new();
        for (worker, name) in [(self.disk_worker, "disks"), (self.stream_worker, "streams")] {
            if worker.is_empty() {
                continue;
            }
            let ending = Arc::clone(ending);
            let failed = move |error: std::io::Error| {
                let error = InternalError::Device(error.to_string());
                ending.end(Outcome::InternalError(error));
            };
            let thread = worker
                .start(name, Arc::clone(counters), failed)
                .map_err(VmError::setup("a device thread"))?;
            threads.push(thread);
        }
        Ok(threads)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bus {
    /// Take the devices' state while nothing runs. `queues` are those that the workers own.
    pub(crate) fn save(&self, queues: PausedQueues, held: bool) -> DevicesState {
        let with = self.devices.iter().zip(queues);
        let saved = with.map(|(device, queues)| lock(&device.transport).save(queues));
        DevicesState {
            devices: saved.collect(),
            serial: self.ports.serial_registers(),
            held,
        }
    }
}

/// Attach the file system device; gives what carries its messages, and where it is.
fn attach_files(
    builder: &mut Builder<'_>,
    config: &FilesConfig,
    template: bool,
    worker: &mut Worker,
) -> Result<(Arc<Shared>, usize), VmError> {
    let shared = Arc::<Shared>::default();
    let device: Box<dyn Backend> = if template {
        Box::new(Held::new(None))
    } else {
        Box::new(Files::new(Arc::clone(&shared)))
    };
    let index = builder.devices.len();
    // Few guests have files from outside, and none may pay for it. For virtual CPUs that come out it is
    // all the same.
    builder.attach_with(files::identity(config), device, worker, false)?;
    Ok((shared, index))
}

/// Make devices what they were. Returns those whose drivers have something to look at.
fn restore(devices: &mut [OnBus], state: &DevicesState) -> Result<Vec<usize>, VmError> {
    if devices.len() != state.devices.len() {
        return Err(VmError::Snapshot("it has other devices"));
    }
    let mut alerts = Vec::new();
    for (index, (device, saved)) in devices.iter_mut().zip(&state.devices).enumerate() {
        let transport = device
            .transport
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        transport
            .restore(saved)
            .map_err(|_| VmError::Snapshot("it has another device in this place"))?;
        // An interrupt of a device that was at work may have been lost on its way.
        if transport.has_news() || !state.held {
            alerts.push(index);
        }
    }
    Ok(alerts)
}

fn serial(
    vm: &VmFd,
    config: &SerialConfig,
    registers: Option<&SerialRegisters>,
) -> Result<Option<Serial>, VmError> {
    let output = match config {
        SerialConfig::Off => return Ok(None),
        SerialConfig::Stderr => {
            let fd = std::io::stderr().as_fd().try_clone_to_owned();
            let fd = fd.map_err(VmError::setup("the serial port's output"))?;
            Output::new(fd.into(), u64::MAX)
        }
        SerialConfig::File { path, limit_bytes } => {
            let file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .custom_flags(libc::O_CLOEXEC)
                .open(path)
                .map_err(|source| VmError::DeviceFile {
                    path: path.clone(),
                    source,
                })?;
            Output::new(file, *limit_bytes)
        }
    };
    let line = crate::virtio::event().map_err(VmError::setup("an interrupt"))?;
    vm.register_irqfd(&line, layout::SERIAL_IRQ)
        .map_err(VmError::kvm("KVM_IRQFD"))?;
    match registers {
        Some(registers) => Serial::restored(registers, Line(line), output)
            .map(Some)
            .ok_or(VmError::Snapshot("its serial port is no such thing")),
        None => Ok(Some(Serial::new(Line(line), output))),
    }
}
