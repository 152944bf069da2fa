//! A restored guest's memory, made ready for it before it runs.
//!
//! Every page that KVM has not mapped yet costs the guest an exit when it first touches it, and one
//! that it writes to is copied in there. Which pages those will be earlier guests of the same
//! snapshot have told. A thread of its own copies and maps them while the virtual machine and its
//! devices are being made: in KVM since Linux 6.12, in this process before.

use crate::memory::{Extent, GuestMemory, Touched};
use crate::thread::Thread;
use crate::vcpu::{Mapper, Vcpu};
use kvm_ioctls::Kvm;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// How long a guest waits for its memory to be made ready. Without it, it leaves for each page.
const LIMIT: Duration = Duration::from_secs(5);

/// The work. Dropping it waits for its end, for a while.
#[derive(Debug)]
pub(super) struct Premapping {
    mapper: Option<SyncSender<Mapper>>,
    thread: Option<Thread>,
}

impl Premapping {
    /// Begin, with what needs no virtual machine. `saved` is all that was mapped from a file.
    pub(super) fn begin(
        kvm: &Kvm,
        memory: &GuestMemory,
        saved: &[Extent],
        touched: Vec<Touched>,
    ) -> Option<Self> {
        let (memory, saved) = (memory.clone(), saved.to_vec());
        let (sender, mapper) = sync_channel(1);
        let builder = std::thread::Builder::new()
            .name("premap".into())
            .stack_size(64 << 10);
        let body = move || carry_out(&memory, &saved, &touched, &mapper);
        let thread = Thread::spawn(builder, body).ok()?;
        let able = kvm.check_extension_raw(Mapper::CAPABILITY) > 0;
        Some(Self {
            mapper: Some(sender).filter(|_| able),
            thread: Some(thread),
        })
    }

    /// Go on with what needs a virtual CPU, which must not run before this is dropped.
    pub(super) fn go_on(&mut self, vcpu: &Vcpu) {
        let sender = self.mapper.take();
        if let (Some(sender), Ok(mapper)) = (sender, vcpu.mapper()) {
            // The thread has not ended: it waits for this.
            let _ = sender.send(mapper);
        }
    }
}

impl Drop for Premapping {
    fn drop(&mut self) {
        self.mapper = None;
        if let Some(thread) = self.thread.take() {
            // If it runs on, KVM has it and the virtual CPU take turns.
            thread.join_until(Instant::now() + LIMIT);
        }
    }
}

fn carry_out(
    memory: &GuestMemory,
    saved: &[Extent],
    touched: &[Touched],
    mapper: &Receiver<Mapper>,
) {
    for run in touched.iter().filter(|run| run.written) {
        memory.copy_ahead(&run.pages);
    }
    let Ok(mapper) = mapper.recv() else {
        // The guest still leaves for each page, but for less long.
        for pages in saved {
            memory.map_ahead(pages);
        }
        return;
    };
    for run in touched {
        for (address, part) in memory.addresses_of(&run.pages) {
            if mapper.map(address, part.bytes).is_err() {
                return;
            }
        }
    }
}
