//! `bench`: what is measured, and where the report goes. In the helper machine a benchmark writes its
//! record as JSON to standard output; the process that forwards it makes table and files of the record.

use crate::args::bench::{BenchArgs, BenchIsolationArg, PeerArg};
use crate::output::failure::{FAILED, Failure};
use crate::output::file::OutputFile;
use crate::output::stdout;
use hullbox_bench::{BenchError, Host, Installation, Isolation, Peer, Plan, Probe, Report, Server};
use hullbox_engine::artifacts::{self, Artifact};
use hullbox_engine::machine::kvm_verdict;
use hullbox_engine::paths::Roots;
use rustix::termios::isatty;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// A record has some hundred samples in each of some hundred cells at most.
const MAX_RECORD_BYTES: u64 = 64 << 20;

pub(crate) fn bench(args: &BenchArgs) -> Result<u8, Failure> {
    let mut outputs = Outputs::open(args)?;
    let plan = plan(args)?;
    let shown = args.progress || isatty(io::stderr().as_fd());
    let report = hullbox_bench::measure(&plan, &mut |text| {
        if shown {
            // Progress that cannot be shown is no reason to fail.
            let _ = writeln!(io::stderr(), "hullbox: bench: {text}");
        }
    });
    let report = match report {
        Err(BenchError::Interrupted { signal }) => {
            let code = u8::try_from(128 + signal).unwrap_or(FAILED);
            return Err(Failure::new("the benchmark was interrupted").with_code(code));
        }
        other => other?,
    };
    outputs.write(&report)?;
    outputs.keep()?;
    Ok(0)
}

fn plan(args: &BenchArgs) -> Result<Plan, Failure> {
    let isolations = args.isolation.iter().map(|isolation| match isolation {
        BenchIsolationArg::Vm => Isolation::Vm,
        BenchIsolationArg::Container => Isolation::Container,
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
        isolations: isolations.collect(),
        peers: (!args.peers.is_empty()).then_some(peers),
        instances: if args.quick {
            args.instances.min(2)
        } else {
            args.instances
        },
        quick: args.quick,
        server_port: args.server_port,
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

/// Where the report goes. Opened before anything is measured: a path that cannot be written must not
/// cost a measurement.
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
            stdout::print(&record)
        } else {
            stdout::print(&hullbox_bench::table(report))
        }
    }

    fn keep(self) -> Result<(), Failure> {
        [self.json, self.html]
            .into_iter()
            .flatten()
            .try_for_each(OutputFile::keep)
    }
}

/// Makes the reports of the record that `run`, a forwarded benchmark, writes to standard output. It is given
/// the port of a server here, if its containers are to talk to one.
pub(crate) fn forwarded(
    args: &BenchArgs,
    run: impl FnOnce(Option<u16>) -> Result<u8, Failure>,
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
    // Containers in the machine find this host behind their gateway, and not the machine.
    let has_networks = args.probes.is_empty() || args.probes.iter().any(|p| p.0 == Probe::Network);
    let server = has_networks
        .then(Server::on_loopback)
        .transpose()
        .map_err(failed("cannot run a server for the containers to talk to"))?;
    lend(record.as_fd())?;
    let code = run(server.as_ref().map(Server::port));
    drop(server);
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
    let verdict = kvm_verdict(&Roots::from_env()?);
    report.outer_host = Some(Host::look(&verdict.explanation));
    outputs.write(&report)?;
    outputs.keep()?;
    Ok(0)
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
