//! The whole way from a guest's own kernel: its instructions drive the VMM's device with raw FUSE
//! requests, and the process answers. A guest of Linux cannot do that (its kernel has no modules, no
//! `/dev/mem` and no `kexec`), a guest that has taken its kernel over can.
//!
//! The kernel here is 84 bytes that carry out a table of orders. It needs `/dev/kvm`, but not one that
//! can run Linux.

use crate::client::{LIMIT, ROOT, launcher, name, u32_at, u64_at};
use crate::fields;
use crate::hostile::{BAD_NAMES, Ground, requests_with_names};
use anyhow::{Context, Result, ensure};
use hullbox_files::Export;
use hullbox_vmm::{FilesConfig, MemorySize, Outcome, SerialConfig, VcpuCount, Vm, VmConfig};
use std::fs;
use std::io::Write;

/// Where the kernel lies, and what it uses.
const ENTRY: u64 = 0x100_0000;
const ORDERS: u64 = ENTRY + 0x1000;
/// A page directory of the fourth GiB, where devices are.
const DIRECTORY: u64 = ENTRY + 0x2_0000;
/// The queues' descriptors, available and used rings: a quarter of it each, and the rest.
const RINGS: [u64; 2] = [ENTRY + 0x3_0000, ENTRY + 0x4_0000];
const REQUESTS: u64 = ENTRY + 0x10_0000;
/// A request's room, and where in it its reply is.
const ROOM: u64 = 0x400;
const REPLY: u64 = 0x200;
const END: u64 = ENTRY + 0x20_0000;
/// What the VMM maps the fourth GiB by, and the first device's registers.
const DIRECTORY_POINTER: u64 = 0xa018;
const DEVICE: u64 = 0xd000_0000;
const QUEUE_SIZES: [u16; 2] = [64, 512];
/// So much of each reply is told at the end.
const TOLD: u64 = 0xa0;

/// Carries out the orders: four numbers of 32 bits each, of which the first says what to do.
const CODE: &[u8] = &[
    0xbe, 0x00, 0x10, 0x00, 0x01, // mov esi, ORDERS
    // next:
    0x8b, 0x06, 0x8b, 0x7e, 0x04, // mov eax, [rsi]; mov edi, [rsi+4]
    0x8b, 0x5e, 0x08, 0x8b, 0x4e, 0x0c, // mov ebx, [rsi+8]; mov ecx, [rsi+12]
    0x83, 0xc6, 0x10, // add esi, 16
    0x3c, 0x01, 0x74, 0x15, // cmp al, 1; je store
    0x3c, 0x02, 0x74, 0x15, // cmp al, 2; je wait
    0x3c, 0x03, 0x74, 0x18, // cmp al, 3; je say
    0x3c, 0x04, 0x74, 0x23, // cmp al, 4; je copy
    0x66, 0xba, 0xe0, 0x05, 0xb0, 0x01, 0xee, // mov dx, 0x5e0; mov al, 1; out dx, al
    0xeb, 0xfe, // jmp $
    // store: mov [rdi], ebx; jmp next
    0x89, 0x1f, 0xeb, 0xd5, //
    // wait: cmp [rdi], bx; jne wait; jmp next
    0x66, 0x39, 0x1f, 0x75, 0xfb, 0xeb, 0xce, //
    // say: mov dx, 0x3f8; { mov al, [rdi]; out dx, al; inc edi; dec ebx; jnz }; jmp next
    0x66, 0xba, 0xf8, 0x03, 0x8a, 0x07, 0xee, 0xff, 0xc7, 0xff, 0xcb, 0x75, 0xf7, 0xeb,
    0xbf, //
    // copy: { mov al, [rdi]; mov [rbx], al; inc edi; inc ebx; dec ecx; jnz }; jmp next
    0x8a, 0x07, 0x88, 0x03, 0xff, 0xc7, 0xff, 0xc3, 0xff, 0xc9, 0x75, 0xf4, 0xeb, 0xb1,
];

