//! The MMIO transport, version 2 (virtio 1.2, section 4.2.2).
//!
//! Every register that a driver reads lies in a page that the guest reads as memory; this code
//! keeps it up to date as the driver writes. Only writes leave the guest, and of these neither
//! notifications (an ioeventfd, or [`DeviceLink::notify`]) nor interrupt acknowledgements come here.

use super::registers::{
    CONFIG, CONFIG_GENERATION, DEVICE_FEATURES, DEVICE_FEATURES_SEL, DEVICE_ID, DRIVER_FEATURES,
    DRIVER_FEATURES_SEL, INTERRUPT_CONFIG, INTERRUPT_STATUS, INTERRUPT_USED, MAGIC, MAGIC_VALUE,
    QUEUE_DESC, QUEUE_DEVICE, QUEUE_DRIVER, QUEUE_NUM, QUEUE_NUM_MAX, QUEUE_READY, QUEUE_SEL,
    SHM_BASE, SHM_LEN, STATUS, VENDOR, VENDOR_ID, VERSION, status,
};
use super::{
    Activation, F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, Identity, Interrupt, SavedQueue,
};
use crate::memory::{GuestRam, PAGE, RegisterPages};
use crate::worker::DeviceLink;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend};

/// What the driver has said about a queue so far.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct QueueSetup {
    size: u32,
    ready: bool,
    desc: u64,
    driver: u64,
    device: u64,
}

/// A device between two accesses of its driver.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DeviceState {
    kind: u32,
    features: u64,
    config: Vec<u8>,
    generation: u32,
    status: u32,
    interrupt_status: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    setups: Vec<QueueSetup>,
    /// Those that the device owned.
    queues: Option<Vec<SavedQueue>>,
}

/// A saved device is not the one that it is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Misfit;

/// The driver's side of a device.
#[derive(Debug)]
pub(crate) struct Transport {
    identity: Identity,
    registers: Arc<RegisterPages>,
    page: usize,
    ram: GuestRam,
    interrupt: Interrupt,
    link: DeviceLink,
    status: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    queues: Vec<QueueSetup>,
    generation: u32,
}

impl Transport {
    pub(crate) fn new(
        identity: Identity,
        registers: Arc<RegisterPages>,
        page: usize,
        ram: GuestRam,
        interrupt: Interrupt,
        link: DeviceLink,
    ) -> Self {
        let mut transport = Self {
            registers,
            page,
            ram,
            interrupt,
            link,
            status: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            queues: vec![QueueSetup::default(); identity.queue_sizes.len()],
            generation: 0,
            identity,
        };
        transport.publish_identity();
        transport.forget_driver();
        transport
    }

    fn publish_identity(&self) {
        self.store(MAGIC, MAGIC_VALUE);
        self.store(VERSION, 2);
        self.store(DEVICE_ID, self.identity.kind);
        self.store(VENDOR_ID, VENDOR);
        // No shared memory regions: length and base of all ones.
        for register in [SHM_LEN, SHM_LEN + 4, SHM_BASE, SHM_BASE + 4] {
            self.store(register, u32::MAX);
        }
        self.publish_config();
    }

    fn publish_config(&self) {
        for (index, bytes) in self.identity.config.chunks(4).enumerate() {
            let mut word = [0u8; 4];
            word[..bytes.len()].copy_from_slice(bytes);
            self.store(CONFIG + index * 4, u32::from_le_bytes(word));
        }
    }

    /// Change the configuration from this offset on, and tell the driver if there is one.
    pub(crate) fn configure(&mut self, offset: usize, bytes: &[u8]) {
        let place = self.identity.config.get_mut(offset..);
        let Some(place) = place.and_then(|rest| rest.get_mut(..bytes.len())) else {
            return;
        };
        if place == bytes {
            return;
        }
        place.copy_from_slice(bytes);
        self.publish_config();
        self.generation = self.generation.wrapping_add(1);
        self.store(CONFIG_GENERATION, self.generation);
        if self.status & status::DRIVER_OK != 0 {
            self.interrupt.config_changed();
        }
    }

    fn store(&self, register: usize, value: u32) {
        if register < PAGE as usize {
            self.registers.store(self.page + register, value);
        }
    }

    const fn offered(&self) -> u64 {
        self.identity.features | F_VERSION_1 | F_EVENT_IDX | F_INDIRECT_DESC
    }

    fn publish_features(&self) {
        let half = match self.device_features_sel {
            0 => self.offered() as u32,
            1 => (self.offered() >> 32) as u32,
            _ => 0,
        };
        self.store(DEVICE_FEATURES, half);
    }

    fn publish_queue(&self) {
        let index = self.queue_sel as usize;
        let max = self.identity.queue_sizes.get(index).copied().unwrap_or(0);
        let ready = self.queues.get(index).is_some_and(|queue| queue.ready);
        self.store(QUEUE_NUM_MAX, max.into());
        self.store(QUEUE_READY, ready.into());
    }

    fn publish_status(&self) {
        self.store(STATUS, self.status);
    }

