//! Threads that do the devices' work: one epoll loop each, for one or more devices.

use crate::stats::Counters;
use crate::thread::{STOP_LIMIT, Thread};
use crate::virtio::{Activation, Backend, Immediate, SavedQueue, Stopping};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Instant;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

/// What a transport asks of a worker.
#[derive(Debug)]
enum Command {
    Activate(usize, Box<Activation>),
    Reset(usize, SyncSender<()>),
    /// Tell the queues of all devices, and then do nothing until told to go on.
    Pause(SyncSender<PausedQueues>),
    Resume,
    Stop,
}

/// The queues of each of a worker's devices, if its driver is ready.
pub(crate) type PausedQueues = Vec<Option<Vec<SavedQueue>>>;

/// The sending end of a worker's requests.
#[derive(Debug, Clone)]
struct Mailbox {
    sender: Sender<Command>,
    wake: Arc<EventFd>,
}

impl Mailbox {
    fn send(&self, command: Command) {
        if self.sender.send(command).is_ok() {
            // The worker empties the counter; it cannot overflow.
            let _ = self.wake.write(1);
        }
    }
}

/// A transport's connection to its device.
#[derive(Debug, Clone)]
pub(crate) struct DeviceLink {
    device: usize,
    mailbox: Mailbox,
    notify: Arc<EventFd>,
    immediate: Option<Arc<dyn Immediate>>,
}

impl DeviceLink {
    /// Hand the queues over.
    pub(crate) fn activate(&self, activation: Activation) {
        self.mailbox
            .send(Command::Activate(self.device, Box::new(activation)));
    }

    /// Take the queues away, and wait until the device has let go of guest memory.
    pub(crate) fn reset(&self) {
        let (done, wait) = sync_channel(1);
        self.mailbox.send(Command::Reset(self.device, done));
        // An error means that the worker, and with it the device, is gone already.
        let _ = wait.recv();
    }

    /// Have the queues served: by the calling thread as far as it can, otherwise by the device's.
    pub(crate) fn notify(&self) {
        let served = self.immediate.as_ref().is_some_and(|all| all.serve());
        if !served {
            let _ = self.notify.write(1);
        }
    }

    /// The same for whoever the device knows, and who has its thread look in any case.
    pub(crate) fn of_thread(&self) -> Self {
        Self {
            immediate: None,
            ..self.clone()
        }
    }

    /// The descriptor for KVM to write to when the driver notifies the device; none if the virtual
    /// CPU has to come out and call [`Self::notify`].
    pub(crate) fn notify_event(&self) -> Option<&EventFd> {
        self.immediate.is_none().then_some(&*self.notify)
    }
}

/// A device as its worker sees it.
#[derive(Debug)]
struct Slot {
    backend: Box<dyn Backend>,
    notify: Arc<EventFd>,
    active: bool,
    /// What its own source is watched for, and which that is.
    watched: EventSet,
    source: RawFd,
}

/// A worker that is being put together.
#[derive(Debug)]
pub(crate) struct Worker {
    slots: Vec<Slot>,
    mailbox: Mailbox,
    commands: Receiver<Command>,
    stopping: Stopping,
}

impl Worker {
    pub(crate) fn new() -> io::Result<Self> {
        let (sender, commands) = channel();
        let wake = Arc::new(crate::virtio::event()?);
        Ok(Self {
            slots: Vec::new(),
            mailbox: Mailbox { sender, wake },
            commands,
            stopping: Stopping::default(),
        })
    }

    /// Whether there is anything to do at all.
    pub(crate) const fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Give the worker a device.
    pub(crate) fn add(&mut self, mut backend: Box<dyn Backend>) -> io::Result<DeviceLink> {
        backend.watch(self.stopping.clone());
        let notify = Arc::new(crate::virtio::event()?);
        let link = DeviceLink {
            device: self.slots.len(),
            mailbox: self.mailbox.clone(),
            notify: Arc::clone(&notify),
            immediate: backend.immediate(),
        };
        self.slots.push(Slot {
            backend,
            notify,
            active: false,
            watched: EventSet::empty(),
            source: -1,
        });
        Ok(link)
    }

