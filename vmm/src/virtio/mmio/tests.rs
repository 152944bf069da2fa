use super::*;
use crate::stats::Counters;
use crate::virtio::Backend;
use crate::virtio::testing::{Junk, Pulses, Ring, ram};
use crate::worker::{Worker, WorkerThread};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const SIZES: &[u16] = &[8, 4];
/// What the driver accepts: version 1, event indexes, and the device's own.
const ACCEPTED: u64 = 1 << 32 | 1 << 29 | 1 << 3;

/// Counts what happens to it.
#[derive(Debug, Default)]
struct Log {
    activations: Mutex<Vec<Activation>>,
    resets: AtomicUsize,
}

#[derive(Debug)]
struct Probe(Arc<Log>);

impl Backend for Probe {
    fn activate(&mut self, activation: Activation) {
        self.0.activations.lock().unwrap().push(activation);
    }
    fn notify(&mut self) -> bool {
        false
    }
    fn queues(&self) -> Option<Vec<SavedQueue>> {
        None
    }
    fn reset(&mut self) {
        self.0.resets.fetch_add(1, Ordering::SeqCst);
    }
}

struct Rig {
    transport: Transport,
    log: Arc<Log>,
    registers: Arc<RegisterPages>,
    ram: GuestRam,
    _thread: WorkerThread,
}

fn rig() -> Rig {
    let ram = ram();
    let log = Arc::new(Log::default());
    let registers = Arc::new(RegisterPages::new(1).unwrap());
    let counters = Arc::new(Counters::default());
    let interrupt = Interrupt::new(
        Arc::new(Pulses::default()),
        Arc::clone(&registers),
        0,
        Arc::clone(&counters),
    );
    let mut worker = Worker::new().unwrap();
    let link = worker.add(Box::new(Probe(Arc::clone(&log)))).unwrap();
    let thread = worker
        .start("test", counters, |error| panic!("{error}"))
        .unwrap();
    let identity = Identity {
        kind: 42,
        features: 1 << 3,
        queue_sizes: SIZES,
        config: vec![1, 2, 3, 4, 5],
    };
    let transport = Transport::new(
        identity,
        Arc::clone(&registers),
        0,
        ram.clone(),
        interrupt,
        link,
    );
    Rig {
        transport,
        log,
        registers,
        ram,
        _thread: thread,
    }
}

