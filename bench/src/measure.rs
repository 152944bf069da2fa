//! The rounds. Contenders take turns in each, in random order, so that a drift of the machine's speed affects all of
//! them alike, and all processes of one contender have exited before the next one's turn.

use crate::contender::{Contender, Way};
use crate::error::BenchError;
use crate::memory::{Resident, available_bytes};
use crate::metrics::Probe;
use crate::report::Samples;
use crate::runner::{Ran, Runner, Streams, descendants, one_line};
use crate::scratch::Scratch;
use crate::veth::Veth;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::process::Command;
use std::thread;
use std::time::Duration;

/// How long an instance is idle before its memory is measured.
const REST: Duration = Duration::from_millis(300);
/// Containers' names, after the benchmark's own.
const RUN: &str = "run";
const HOLD: &str = "hold";
const NETWORKED: &str = "networked";
/// Programs started in a running container in each round.
const EXECS: usize = 3;

/// How much work the probes do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amounts {
    touch_mib: u64,
    syscalls: u64,
    spawns: u64,
    cpu_million: u64,
    disk_mib: u64,
    random_operations: u64,
    files: u64,
    stream_mib: u64,
    network_ms: u64,
}

impl Amounts {
    /// Enough for differences to be significant on an emulated processor.
    pub(crate) const FULL: Self = Self {
        touch_mib: 32,
        syscalls: 100_000,
        spawns: 25,
        cpu_million: 20,
        disk_mib: 32,
        random_operations: 250,
        files: 500,
        stream_mib: 32,
        network_ms: 300,
    };
    /// Just enough to see whether everything runs.
    pub(crate) const QUICK: Self = Self {
        touch_mib: 20,
        syscalls: 10_000,
        spawns: 4,
        cpu_million: 2,
        disk_mib: 4,
        random_operations: 20,
        files: 50,
        stream_mib: 2,
        network_ms: 40,
    };
}

/// Everything that one turn needs.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub(crate) runner: &'a Runner,
    pub(crate) scratch: &'a Scratch,
    pub(crate) probes: &'a [Probe],
    pub(crate) amounts: Amounts,
    pub(crate) instances: usize,
    pub(crate) samples: Samples,
    /// Where the server is that a user-mode network's gateway leads to.
    pub(crate) server_port: u16,
    /// Contenders' ids, and why their networks are not measured.
    pub(crate) unnetworked: Vec<(String, String)>,
    /// Whether a network that does not work ends the benchmark: that of a contender of ours that was
    /// asked for, or any after the warm-up.
    pub(crate) networks_must_work: NetworksMustWork,
    /// Contenders' ids and containers' names, of those that may be there.
    pub(crate) live: RefCell<Vec<(String, String)>>,
}

/// Whose networks have to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NetworksMustWork {
    /// Nobody's: it is being found out.
    No,
    /// Ours.
    Ours,
    /// Those that did.
    All,
}