    /// Start the thread. `failed` is told if the loop ends in an error.
    pub(crate) fn start(
        mut self,
        name: &str,
        counters: Arc<Counters>,
        failed: impl FnOnce(io::Error) + Send + 'static,
    ) -> io::Result<WorkerThread> {
        let mailbox = self.mailbox.clone();
        let stopping = self.stopping.clone();
        let epoll = self.epoll()?;
        let builder = std::thread::Builder::new()
            .name(name.to_owned())
            // The loop's deepest call needs a few KiB.
            .stack_size(256 << 10);
        let thread = Thread::spawn(builder, move || {
            if let Err(error) = self.run(&epoll, &counters) {
                failed(error);
            }
        })?;
        Ok(WorkerThread {
            mailbox,
            stopping,
            thread: Some(thread),
        })
    }

    /// Event data: 0 for commands; for device `n` 2n+1 is its notification, 2n+2 its own source.
    fn epoll(&mut self) -> io::Result<Epoll> {
        let epoll = Epoll::new()?;
        let add = |fd: RawFd, data| {
            let event = EpollEvent::new(EventSet::IN, data);
            epoll.ctl(ControlOperation::Add, fd, event)
        };
        add(self.mailbox.wake.as_raw_fd(), 0)?;
        for (index, slot) in self.slots.iter_mut().enumerate() {
            add(slot.notify.as_raw_fd(), index as u64 * 2 + 1)?;
            slot.watch(&epoll, index)?;
        }
        Ok(epoll)
    }

    fn run(mut self, epoll: &Epoll, counters: &Counters) -> io::Result<()> {
        let mut events = [EpollEvent::default(); 16];
        loop {
            let count = match epoll.wait(-1, &mut events) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for event in &events[..count] {
                let data = event.data();
                if data == 0 {
                    let _ = self.mailbox.wake.read();
                    if self.obey(epoll)? {
                        return Ok(());
                    }
                    continue;
                }
                let index = ((data - 1) / 2) as usize;
                if let Some(slot) = self.slots.get_mut(index) {
                    slot.handle(data % 2 == 1, counters);
                    slot.watch(epoll, index)?;
                }
            }
        }
    }

    /// Carry out all commands; true is the end.
    fn obey(&mut self, epoll: &Epoll) -> io::Result<bool> {
        let mut paused = false;
        loop {
            let command = if paused {
                self.commands.recv().ok()
            } else {
                self.commands.try_recv().ok()
            };
            let Some(command) = command else {
                // Nobody is left who could let it go on.
                return Ok(paused);
            };
            match command {
                Command::Stop => return Ok(true),
                Command::Pause(answer) => {
                    paused = true;
                    let queues = self.slots.iter().map(|slot| slot.backend.queues());
                    // Whoever asked may have gone.
                    let _ = answer.send(queues.collect());
                }
                Command::Resume => paused = false,
                Command::Activate(device, activation) => {
                    if let Some(slot) = self.slots.get_mut(device) {
                        slot.backend.activate(*activation);
                        slot.active = true;
                        slot.watch(epoll, device)?;
                        // Buffers may be there already.
                        let _ = slot.notify.write(1);
                    }
                }
                Command::Reset(device, done) => {
                    if let Some(slot) = self.slots.get_mut(device) {
                        slot.backend.reset();
                        slot.active = false;
                        slot.watch(epoll, device)?;
                    }
                    let _ = done.send(());
                }
            }
        }
    }
}

impl Slot {
    /// Watch the device's own source for what it waits for now.
    fn watch(&mut self, epoll: &Epoll, index: usize) -> io::Result<()> {
        let Some(fd) = self.backend.poll_fd() else {
            return Ok(());
        };
        if fd != self.source {
            if !self.watched.is_empty() {
                // The device keeps it until it was asked for the next one.
                epoll.ctl(ControlOperation::Delete, self.source, EpollEvent::default())?;
                self.watched = EventSet::empty();
            }
            self.source = fd;
        }
        let wanted = self.backend.interest();
        let operation = match (self.watched.is_empty(), wanted.is_empty()) {
            _ if wanted == self.watched => return Ok(()),
            (true, _) => ControlOperation::Add,
            (false, true) => ControlOperation::Delete,
            (false, false) => ControlOperation::Modify,
        };
        let event = EpollEvent::new(wanted, index as u64 * 2 + 2);
        epoll.ctl(operation, fd, event)?;
        self.watched = wanted;
        Ok(())
    }