    /// The state after power-on and after a reset.
    fn forget_driver(&mut self) {
        self.status = 0;
        self.device_features_sel = 0;
        self.driver_features_sel = 0;
        self.driver_features = 0;
        self.queue_sel = 0;
        self.queues.fill(QueueSetup::default());
        self.store(INTERRUPT_STATUS, 0);
        self.publish_features();
        self.publish_queue();
        self.publish_status();
    }

    /// The driver reads. Only for hosts whose KVM cannot show the page to the guest.
    pub(crate) fn read(&self, offset: usize, data: &mut [u8]) {
        if offset + data.len() <= PAGE as usize {
            self.registers.read(self.page + offset, data);
        } else {
            data.fill(0);
        }
    }

    /// The driver writes. All registers are 32 bits wide; anything else is ignored, as are writes
    /// to configuration space, where no device of ours has anything to set.
    pub(crate) fn write(&mut self, offset: usize, data: &[u8]) {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else {
            return;
        };
        let value = u32::from_le_bytes(bytes);
        match offset {
            DEVICE_FEATURES_SEL => {
                self.device_features_sel = value;
                self.publish_features();
            }
            DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            DRIVER_FEATURES => self.accept_features(value),
            QUEUE_SEL => {
                self.queue_sel = value;
                self.publish_queue();
            }
            STATUS => self.write_status(value),
            QUEUE_NUM..=0xff => self.write_queue(offset, value),
            _ => {}
        }
    }

    fn accept_features(&mut self, value: u32) {
        if self.status & (status::DRIVER | status::FEATURES_OK) != status::DRIVER {
            return;
        }
        let value = u64::from(value);
        match self.driver_features_sel {
            0 => self.driver_features = self.driver_features & !0xffff_ffff | value,
            1 => self.driver_features = self.driver_features & 0xffff_ffff | value << 32,
            _ => {}
        }
    }

    /// Queues are set up between FEATURES_OK and DRIVER_OK.
    fn write_queue(&mut self, offset: usize, value: u32) {
        if self.status & (status::FEATURES_OK | status::DRIVER_OK) != status::FEATURES_OK {
            return;
        }
        let Some(queue) = self.queues.get_mut(self.queue_sel as usize) else {
            return;
        };
        let low = |address: &mut u64| *address = *address & !0xffff_ffff | u64::from(value);
        let high = |address: &mut u64| *address = *address & 0xffff_ffff | u64::from(value) << 32;
        match offset {
            QUEUE_READY => {
                queue.ready = value == 1;
                self.publish_queue();
            }
            // A queue that is ready does not change any more.
            _ if queue.ready => {}
            QUEUE_NUM => queue.size = value,
            QUEUE_DESC => low(&mut queue.desc),
            0x84 => high(&mut queue.desc),
            QUEUE_DRIVER => low(&mut queue.driver),
            0x94 => high(&mut queue.driver),
            QUEUE_DEVICE => low(&mut queue.device),
            0xa4 => high(&mut queue.device),
            _ => {}
        }
    }