impl Bench<'_> {
    fn wants(&self, probe: Probe) -> bool {
        self.probes.contains(&probe)
    }

    /// What a contender needs before its first turn.
    pub(crate) fn prepare(&self, contender: &Contender) -> Result<(), BenchError> {
        for command in contender.prepare(self.scratch) {
            let what = "making what its guests begin at";
            self.command(contender, what, command, Streams::Detached)?;
        }
        if self.wants(Probe::Network) {
            for command in contender.prepare_networked(self.scratch) {
                let what = "making what its guests with a network begin at";
                self.command(contender, what, command, Streams::Detached)?;
            }
        }
        self.settle(contender).map(drop)
    }

    /// One contender's turn in a round.
    pub(crate) fn turn(&mut self, contender: &Contender) -> Result<(), BenchError> {
        if self.wants(Probe::Start) {
            self.start(contender)?;
        }
        if self.wants(Probe::Network) {
            self.network_if_it_works(contender)?;
        }
        let only_apart = [Probe::Start, Probe::Density, Probe::Network];
        if self.probes.iter().any(|probe| !only_apart.contains(probe)) {
            self.background(contender, HOLD)?;
            self.inside(contender)?;
            self.remove(contender, HOLD)?;
            self.settle(contender)?;
        }
        Ok(())
    }

    fn add(&mut self, metric: &'static str, contender: &Contender, value: f64) {
        self.samples.add(metric, &contender.named.id, value);
    }

    fn settle(&self, contender: &Contender) -> Result<Duration, BenchError> {
        self.runner.settle(&contender.named.label)
    }

    fn command(
        &self,
        contender: &Contender,
        what: &str,
        mut command: Command,
        streams: Streams,
    ) -> Result<Ran, BenchError> {
        self.runner
            .run(&contender.named.label, what, &mut command, streams)
    }

    fn background(&self, contender: &Contender, name: &str) -> Result<Ran, BenchError> {
        let own_name = self.scratch.container(name);
        let command = match name {
            NETWORKED => contender.start_networked(self.scratch, &own_name),
            _ => contender.start(self.scratch, &own_name),
        };
        self.lives(contender, name);
        self.command(
            contender,
            "starting a container",
            command,
            Streams::Detached,
        )
    }

    fn remove(&self, contender: &Contender, name: &str) -> Result<(), BenchError> {
        let command = contender.remove(self.scratch, &self.scratch.container(name));
        let what = "removing a container";
        self.command(contender, what, command, Streams::Detached)?;
        self.is_gone(contender, name);
        Ok(())
    }

    fn lives(&self, contender: &Contender, name: &str) {
        let one = (contender.named.id.clone(), name.to_owned());
        self.live.borrow_mut().push(one);
    }

    fn is_gone(&self, contender: &Contender, name: &str) {
        let mut live = self.live.borrow_mut();
        live.retain(|(id, of)| *id != contender.named.id || of != name);
    }

    fn start(&mut self, contender: &Contender) -> Result<(), BenchError> {
        let command = contender.run(self.scratch, &self.scratch.container(RUN));
        self.lives(contender, RUN);
        let ran = self.command(contender, "a run", command, contender.input())?;
        let cleanup = self.settle(contender)?;
        self.is_gone(contender, RUN);
        figures(contender, "a run", &ran)?;
        let first = ran.first_output.unwrap_or(ran.took);
        self.add("start.output", contender, nanos(first));
        self.add("start.exit", contender, nanos(ran.took));
        self.add("start.cleanup", contender, nanos(cleanup));
        Ok(())
    }

    /// All rows of one running container; its memory first, before anything else runs in it.
    fn inside(&mut self, contender: &Contender) -> Result<(), BenchError> {
        if self.wants(Probe::Memory) {
            thread::sleep(REST);
            let resident = Resident::of(&descendants());
            self.add("memory.private", contender, resident.private_bytes as f64);
            self.add("memory.shared", contender, resident.shared_bytes as f64);
            if resident.guest_bytes > 0 {
                self.add("memory.guest", contender, resident.guest_bytes as f64);
            }
        }
        if self.wants(Probe::Exec) {
            // The first one brings the program into memory.
            for number in 0..=EXECS {
                let took = self.exec(contender, HOLD)?;
                if number > 0 {
                    self.add("exec.exit", contender, nanos(took));
                }
            }
        }
        if self.wants(Probe::Kernel) {
            self.kernel(contender)?;
        }
        self.work(contender)?;
        if self.wants(Probe::Streams) {
            self.streams(contender)?;
        }
        Ok(())
    }

    fn exec(&self, contender: &Contender, name: &str) -> Result<Duration, BenchError> {
        let name = self.scratch.container(name);
        let command = contender.exec(self.scratch, &name, false, &["hello"]);
        let ran = self.command(contender, "an exec", command, Streams::Output)?;
        figures(contender, "an exec", &ran)?;
        Ok(ran.took)
    }

    /// Runs the probe in the container and reads its figures.
    fn probe(&self, contender: &Contender, args: &[&str]) -> Result<Figures, BenchError> {
        self.probe_in(contender, HOLD, args)
    }

    fn probe_in(
        &self,
        contender: &Contender,
        name: &str,
        args: &[&str],
    ) -> Result<Figures, BenchError> {
        let command = contender.exec(self.scratch, &self.scratch.container(name), false, args);
        let what = format!("the probe {:?}", args.first().unwrap_or(&""));
        let ran = self.command(contender, &what, command, Streams::Output)?;
        figures(contender, &what, &ran)
    }

    fn kernel(&mut self, contender: &Contender) -> Result<(), BenchError> {
        let amounts = self.amounts;
        let touch = self.probe(contender, &["memory", &amounts.touch_mib.to_string()])?;
        self.add(
            "kernel.first_touch",
            contender,
            touch.each("first_touch_ns", "pages")?,
        );
        self.add("kernel.touch", contender, touch.each("touch_ns", "pages")?);
        let calls = self.probe(contender, &["syscalls", &amounts.syscalls.to_string()])?;
        self.add(
            "kernel.syscall",
            contender,
            calls.each("syscalls_ns", "calls")?,
        );
        self.add(
            "kernel.clock",
            contender,
            calls.each("clock_reads_ns", "calls")?,
        );
        Ok(())
    }

    fn work(&mut self, contender: &Contender) -> Result<(), BenchError> {
        let amounts = self.amounts;
        if self.wants(Probe::Process) {
            let spawned = self.probe(contender, &["spawn", &amounts.spawns.to_string()])?;
            self.add(
                "process.spawn",
                contender,
                spawned.each("spawns_ns", "spawns")?,
            );
        }
        if self.wants(Probe::Cpu) {
            let worked = self.probe(contender, &["cpu", &amounts.cpu_million.to_string()])?;
            self.add(
                "cpu.work",
                contender,
                worked.each("rounds_ns", "million_rounds")?,
            );
        }
        if self.wants(Probe::Disk) {
            let (mib, operations) = (amounts.disk_mib, amounts.random_operations);
            let args = ["disk", &mib.to_string(), &operations.to_string()];
            let disk = self.probe(contender, &args)?;
            let rate = |key| Ok::<_, BenchError>(1e9 / disk.each(key, "sequential_bytes")?);
            self.add("disk.write", contender, rate("sequential_write_ns")?);
            self.add("disk.read", contender, rate("sequential_read_ns")?);
            let each = |key| disk.each(key, "random_operations");
            self.add("disk.random_read", contender, each("random_read_ns")?);
            self.add("disk.random_write", contender, each("random_write_ns")?);
        }
        if self.wants(Probe::Files) {
            let files = self.probe(contender, &["files", &amounts.files.to_string()])?;
            self.add("files.untar", contender, files.each("untar_ns", "files")?);
            self.add("files.find", contender, files.each("find_ns", "files")?);
        }
        Ok(())
    }

    fn streams(&mut self, contender: &Contender) -> Result<(), BenchError> {
        let mib = self.amounts.stream_mib;
        let bytes = mib << 20;
        let command = contender.exec(
            self.scratch,
            &self.scratch.container(HOLD),
            false,
            &["emit", &mib.to_string()],
        );
        let ran = self.command(contender, "standard output", command, Streams::Output)?;
        if ran.output_bytes != bytes {
            let answer = format!("{} bytes instead of {bytes}", ran.output_bytes);
            return Err(nonsense(contender, "standard output", answer.as_bytes()));
        }
        let first = ran.first_output.unwrap_or_default();
        let took = ran.last_output.unwrap_or_default().saturating_sub(first);
        self.add("streams.output", contender, rate(bytes, nanos(took)));
        let command = contender.exec(
            self.scratch,
            &self.scratch.container(HOLD),
            true,
            &["drain"],
        );
        let what = "standard input";
        let ran = self.command(contender, what, command, Streams::Input(bytes))?;
        let drained = figures(contender, what, &ran)?;
        // Every byte is a one.
        if drained.get("drained_bytes")? != bytes || drained.get("drained_sum")? != bytes {
            return Err(nonsense(contender, what, &ran.output));
        }
        let took = drained.get("drained_ns")?;
        self.add("streams.input", contender, rate(bytes, took as f64));
        Ok(())
    }

    /// The network's rows, unless it was found out that this contender has no network to measure.
    fn network_if_it_works(&mut self, contender: &Contender) -> Result<(), BenchError> {
        let id = &contender.named.id;
        let Some(way) = contender.way() else {
            return Ok(());
        };
        if self.unnetworked.iter().any(|(of, _)| of == id) {
            return Ok(());
        }
        let must_work = match self.networks_must_work {
            NetworksMustWork::No => false,
            NetworksMustWork::Ours => contender.is_ours(),
            NetworksMustWork::All => true,
        };
        match self.network(contender, way) {
            Err(error @ (BenchError::Failed { .. } | BenchError::Network { .. })) if !must_work => {
                self.remove_all(&[contender]);
                self.unnetworked.push((id.clone(), error.to_string()));
                self.settle(contender).map(drop)
            }
            other => other,
        }
    }

    fn network(&mut self, contender: &Contender, way: Way) -> Result<(), BenchError> {
        let veth = match way {
            Way::HostGateway => None,
            Way::Veth => {
                let made = Veth::make(self.scratch.namespace());
                let veth = made.map_err(|why| BenchError::Network {
                    contender: contender.named.label.clone(),
                    why,
                })?;
                self.scratch.write_networked(&veth.path())?;
                Some(veth)
            }
        };
        let port = veth.as_ref().map_or(self.server_port, Veth::port);
        let (port, millis) = (port.to_string(), self.amounts.network_ms.to_string());
        self.background(contender, NETWORKED)?;
        let figures = self.probe_in(
            contender,
            NETWORKED,
            &["network", "gateway", &port, &millis],
        )?;
        for (row, took, count) in [
            ("network.connect", "connects_ns", "connects"),
            ("network.connect_8", "connects_8_ns", "connects_8"),
            ("network.request", "requests_ns", "requests"),
            ("network.request_8", "requests_8_ns", "requests_8"),
        ] {
            self.add(row, contender, figures.each(took, count)?);
        }
        for (row, took, bytes) in [
            ("network.out", "out_ns", "out_bytes"),
            ("network.out_8", "out_8_ns", "out_8_bytes"),
            ("network.in", "in_ns", "in_bytes"),
            ("network.in_8", "in_8_ns", "in_8_bytes"),
        ] {
            let (bytes, took) = (figures.get(bytes)?, figures.get(took)?);
            self.add(row, contender, rate(bytes, took as f64));
        }
        self.remove(contender, NETWORKED)?;
        self.settle(contender).map(drop)
    }

    /// The density rows of one contender: starts its containers, measures each, removes them.
    pub(crate) fn density(&mut self, contender: &Contender) -> Result<(), BenchError> {
        let names: Vec<String> = (0..self.instances)
            .map(|number| number.to_string())
            .collect();
        let before = available_bytes();
        for name in &names {
            let ran = self.background(contender, name)?;
            self.add("density.start", contender, nanos(ran.took));
        }
        thread::sleep(REST);
        let taken = before.saturating_sub(available_bytes());
        let each = taken as f64 / names.len().max(1) as f64;
        self.add("density.memory", contender, each);
        for name in &names {
            let took = self.exec(contender, name)?;
            self.add("density.exec", contender, nanos(took));
        }
        for name in &names {
            self.remove(contender, name)?;
        }
        self.settle(contender)?;
        Ok(())
    }

    /// After a failure: whatever containers there may be.
    pub(crate) fn remove_all(&self, contenders: &[&Contender]) {
        for contender in contenders {
            let live = self.live.borrow().clone();
            for (_, name) in live.iter().filter(|(id, _)| *id == contender.named.id) {
                // What has gone already cannot be removed, which is as well.
                let _ = self.remove(contender, name);
            }
        }
    }
}