    fn handle(&mut self, notified: bool, counters: &Counters) {
        let more = if notified {
            let _ = self.notify.read();
            if !self.active {
                return;
            }
            counters.queue_notifications.add(1);
            self.backend.notify()
        } else {
            self.backend.ready()
        };
        if more {
            let _ = self.notify.write(1);
        }
    }
}

/// A worker that runs. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct WorkerThread {
    mailbox: Mailbox,
    stopping: Stopping,
    thread: Option<Thread>,
}

impl WorkerThread {
    /// Have the devices finish what they are at and keep still. `None` if the thread has ended, or
    /// does not answer before the deadline.
    pub(crate) fn pause(&self, deadline: Instant) -> Option<PausedQueues> {
        let (sender, answer) = sync_channel(1);
        self.mailbox.send(Command::Pause(sender));
        let left = deadline.saturating_duration_since(Instant::now());
        answer.recv_timeout(left).ok()
    }

    /// Let them go on.
    pub(crate) fn resume(&self) {
        self.mailbox.send(Command::Resume);
    }

    /// Have the devices give up what they are at, and the thread end.
    pub(crate) fn stop(&self) {
        self.stopping.set();
        self.mailbox.send(Command::Stop);
    }

    /// Stop the thread and wait for its end. False: a device is in a system call that does not
    /// return, and its thread is left to itself.
    pub(crate) fn join_until(&mut self, deadline: Instant) -> bool {
        self.stop();
        self.thread
            .take()
            .is_none_or(|thread| thread.join_until(deadline))
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        self.join_until(Instant::now() + STOP_LIMIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    /// A device whose file system does not answer.
    #[derive(Debug)]
    struct Hung {
        entered: Sender<()>,
        release: Receiver<()>,
    }

    impl Backend for Hung {
        fn activate(&mut self, _: Activation) {}

        fn notify(&mut self) -> bool {
            let _ = self.entered.send(());
            let _ = self.release.recv();
            false
        }

        fn queues(&self) -> Option<Vec<SavedQueue>> {
            None
        }

        fn reset(&mut self) {}
    }

    #[test]
    fn a_device_that_hangs_holds_nobody_up() {
        let ram = crate::virtio::testing::ram();
        let (activation, _) = crate::virtio::testing::activation(&ram, &[]);
        let (entered, inside) = channel();
        let (release, wait) = channel();
        let mut worker = Worker::new().unwrap();
        let hung = Hung {
            entered,
            release: wait,
        };
        let link = worker.add(Box::new(hung)).unwrap();
        let counters = Arc::new(Counters::default());
        let mut running = worker.start("test", counters, |_| ()).unwrap();
        link.activate(activation);
        inside.recv().unwrap();
        let now = Instant::now();
        assert!(running.pause(now).is_none());
        running.resume();
        assert!(!running.join_until(now));
        drop(release);
    }

    /// It asks for another turn each time, for as long as it runs.
    #[derive(Debug)]
    struct Busy(Stopping);

    impl Backend for Busy {
        fn watch(&mut self, stopping: Stopping) {
            self.0 = stopping;
        }

        fn activate(&mut self, _: Activation) {}

        fn notify(&mut self) -> bool {
            true
        }

        fn queues(&self) -> Option<Vec<SavedQueue>> {
            None
        }

        fn reset(&mut self) {}
    }

    #[test]
    fn a_device_that_never_rests_is_paused_and_stopped() {
        let ram = crate::virtio::testing::ram();
        let (activation, _) = crate::virtio::testing::activation(&ram, &[]);
        let mut worker = Worker::new().unwrap();
        let link = worker.add(Box::new(Busy(Stopping::default()))).unwrap();
        let counters = Arc::new(Counters::default());
        let mut running = worker.start("test", counters, |_| ()).unwrap();
        link.activate(activation);
        let deadline = Instant::now() + Duration::from_secs(600);
        assert!(running.pause(deadline).is_some());
        running.resume();
        assert!(running.join_until(deadline));
    }
}
