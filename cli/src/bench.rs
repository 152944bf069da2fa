//! `bench`: what is typed, and where the report goes. In the helper machine a benchmark gives its
//! record as JSON on standard output; table and files are made of it on the host.

use crate::failure::Failure;
use crate::output_file::OutputFile;
use crate::{output, system};
use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use hullbox_bench::{BenchError, Host, Installation, Peer, Plan, Probe, Report, Wall};
use hullbox_engine::artifacts::{self, Artifact};
use hullbox_engine::machine::kvm_verdict;
use hullbox_engine::paths::Roots;
use rustix::termios::isatty;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// A record has some hundred samples in each of some hundred cells at most.
const MAX_RECORD_BYTES: u64 = 64 << 20;

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  hullbox bench --rounds 20 --peer crun --html report.html\n\n\
    In the helper machine, or beside other work, only ratios mean something."
)]
pub(crate) struct BenchArgs {
    /// Rounds that count; the contenders take turns in each
    #[arg(long, value_name = "N", default_value = "20", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    rounds: usize,
    /// Measure only this; may be given more than once
    #[arg(long = "probe", value_name = "NAME", value_enum)]
    probes: Vec<ProbeArg>,
    /// Take in this program's containers; by default, those of all that are installed
    #[arg(long = "peer", value_name = "PROGRAM", value_enum)]
    peers: Vec<PeerArg>,
    /// Take in only containers behind this wall of ours
    #[arg(long, value_name = "WALL", value_enum)]
    isolation: Vec<WallArg>,
    /// Containers at once where their number is what is measured
    #[arg(long, value_name = "N", default_value = "8", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1000))]
    instances: usize,
    /// Little work, to see that everything answers
    #[arg(long)]
    quick: bool,
    /// Write the record here, as JSON (- for standard output, instead of the table)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a report here, as one HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Show progress though standard error is no terminal
    #[arg(long, hide = true)]
    progress: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PeerArg {
    Crun,
    Runc,
    Podman,
    /// No peer at all
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WallArg {
    Vm,
    Container,
}

/// [`Probe`], by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ProbeArg(Probe);

const PROBES: [ProbeArg; Probe::ALL.len()] = {
    let mut all = [ProbeArg(Probe::Start); Probe::ALL.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] = ProbeArg(Probe::ALL[at]);
        at += 1;
    }
    all
};

impl ValueEnum for ProbeArg {
    fn value_variants<'a>() -> &'a [Self] {
        &PROBES
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.0.name()))
    }
}

pub(crate) fn bench(args: &BenchArgs) -> Result<u8, Failure> {
    let mut outputs = Outputs::open(args)?;
    let plan = plan(args)?;
    let shown = args.progress || isatty(io::stderr().as_fd());
    let report = hullbox_bench::measure(&plan, &mut |text| {
        if shown {
            // Nobody to tell of failing to tell.
            let _ = writeln!(io::stderr(), "hullbox: bench: {text}");
        }
    });
    let report = match report {
        Err(BenchError::Interrupted { signal }) => {
            let code = u8::try_from(128 + signal).unwrap_or(crate::failure::FAILED);
            return Err(Failure::new("the benchmark was interrupted").with_code(code));
        }
        other => other?,
    };
    outputs.write(&report)?;
    outputs.keep()?;
    Ok(0)
}

fn plan(args: &BenchArgs) -> Result<Plan, Failure> {
    let walls = args.isolation.iter().map(|wall| match wall {
        WallArg::Vm => Wall::Vm,
        WallArg::Container => Wall::Container,
    });
    let peers: Vec<Peer> = Peer::ALL
        .into_iter()
        .filter(|peer| {
            args.peers.iter().any(|arg| match arg {
                PeerArg::Crun => *peer == Peer::Crun,
                PeerArg::Runc => *peer == Peer::Runc,
                PeerArg::Podman => *peer == Peer::Podman,
                PeerArg::None => false,
            })
        })
        .collect();
    let roots = Roots::from_env()?;
    roots.create()?;
    let artifact = |artifact| artifacts::path(artifact, &roots.data);
    let hullbox = std::env::current_exe()
        .map_err(|error| Failure::of("cannot find this program's own file", &error))?;
    Ok(Plan {
        rounds: if args.quick {
            args.rounds.min(2)
        } else {
            args.rounds
        },
        probes: args.probes.iter().map(|probe| probe.0).collect(),
        walls: walls.collect(),
        peers: (!args.peers.is_empty()).then_some(peers),
        instances: if args.quick {
            args.instances.min(2)
        } else {
            args.instances
        },
        quick: args.quick,
        installation: Installation {
            hullbox,
            probe: artifact(Artifact::Probe)?,
            kernel: artifact(Artifact::Kernel)?,
            initramfs: artifact(Artifact::Initramfs)?,
            kvm: kvm_verdict(&roots).explanation,
            data: roots.data,
            runtime: roots.runtime,
        },
    })
}