/// A probe's figures.
#[derive(Debug)]
struct Figures {
    values: BTreeMap<String, u64>,
    contender: String,
    what: String,
}

impl Figures {
    fn get(&self, key: &str) -> Result<u64, BenchError> {
        self.values
            .get(key)
            .copied()
            .ok_or_else(|| BenchError::Answer {
                contender: self.contender.clone(),
                what: self.what.clone(),
                answer: format!("no {key}"),
            })
    }

    /// One figure divided by another.
    fn each(&self, key: &str, of: &str) -> Result<f64, BenchError> {
        Ok(self.get(key)? as f64 / self.get(of)?.max(1) as f64)
    }
}

/// The last line of a probe's output.
fn figures(contender: &Contender, what: &str, ran: &Ran) -> Result<Figures, BenchError> {
    let line = ran.output.trim_ascii().rsplit(|byte| *byte == b'\n').next();
    let values = line
        .and_then(|line| serde_json::from_slice(line).ok())
        .ok_or_else(|| nonsense(contender, what, &ran.output))?;
    Ok(Figures {
        values,
        contender: contender.named.label.clone(),
        what: what.to_owned(),
    })
}

fn nonsense(contender: &Contender, what: &str, answer: &[u8]) -> BenchError {
    let beginning = answer.get(..answer.len().min(200)).unwrap_or(&[]);
    BenchError::Answer {
        contender: contender.named.label.clone(),
        what: what.to_owned(),
        answer: one_line(beginning),
    }
}

fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

fn rate(bytes: u64, ns: f64) -> f64 {
    bytes as f64 * 1e9 / ns.max(1.0)
}