    /// The driver may reset, set the next bits in order, or give up; nothing else.
    fn write_status(&mut self, value: u32) {
        use status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK};
        if value == 0 {
            if self.status & DRIVER_OK != 0 {
                self.link.reset();
            }
            self.forget_driver();
            return;
        }
        if self.status & FAILED != 0 || self.needs_reset() {
            return;
        }
        if value & FAILED != 0 {
            self.status |= FAILED;
            self.publish_status();
            return;
        }
        const STEPS: [u32; 4] = [
            ACKNOWLEDGE,
            ACKNOWLEDGE | DRIVER,
            ACKNOWLEDGE | DRIVER | FEATURES_OK,
            ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK,
        ];
        let Some(now) = STEPS.iter().position(|step| *step == value) else {
            return;
        };
        // One step at a time, or the same again.
        let before = STEPS.iter().position(|step| *step == self.status);
        if now != before.map_or(0, |before| before + 1) {
            return;
        }
        if value & !self.status & FEATURES_OK != 0 && !self.features_acceptable() {
            return;
        }
        let starts = value & !self.status & DRIVER_OK != 0;
        self.status = value;
        self.publish_status();
        if starts {
            self.activate();
        }
    }

    fn needs_reset(&self) -> bool {
        self.registers.load(self.page + STATUS) & status::NEEDS_RESET != 0
    }

    const fn features_acceptable(&self) -> bool {
        self.driver_features & !self.offered() == 0 && self.driver_features & F_VERSION_1 != 0
    }

    fn activate(&mut self) {
        let setups = std::mem::take(&mut self.queues);
        self.queues = vec![QueueSetup::default(); setups.len()];
        let mut queues = Vec::with_capacity(setups.len());
        for (setup, max) in setups.iter().zip(self.identity.queue_sizes) {
            let Some(queue) = self.build_queue(setup, *max) else {
                self.interrupt.needs_reset();
                return;
            };
            queues.push(queue);
        }
        self.store(INTERRUPT_STATUS, INTERRUPT_USED);
        self.link.activate(Activation {
            ram: self.ram.clone(),
            queues,
            interrupt: self.interrupt.clone(),
            features: self.driver_features,
        });
    }

    /// A queue whose size and rings have been checked. A queue that the driver left out is not
    /// ready, and devices do not use it.
    fn build_queue(&self, setup: &QueueSetup, max: u16) -> Option<Queue> {
        let mut queue = Queue::new(max).ok()?;
        if !setup.ready {
            return Some(queue);
        }
        let size = u16::try_from(setup.size).ok()?;
        queue.try_set_size(size).ok()?;
        queue
            .try_set_desc_table_address(GuestAddress(setup.desc))
            .ok()?;
        queue
            .try_set_avail_ring_address(GuestAddress(setup.driver))
            .ok()?;
        queue
            .try_set_used_ring_address(GuestAddress(setup.device))
            .ok()?;
        let entries = usize::from(size);
        // Virtio 1.2, section 2.7: 16 bytes for each descriptor; 2 or 8 for each ring entry, and
        // 6 for flags, index and event.
        let rings = [
            (setup.desc, 16 * entries),
            (setup.driver, 6 + 2 * entries),
            (setup.device, 6 + 8 * entries),
        ];
        for (address, bytes) in rings {
            // virtio-queue takes address 0 for "not set up".
            if address == 0 || !self.ram.check_range(GuestAddress(address), bytes) {
                return None;
            }
        }
        queue.set_event_idx(self.driver_features & F_EVENT_IDX != 0);
        queue.set_ready(true);
        Some(queue)
    }

    /// Take the state while no virtual CPU runs. `queues` are those that the device owns.
    pub(crate) fn save(&self, queues: Option<Vec<SavedQueue>>) -> DeviceState {
        DeviceState {
            kind: self.identity.kind,
            features: self.identity.features,
            config: self.identity.config.clone(),
            generation: self.generation,
            status: self.registers.load(self.page + STATUS),
            interrupt_status: self.registers.load(self.page + INTERRUPT_STATUS),
            device_features_sel: self.device_features_sel,
            driver_features_sel: self.driver_features_sel,
            driver_features: self.driver_features,
            queue_sel: self.queue_sel,
            setups: self.queues.clone(),
            queues,
        }
    }

    /// Become a saved device, before any virtual CPU runs. It must be of the same kind; features that it
    /// did not have then are not offered, and its configuration may be another one, of which the driver
    /// then hears by [`Self::alert`].
    pub(crate) fn restore(&mut self, state: &DeviceState) -> Result<(), Misfit> {
        let same = state.kind == self.identity.kind
            && state.features & !self.identity.features == 0
            && state.config.len() == self.identity.config.len()
            && state.setups.len() == self.queues.len();
        if !same {
            return Err(Misfit);
        }
        self.identity.features = state.features;
        if state.driver_features & !self.offered() != 0 {
            return Err(Misfit);
        }
        self.status = state.status & !status::NEEDS_RESET;
        self.device_features_sel = state.device_features_sel;
        self.driver_features_sel = state.driver_features_sel;
        self.driver_features = state.driver_features;
        self.queue_sel = state.queue_sel;
        self.queues.clone_from(&state.setups);
        self.generation = state.generation;
        let mut pending = state.interrupt_status & (INTERRUPT_USED | INTERRUPT_CONFIG);
        if state.config != self.identity.config {
            self.generation = self.generation.wrapping_add(1);
            pending |= INTERRUPT_CONFIG;
        }
        self.store(CONFIG_GENERATION, self.generation);
        self.store(INTERRUPT_STATUS, pending);
        self.publish_features();
        self.publish_queue();
        self.store(STATUS, state.status);
        match &state.queues {
            Some(queues) if state.status & status::DRIVER_OK != 0 => self.reactivate(queues),
            Some(_) => Err(Misfit),
            None => Ok(()),
        }
    }

    fn reactivate(&self, saved: &[SavedQueue]) -> Result<(), Misfit> {
        if saved.len() != self.identity.queue_sizes.len() {
            return Err(Misfit);
        }
        let mut queues = Vec::with_capacity(saved.len());
        for (saved, max) in saved.iter().zip(self.identity.queue_sizes) {
            let setup = QueueSetup {
                size: saved.size.into(),
                ready: saved.ready,
                desc: saved.desc,
                driver: saved.avail,
                device: saved.used,
            };
            let mut queue = self.build_queue(&setup, *max).ok_or(Misfit)?;
            queue.set_next_avail(saved.next_avail);
            queue.set_next_used(saved.next_used);
            queues.push(queue);
        }
        self.link.activate(Activation {
            ram: self.ram.clone(),
            queues,
            interrupt: self.interrupt.clone(),
            features: self.driver_features,
        });
        Ok(())
    }

    /// Interrupt the driver of a restored device: for an interrupt that was on its way when the VM
    /// was saved, or because its configuration is another one. One that finds nothing to do does
    /// no harm.
    pub(crate) fn alert(&self) {
        if self.status & status::DRIVER_OK != 0 {
            self.interrupt.trigger();
        }
    }

    /// Whether [`Self::restore`] left the driver something to look at.
    pub(crate) fn has_news(&self) -> bool {
        self.registers.load(self.page + INTERRUPT_STATUS) & INTERRUPT_CONFIG != 0
    }
}

#[cfg(test)]
mod tests;