/// Where the report goes: opened before anything is measured, lest it be measured in vain.
struct Outputs {
    json: Option<OutputFile>,
    html: Option<OutputFile>,
    /// The record instead of the table.
    record_on_stdout: bool,
}

impl Outputs {
    fn open(args: &BenchArgs) -> Result<Self, Failure> {
        let is_stdout = |path: &Path| path.as_os_str() == "-";
        let file = |path: &Option<PathBuf>| match path.as_deref() {
            Some(path) if !is_stdout(path) => OutputFile::open(Some(path)).map(Some),
            _ => Ok(None),
        };
        if args.html.as_deref().is_some_and(is_stdout) {
            return Err(Failure::new(
                "the HTML report goes to a file, not to standard output",
            ));
        }
        Ok(Self {
            json: file(&args.json)?,
            html: file(&args.html)?,
            record_on_stdout: args.json.as_deref().is_some_and(is_stdout),
        })
    }

    fn write(&mut self, report: &Report) -> Result<(), Failure> {
        let mut record = serde_json::to_string_pretty(report)?;
        record.push('\n');
        let failed = |error| Failure::of("cannot write the report", &error);
        if let Some(file) = &mut self.json {
            file.file().write_all(record.as_bytes()).map_err(failed)?;
        }
        if let Some(file) = &mut self.html {
            let page = hullbox_bench::html(report);
            file.file().write_all(page.as_bytes()).map_err(failed)?;
        }
        if self.record_on_stdout {
            output::print(&record)
        } else {
            output::print(&hullbox_bench::table(report))
        }
    }

    fn keep(self) -> Result<(), Failure> {
        [self.json, self.html]
            .into_iter()
            .flatten()
            .try_for_each(OutputFile::keep)
    }
}

/// Runs the benchmark in the helper machine with `run`, and makes the reports here.
pub(crate) fn forwarded(
    args: &BenchArgs,
    line: &[OsString],
    run: impl FnOnce(&[OsString]) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    let mut outputs = Outputs::open(args)?;
    let failed = |what: &'static str| move |error| Failure::of(what, &error);
    let stdout = io::stdout();
    let own = stdout
        .as_fd()
        .try_clone_to_owned()
        .map_err(failed("cannot keep standard output"))?;
    let lend = |fd: std::os::fd::BorrowedFd<'_>| {
        rustix::stdio::dup2_stdout(fd)
            .map_err(|error| Failure::of("cannot redirect standard output", &error))
    };
    let mut record = rustix::fs::memfd_create("bench-record", rustix::fs::MemfdFlags::CLOEXEC)
        .map(File::from)
        .map_err(|error| Failure::of("cannot keep the record", &error))?;
    lend(record.as_fd())?;
    let code = run(&inner_line(args, line));
    lend(own.as_fd())?;
    let code = code?;
    if code != 0 {
        return Ok(code);
    }
    let mut text = String::new();
    record
        .seek(SeekFrom::Start(0))
        .and_then(|_| {
            (&mut record)
                .take(MAX_RECORD_BYTES)
                .read_to_string(&mut text)
        })
        .map_err(failed("cannot read the record"))?;
    let mut report: Report = serde_json::from_str(&text)
        .map_err(|error| Failure::of("the helper machine gave no proper record", &error))?;
    report.outer_host = Some(Host::look(&system::kvm_words()?));
    outputs.write(&report)?;
    outputs.keep()?;
    Ok(0)
}

/// The command as the machine gets it: its record goes to standard output, and nothing to files.
fn inner_line(args: &BenchArgs, line: &[OsString]) -> Vec<OsString> {
    let mut inner = Vec::with_capacity(line.len() + 2);
    let mut words = line.iter().peekable();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        match text.as_ref() {
            "--json" | "--html" => drop(words.next()),
            flag if flag.starts_with("--json=") || flag.starts_with("--html=") => {}
            _ => inner.push(word.clone()),
        }
    }
    inner.push("--json=-".into());
    if !args.progress && isatty(io::stderr().as_fd()) {
        inner.push("--progress".into());
    }
    inner
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn parse(line: &str) -> BenchArgs {
        Line::try_parse_from(line.split(' ')).unwrap().args
    }

    #[test]
    fn the_machine_writes_no_files() {
        let line = "bench --json a.json --rounds 3 --html=b --probe exec --peer=crun";
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let mut inner = inner_line(&parse(line), &words);
        inner.retain(|word| word != "--progress");
        let expected = "bench --rounds 3 --probe exec --peer=crun --json=-";
        assert_eq!(inner.join(&OsString::from(" ")), expected);
    }

    #[test]
    fn bad_flags_are_refused() {
        for line in [
            "bench --rounds 0",
            "bench --rounds -1",
            "bench --rounds many",
            "bench --instances 100000",
            "bench --probe nosuch",
            "bench --peer docker",
            "bench --isolation jail",
            "bench extra",
        ] {
            assert!(Line::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
        let html = parse("bench --html -");
        assert!(Outputs::open(&html).is_err());
    }
}