impl Rig {
    fn write(&mut self, offset: usize, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    fn read(&self, offset: usize) -> u32 {
        let mut bytes = [0u8; 4];
        self.transport.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn negotiate(&mut self) {
        self.write(STATUS, 1);
        self.write(STATUS, 3);
        self.write(DRIVER_FEATURES_SEL, 1);
        self.write(DRIVER_FEATURES, 1);
        self.write(DRIVER_FEATURES_SEL, 0);
        self.write(DRIVER_FEATURES, (1 << 3) | (1 << 29));
        self.write(STATUS, 0xb);
    }

    fn set_up(&mut self, index: u32, ring: &Ring) {
        self.write(QUEUE_SEL, index);
        self.write(QUEUE_NUM, ring.size.into());
        self.write(QUEUE_DESC, ring.desc() as u32);
        self.write(QUEUE_DESC + 4, (ring.desc() >> 32) as u32);
        self.write(QUEUE_DRIVER, ring.avail() as u32);
        self.write(QUEUE_DRIVER + 4, 0);
        self.write(QUEUE_DEVICE, ring.used() as u32);
        self.write(QUEUE_DEVICE + 4, 0);
        self.write(QUEUE_READY, 1);
    }

    /// Reset, which also waits for the worker to have seen everything before.
    fn reset(&mut self) {
        self.write(STATUS, 0);
    }

    fn activations(&self) -> usize {
        self.log.activations.lock().unwrap().len()
    }
}

#[test]
fn a_driver_that_keeps_the_rules_gets_its_device() {
    let mut rig = rig();
    assert_eq!(rig.read(MAGIC), MAGIC_VALUE);
    assert_eq!(rig.read(VERSION), 2);
    assert_eq!(rig.read(DEVICE_ID), 42);
    assert_eq!(rig.read(CONFIG), 0x0403_0201);
    assert_eq!(rig.read(CONFIG + 4), 5);
    rig.write(DEVICE_FEATURES_SEL, 1);
    assert_eq!(rig.read(DEVICE_FEATURES), 1);
    rig.write(DEVICE_FEATURES_SEL, 7);
    assert_eq!(rig.read(DEVICE_FEATURES), 0);
    rig.negotiate();
    assert_eq!(rig.read(STATUS), 0xb);
    let ring = Ring::new(&rig.ram, 0, 8);
    rig.set_up(0, &ring);
    assert_eq!(rig.read(QUEUE_READY), 1);
    assert_eq!(rig.read(QUEUE_NUM_MAX), 8);
    rig.write(STATUS, 0xf);
    assert_eq!(rig.read(INTERRUPT_STATUS), INTERRUPT_USED);
    rig.reset();
    assert_eq!(rig.read(STATUS), 0);
    assert_eq!(rig.read(INTERRUPT_STATUS), 0);
    let activations = rig.log.activations.lock().unwrap();
    assert_eq!(activations[0].features, ACCEPTED);
    let [first, second] = activations[0].queues.as_slice() else {
        panic!("two queues");
    };
    assert!(first.ready() && first.event_idx_enabled() && first.size() == 8);
    assert_eq!(first.avail_ring(), ring.avail());
    assert!(!second.ready());
    drop(activations);
    assert_eq!(rig.log.resets.load(Ordering::SeqCst), 1);
}

#[test]
fn status_bits_cannot_be_skipped() {
    for status in [0xf, 0xb, 3, 2, 4, 8, 5, 0x10, 0x40, 0x4f, 0x100, !0x80] {
        let mut rig = rig();
        rig.write(STATUS, status);
        rig.write(STATUS, 0xf);
        assert_eq!(rig.read(STATUS), 0, "after {status:#x}");
        rig.reset();
        assert_eq!(rig.activations(), 0);
    }
    let mut rig = rig();
    rig.negotiate();
    rig.write(STATUS, 0x80);
    rig.write(STATUS, 0xf);
    assert_eq!(rig.read(STATUS), 0x8b);
    rig.reset();
    assert_eq!(rig.activations(), 0);
}

#[test]
fn features_that_were_not_offered_or_needed_are_refused() {
    // Low and high half; VERSION_1 is bit 0 of the high half.
    for (low, high) in [(1 << 4, 1), (1 << 3, 0), (0, 3), (u32::MAX, u32::MAX)] {
        let mut rig = rig();
        rig.write(STATUS, 1);
        rig.write(STATUS, 3);
        rig.write(DRIVER_FEATURES, low);
        rig.write(DRIVER_FEATURES_SEL, 1);
        rig.write(DRIVER_FEATURES, high);
        rig.write(STATUS, 0xb);
        assert_eq!(rig.read(STATUS), 3, "{low:#x} {high:#x}");
    }
    // After FEATURES_OK nothing changes any more.
    let mut rig = rig();
    rig.negotiate();
    rig.write(DRIVER_FEATURES, 0);
    assert_eq!(rig.transport.driver_features, 1 << 32 | 1 << 29 | 1 << 3);
}

#[test]
fn queues_cannot_be_rewritten_behind_the_device() {
    let mut rig = rig();
    rig.negotiate();
    let ring = Ring::new(&rig.ram, 0, 8);
    rig.set_up(0, &ring);
    // Ready: locked.
    rig.write(QUEUE_DESC, 0x4000);
    rig.write(STATUS, 0xf);
    // DRIVER_OK: out of reach.
    for register in (QUEUE_NUM..0x100).step_by(4).filter(|at| *at != STATUS) {
        rig.write(register, 0x4000);
    }
    rig.write(QUEUE_READY, 0);
    rig.write(QUEUE_READY, 1);
    rig.write(STATUS, 0xf);
    rig.reset();
    let activations = rig.log.activations.lock().unwrap();
    assert_eq!(activations.len(), 1);
    assert_eq!(activations[0].queues[0].desc_table(), ring.desc());
}

#[test]
fn impossible_queues_need_a_reset() {
    let good = Ring::new(&ram(), 0, 8);
    let rings: &[(u32, u64, u64, u64)] = &[
        (0, good.desc(), good.avail(), good.used()),
        (7, good.desc(), good.avail(), good.used()),
        (16, good.desc(), good.avail(), good.used()),
        (0x1_0008, good.desc(), good.avail(), good.used()),
        (8, 0, good.avail(), good.used()),
        (8, good.desc() + 8, good.avail(), good.used()),
        (8, good.desc(), good.avail() + 1, good.used()),
        (8, good.desc(), good.avail(), good.used() + 2),
        (8, 0xff_fff0, good.avail(), good.used()),
        (8, good.desc(), 0xff_fff0, good.used()),
        (8, good.desc(), good.avail(), 0xff_fff0),
        (8, u64::MAX - 15, good.avail(), good.used()),
        (8, good.desc(), u64::MAX - 1, good.used()),
        (8, good.desc(), good.avail(), 0xd000_0000),
    ];
    for (size, desc, avail, used) in rings {
        let mut rig = rig();
        rig.negotiate();
        rig.write(QUEUE_SEL, 0);
        rig.write(QUEUE_NUM, *size);
        for (register, value) in [
            (QUEUE_DESC, desc),
            (QUEUE_DRIVER, avail),
            (QUEUE_DEVICE, used),
        ] {
            rig.write(register, *value as u32);
            rig.write(register + 4, (*value >> 32) as u32);
        }
        rig.write(QUEUE_READY, 1);
        rig.write(STATUS, 0xf);
        assert_ne!(
            rig.read(STATUS) & status::NEEDS_RESET,
            0,
            "{size} {desc:#x}"
        );
        assert_ne!(rig.read(INTERRUPT_STATUS) & INTERRUPT_CONFIG, 0);
        // Nothing but a reset helps.
        rig.write(STATUS, 0xf);
        rig.reset();
        assert_eq!(rig.activations(), 0);
        assert_eq!(rig.read(STATUS), 0);
    }
}

#[test]
fn junk_on_every_register_at_every_width_is_harmless() {
    let mut rig = rig();
    let mut junk = Junk(0x1234_5678_9abc_def1);
    for round in 0..40_000u64 {
        let offset = match round % 3 {
            0 => junk.below(4096) as usize,
            1 => junk.below(64) as usize * 4,
            _ => [STATUS, QUEUE_READY, QUEUE_SEL, DRIVER_FEATURES][junk.below(4) as usize],
        };
        let value = match junk.below(4) {
            0 => junk.below(16),
            1 => 1 << junk.below(64),
            _ => junk.next(),
        };
        let width = [1, 2, 4, 4, 4, 8][junk.below(6) as usize];
        rig.transport.write(offset, &value.to_le_bytes()[..width]);
        let mut bytes = [0u8; 8];
        rig.transport.read(offset, &mut bytes[..width]);
    }
    rig.reset();
    // What the device is cannot be changed by a driver.
    assert_eq!(rig.read(MAGIC), MAGIC_VALUE);
    assert_eq!(rig.read(DEVICE_ID), 42);
    assert_eq!(rig.read(CONFIG), 0x0403_0201);
    assert_eq!(rig.registers.load(QUEUE_NUM_MAX), 8);
}

/// A driver's device, saved and restored into another rig whose configuration may differ.
fn restored(config: Vec<u8>, change: impl FnOnce(&mut DeviceState)) -> (Rig, Result<(), Misfit>) {
    let mut first = rig();
    first.negotiate();
    let ring = Ring::new(&first.ram, 0, 8);
    first.set_up(0, &ring);
    first.write(STATUS, 0xf);
    let queues = [&ring].map(|ring| SavedQueue {
        ready: true,
        size: ring.size,
        desc: ring.desc(),
        avail: ring.avail(),
        used: ring.used(),
        next_avail: 3,
        next_used: 2,
    });
    let none = SavedQueue {
        ready: false,
        size: 4,
        desc: 0,
        avail: 0,
        used: 0,
        next_avail: 0,
        next_used: 0,
    };
    let mut state = first.transport.save(Some(vec![queues[0], none]));
    change(&mut state);
    let mut second = rig();
    second.transport.identity.config = config;
    let result = second.transport.restore(&state);
    (second, result)
}

#[test]
fn a_restored_device_goes_on_where_it_was() {
    let (mut rig, result) = restored(vec![1, 2, 3, 4, 5], |_| {});
    assert_eq!(result, Ok(()));
    assert_eq!(rig.read(STATUS), 0xf);
    assert_eq!(rig.read(INTERRUPT_STATUS), INTERRUPT_USED);
    assert!(!rig.transport.has_news());
    rig.reset();
    let activations = rig.log.activations.lock().unwrap();
    assert_eq!(activations[0].features, ACCEPTED);
    let queues = &activations[0].queues;
    assert_eq!((queues[0].next_avail(), queues[0].next_used()), (3, 2));
    assert!(queues[0].ready() && queues[0].event_idx_enabled());
    assert!(!queues[1].ready());
}

#[test]
fn a_restored_driver_hears_of_another_configuration() {
    let (rig, result) = restored(vec![9, 2, 3, 4, 5], |_| {});
    assert_eq!(result, Ok(()));
    assert!(rig.transport.has_news());
    assert_eq!(rig.read(CONFIG_GENERATION), 1);
    let pending = INTERRUPT_USED | INTERRUPT_CONFIG;
    assert_eq!(rig.read(INTERRUPT_STATUS), pending);
    // Until it has asked for something.
    rig.transport.interrupt.config_seen();
    assert_eq!(rig.read(INTERRUPT_STATUS), INTERRUPT_USED);
}

#[test]
fn a_driver_that_runs_hears_of_another_configuration() {
    let (mut rig, result) = restored(vec![1, 2, 3, 4, 5], |_| {});
    assert_eq!(result, Ok(()));
    rig.transport.configure(2, &[3, 4]);
    assert_eq!(rig.read(CONFIG_GENERATION), 0, "it is the same");
    rig.transport.configure(2, &[7, 4]);
    assert_eq!(rig.read(CONFIG), 0x0407_0201);
    assert_eq!(rig.read(CONFIG_GENERATION), 1);
    let pending = INTERRUPT_USED | INTERRUPT_CONFIG;
    assert_eq!(rig.read(INTERRUPT_STATUS), pending);
    // What it asks for just now it may have asked for before.
    rig.transport.interrupt.config_seen();
    assert_eq!(rig.read(INTERRUPT_STATUS), pending);
    // Beyond the end there is nothing.
    rig.transport.configure(4, &[1, 1]);
    rig.transport.configure(9, &[1]);
    assert_eq!(rig.read(CONFIG_GENERATION), 1);
    // Without a driver nobody is told.
    let mut idle = self::rig();
    idle.transport.configure(0, &[9]);
    assert_eq!(idle.read(CONFIG), 0x0403_0209);
    assert_eq!(idle.read(INTERRUPT_STATUS), 0);
}

#[test]
fn a_device_of_an_earlier_program_offers_what_it_did() {
    let (mut rig, result) = restored(vec![1, 2, 3, 4, 5], |state| {
        state.features = 0;
        state.driver_features = 1 << 32 | 1 << 29;
    });
    assert_eq!(result, Ok(()));
    rig.reset();
    rig.write(DEVICE_FEATURES_SEL, 0);
    assert_eq!(rig.read(DEVICE_FEATURES) & (1 << 3), 0);
}

#[test]
fn what_cannot_have_been_saved_is_not_restored() {
    let refused = |change: fn(&mut DeviceState)| {
        let (mut rig, result) = restored(vec![1, 2, 3, 4, 5], change);
        assert_eq!(result, Err(Misfit));
        rig.reset();
        assert_eq!(rig.activations(), 0);
    };
    refused(|state| state.kind = 1);
    refused(|state| state.features = 0);
    refused(|state| state.features |= 1 << 4);
    refused(|state| state.config.push(0));
    refused(|state| state.setups.clear());
    refused(|state| state.driver_features = u64::MAX);
    refused(|state| state.status = 0xb);
    refused(|state| state.queues.as_mut().unwrap().truncate(1));
    let queue = |change: fn(&mut SavedQueue)| {
        let (_, result) = restored(vec![1, 2, 3, 4, 5], |state| {
            if let Some(queues) = &mut state.queues {
                change(&mut queues[0]);
            }
        });
        assert_eq!(result, Err(Misfit));
    };
    queue(|queue| queue.size = 3);
    queue(|queue| queue.size = 512);
    queue(|queue| queue.desc = u64::MAX - 15);
    queue(|queue| queue.avail = 1);
    queue(|queue| queue.used = 0xffff_f000);
}