/// An address or a number below 4 GiB.
fn low(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A kernel that sends requests, and what it needs for that.
struct Kernel {
    /// From [`ENTRY`] on.
    image: Vec<u8>,
    orders: Vec<u8>,
    /// Requests so far.
    count: u16,
}

/// A descriptor: address, length, flags and the next one.
type Descriptor = (u64, u32, u16, u16);

const NEXT: u16 = 1;
const WRITE: u16 = 2;

impl Kernel {
    /// One that has set the device up.
    fn new() -> Self {
        let mut kernel = Self {
            image: vec![0; usize::try_from(END - ENTRY).unwrap_or(0)],
            orders: Vec::new(),
            count: 0,
        };
        kernel.put(ENTRY, CODE);
        // Pages of 2 MiB: present, writable, huge.
        for index in 0..512u64 {
            let entry = (0xc000_0000 + (index << 21)) | 0x83;
            kernel.put(DIRECTORY + index * 8, &entry.to_le_bytes());
        }
        kernel.store(DIRECTORY_POINTER, low(DIRECTORY) | 3);
        for (register, value) in [(0x70, 1), (0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11)] {
            kernel.register(register, value);
        }
        for (index, (rings, size)) in RINGS.into_iter().zip(QUEUE_SIZES).enumerate() {
            kernel.register(0x30, low(index as u64));
            for (register, value) in [
                (0x38, u32::from(size)),
                (0x80, low(rings)),
                (0x90, low(rings + 0x4000)),
                (0xa0, low(rings + 0x8000)),
                (0x44, 1),
            ] {
                kernel.register(register, value);
            }
        }
        kernel.register(0x70, 15);
        kernel
    }

    /// Places bytes in memory as it is in the beginning.
    fn put(&mut self, at: u64, bytes: &[u8]) {
        let at = usize::try_from(at - ENTRY).unwrap_or(usize::MAX);
        self.image[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn order(&mut self, what: u32, at: u64, value: u32, count: u32) {
        self.orders.extend(fields!(what, low(at), value, count));
    }

    fn store(&mut self, at: u64, value: u32) {
        self.order(1, at, value, 0);
    }

    fn register(&mut self, offset: u64, value: u32) {
        self.store(DEVICE + offset, value);
    }

    fn room(number: u16) -> u64 {
        REQUESTS + u64::from(number) * ROOM
    }

    /// Has a number of an earlier reply, such as that of a file, be in a later request.
    fn copy_number(&mut self, from: (u16, u64), to: (u16, u64)) {
        let from = Self::room(from.0) + REPLY + from.1;
        let to = Self::room(to.0) + to.1;
        self.order(4, from, low(to), 8);
    }

    /// Puts a request where it is taken from: its number.
    fn prepare(&mut self, opcode: u32, node: u64, body: &[u8]) -> u16 {
        let number = self.count;
        let len = 40 + low(body.len() as u64);
        let unique = u64::from(number) + 1;
        let header = fields!(len, opcode, unique, node, 0u32, 0u32, 1u32, 0u32);
        self.put(Self::room(number), &[&header, body].concat());
        let chain = [
            (Self::room(number), len, NEXT, number * 2 + 1),
            (Self::room(number) + REPLY, 0x200, WRITE, 0),
        ];
        self.chain(number, &chain);
        self.count += 1;
        number
    }

    /// Its descriptors.
    fn chain(&mut self, number: u16, chain: &[Descriptor]) {
        for (index, (address, len, flags, next)) in (0u64..).zip(chain) {
            let at = RINGS[1] + (u64::from(number) * 2 + index) * 16;
            self.put(at, &fields!(*address, *len, *flags, *next));
        }
    }

    /// Offers it, and waits until it has come back.
    fn send(&mut self, number: u16) {
        self.offer(number);
        self.order(2, RINGS[1] + 0x8002, u32::from(number) + 1, 0);
    }

    fn offer(&mut self, number: u16) {
        let available = RINGS[1] + 0x4000;
        let entry = available + 4 + u64::from(number) * 2;
        self.store(entry, u32::from(number) * 2);
        self.store(available, (u32::from(number) + 1) << 16);
        self.register(0x50, 1);
    }

    fn ask(&mut self, opcode: u32, node: u64, body: &[u8]) -> u16 {
        let number = self.prepare(opcode, node, body);
        self.send(number);
        number
    }

    /// A request about a file that another request has found.
    fn ask_of(&mut self, opcode: u32, found: u16, body: &[u8]) -> u16 {
        let number = self.prepare(opcode, 0, body);
        self.copy_number((found, 16), (number, 16));
        self.send(number);
        number
    }

    /// Runs it before a server of these. What each request's place for a reply holds at the end.
    fn run(mut self, exports: &[Export]) -> Result<Option<Vec<Vec<u8>>>> {
        if fs::File::open("/dev/kvm").is_err() {
            eprintln!("skipped: no usable /dev/kvm");
            return Ok(None);
        }
        for number in 0..self.count {
            self.order(3, Self::room(number) + REPLY, low(TOLD), 0);
        }
        self.order(0, 0, 0, 0);
        ensure!(ORDERS + (self.orders.len() as u64) < DIRECTORY);
        let orders = std::mem::take(&mut self.orders);
        self.put(ORDERS, &orders);
        let dir = tempfile::tempdir()?;
        let kernel = dir.path().join("kernel");
        fs::File::create(&kernel)?.write_all(&elf(&self.image))?;
        let mut config = VmConfig::new(VcpuCount::new(1)?, MemorySize::from_mib(64)?, &kernel);
        let said = dir.path().join("said");
        config.serial = SerialConfig::file(&said);
        config.files = Some(FilesConfig { tag: "raw".into() });
        let started = launcher().start(exports)?.finish(LIMIT)?;
        let mut process = started.process.context("no process")?;
        let vm = Vm::new(config)?;
        vm.connect_files(started.connection)?;
        let running = vm.start()?;
        let handle = running.handle();
        let limit = std::thread::spawn({
            let ended = running.ended().try_clone_to_owned()?;
            move || {
                let mut fds = [rustix::event::PollFd::new(
                    &ended,
                    rustix::event::PollFlags::IN,
                )];
                let limit = rustix::event::Timespec::try_from(LIMIT).ok();
                let _ = rustix::event::poll(&mut fds, limit.as_ref());
                handle.stop();
            }
        });
        ensure!(process.try_wait()?.is_none(), "the server has ended");
        let outcome = running.wait();
        limit.join().ok().context("the clock's thread")?;
        ensure!(outcome == Outcome::Shutdown, "{outcome:?}");
        let said = fs::read(&said)?;
        let replies = said.chunks(usize::try_from(TOLD)?);
        Ok(Some(replies.map(<[u8]>::to_vec).collect()))
    }
}

/// An ELF kernel of one piece.
fn elf(image: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0u8; 4096];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[18..20].copy_from_slice(&62u16.to_le_bytes());
    bytes[24..32].copy_from_slice(&ENTRY.to_le_bytes());
    bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
    bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
    bytes[56..58].copy_from_slice(&1u16.to_le_bytes());
    let len = image.len() as u64;
    for (index, value) in [1 | 7 << 32, 4096, ENTRY, ENTRY, len, len, 4096]
        .iter()
        .enumerate()
    {
        bytes[64 + index * 8..72 + index * 8].copy_from_slice(&u64::to_le_bytes(*value));
    }
    bytes.extend_from_slice(image);
    bytes
}

/// What a reply says: an error, or 0.
fn error_of(replies: &[Vec<u8>], number: u16) -> i32 {
    let reply = &replies[usize::from(number)];
    -u32_at(reply, 4).cast_signed()
}

/// The first requests of every guest: the session, the export, and two files in it.
fn begin(kernel: &mut Kernel) -> [u16; 3] {
    let body = [
        fields!(7u32, 38u32, 1u32 << 20, u32::MAX, 0u32),
        vec![0; 44],
    ]
    .concat();
    kernel.ask(26, 0, &body);
    let export = kernel.ask(1, ROOT, &name("0"));
    let sub = kernel.ask_of(1, export, &name("sub"));
    let file = kernel.ask_of(1, export, &name("file"));
    [export, sub, file]
}

/// Every request with a name, and every name that leads out.
pub fn its_names_lead_nowhere() -> Result<()> {
    let ground = Ground::new()?;
    let mut kernel = Kernel::new();
    let [export, sub, file] = begin(&mut kernel);
    let mut bad = Vec::new();
    // Numbers of files are put in by the guest, which alone knows them.
    for (opcode, before, behind) in requests_with_names(SUB, FILE) {
        for name in BAD_NAMES {
            let is_ended = name.ends_with(b"\0");
            let behind: &[u8] = if is_ended { &behind } else { &[] };
            let body = [&before, name, behind].concat();
            let number = kernel.prepare(opcode, 0, &body);
            kernel.copy_number((export, 16), (number, 16));
            match before
                .first_chunk::<8>()
                .map(|bytes| u64::from_le_bytes(*bytes))
            {
                Some(SUB) => kernel.copy_number((sub, 16), (number, 40)),
                Some(FILE) => kernel.copy_number((file, 16), (number, 40)),
                _ => {}
            }
            kernel.send(number);
            bad.push((number, opcode, name));
        }
    }
    let Some(replies) = kernel.run(&[ground.export()])? else {
        return Ok(());
    };
    for found in [export, sub, file] {
        ensure!(error_of(&replies, found) == 0 && u64_at(&replies[usize::from(found)], 16) > 1);
    }
    ensure!(bad.len() == 13 * BAD_NAMES.len());
    for (number, opcode, name) in bad {
        let error = error_of(&replies, number);
        ensure!(error == libc::EINVAL, "{opcode} of {name:?}: {error}");
    }
    ground.is_whole()
}

/// Numbers that stand for those of files until the guest puts in what it was told.
const SUB: u64 = 0x5b5b_5b5b_5b5b_5b5b;
const FILE: u64 = 0xf11e_f11e_f11e_f11e;

/// What is read-only is so for a guest that asks the server itself.
pub fn it_changes_nothing_that_is_read_only() -> Result<()> {
    let ground = Ground::new()?;
    let read_only = Export {
        read_only: true,
        ..ground.export()
    };
    let mut kernel = Kernel::new();
    let [export, sub, file] = begin(&mut kernel);
    let new = name("new");
    let set = |valid: u32| [fields!(valid, 0u32), vec![0; 80]].concat();
    let create = [
        fields!(libc::O_RDWR | libc::O_CREAT, 0o644u32, 0u32, 0u32),
        new.clone(),
    ]
    .concat();
    let value = [fields!(1u32, 0u32), name("user.x"), vec![1]].concat();
    let mut refused = Vec::new();
    for (opcode, of, body) in [
        (4, file, set(1)),
        (4, file, set(8)),
        (6, export, [new.clone(), name("x")].concat()),
        (
            8,
            export,
            [fields!(0o100_644u32, 0u32, 0u32, 0u32), new.clone()].concat(),
        ),
        (9, export, [fields!(0o755u32, 0u32), new.clone()].concat()),
        (10, export, name("file")),
        (11, export, name("sub")),
        (14, file, fields!(libc::O_RDWR, 0u32)),
        (14, file, fields!(libc::O_RDONLY | libc::O_TRUNC, 0u32)),
        (21, file, value),
        (35, export, create.clone()),
        (35, sub, create.clone()),
        (51, export, create),
    ] {
        refused.push((opcode, kernel.ask_of(opcode, of, &body)));
    }
    let Some(replies) = kernel.run(&[read_only])? else {
        return Ok(());
    };
    for (opcode, number) in refused {
        let error = error_of(&replies, number);
        ensure!(error == libc::EROFS, "{opcode}: {error}");
    }
    ensure!(fs::read_to_string(ground.file())? == "in the export");
    ground.is_whole()
}

/// Queues and headers that lie: the device refuses what it cannot pass on, and what it passes on the
/// server refuses. Whoever asks properly behind that is answered all the same.
pub fn its_queue_may_lie() -> Result<()> {
    let ground = Ground::new()?;
    let mut kernel = Kernel::new();
    let [export, _, file] = begin(&mut kernel);
    let get = |kernel: &mut Kernel| kernel.prepare(3, ROOT, &[0; 16]);
    // What the request's own header says, and what there is.
    let mut lengths = Vec::new();
    for len in [0u32, 39, 55, 57, 4096, u32::MAX] {
        let number = get(&mut kernel);
        kernel.put(Kernel::room(number), &len.to_le_bytes());
        kernel.send(number);
        lengths.push(number);
    }
    // A chain without an end; hardly room for a reply; room where no memory is, or the VMM's own things
    // are; a request that lies beyond all memory.
    let odd: [fn(u64, u16) -> [Descriptor; 2]; 5] = [
        |at, next| [(at, 56, NEXT, next), (at, 56, NEXT, next - 1)],
        |at, next| [(at, 56, NEXT, next), (at + REPLY, 15, WRITE, 0)],
        |at, next| [(at, 56, NEXT, next), (1 << 40, 0x200, WRITE, 0)],
        |at, next| [(at, 56, NEXT, next), (DEVICE, 0x200, WRITE, 0)],
        |at, next| {
            [
                (u64::MAX - 20, 56, NEXT, next),
                (at + REPLY, 0x200, WRITE, 0),
            ]
        },
    ];
    let mut silent = Vec::new();
    for chain in odd {
        let number = get(&mut kernel);
        let chain = chain(Kernel::room(number), number * 2 + 1);
        kernel.chain(number, &chain);
        kernel.send(number);
        silent.push(number);
    }
    // Sizes and numbers that lie, in messages that do not.
    let mut refused = Vec::new();
    for (opcode, body) in [
        (14, vec![0; 7]),
        (
            15,
            fields!(u64::MAX, 0u64, u32::MAX, 0u32, 0u64, 0u32, 0u32),
        ),
        (16, fields!(1u64, 0u64, u32::MAX, 0u32, 0u64, 0u32, 0u32)),
        (18, fields!(u64::MAX, 0u32, 0u32, 0u64)),
        (21, [fields!(u32::MAX, 0u32), name("user.x")].concat()),
        (46, fields!(1u64, u64::MAX, 3u32, 0u32)),
        (4096, Vec::new()),
    ] {
        refused.push((opcode, kernel.ask_of(opcode, file, &body)));
    }
    let last = kernel.ask_of(1, export, &name("file"));
    let Some(replies) = kernel.run(&[ground.export()])? else {
        return Ok(());
    };
    for number in lengths {
        ensure!(error_of(&replies, number) == libc::EIO, "length: {number}");
    }
    for number in silent {
        let reply = &replies[usize::from(number)];
        let answered = u32_at(reply, 0);
        ensure!(
            answered == 0 || error_of(&replies, number) == libc::EIO,
            "{reply:?}"
        );
    }
    for (opcode, number) in refused {
        ensure!(error_of(&replies, number) > 0, "{opcode}");
    }
    let reply = &replies[usize::from(last)];
    ensure!(
        u32_at(reply, 0) == 144 && u64_at(reply, 16 + 48) == 13,
        "{reply:?}"
    );
    ground.is_whole()
}
