//! Boot a guest: `boot KERNEL [--initramfs F] [--ro F[,F…]] [--rw F] [--vsock CID:PATH] [--rng]
//! [--net] [--serial F|-] [--cpus N] [--mem MIB] [--cmdline TEXT] [--stop-after MS] [--stats]`.

use hullbox_vmm::{
    DiskConfig, MemorySize, NetConfig, SerialConfig, VcpuCount, Vm, VmConfig, VsockConfig,
};
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

struct Options {
    config: VmConfig,
    stop_after: Option<Duration>,
    stats: bool,
}

fn parse() -> Result<Options, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let kernel = arguments.next().ok_or("no kernel")?;
    let mut config = VmConfig::new(VcpuCount::new(1)?, MemorySize::from_mib(128)?, kernel);
    let (mut stop_after, mut stats) = (None, false);
    while let Some(flag) = arguments.next() {
        match flag.as_str() {
            "--rng" => {
                config.rng = true;
                continue;
            }
            "--net" => {
                config.net = Some(NetConfig {
                    mac: [2, 0, 0, 0, 0, 1],
                    mtu: 1500,
                });
                continue;
            }
            "--stats" => {
                stats = true;
                continue;
            }
            _ => {}
        }
        let value = arguments.next().ok_or("a flag lacks its value")?;
        match flag.as_str() {
            "--initramfs" => config.shape.initramfs = Some(value.into()),
            "--ro" => config.disks.push(DiskConfig {
                files: value.split(',').map(Into::into).collect(),
                read_only: true,
            }),
            "--rw" => config.disks.push(DiskConfig {
                files: vec![value.into()],
                read_only: false,
            }),
            "--vsock" => {
                let (cid, path) = value.split_once(':').ok_or("CID:PATH")?;
                config.vsock = Some(VsockConfig {
                    guest_cid: cid.parse()?,
                    uds_path: path.into(),
                });
            }
            "--serial" if value == "-" => config.serial = SerialConfig::Stderr,
            "--serial" => config.serial = SerialConfig::file(value),
            "--cpus" => config.shape.vcpus = VcpuCount::new(value.parse()?)?,
            "--mem" => config.shape.memory = MemorySize::from_mib(value.parse()?)?,
            "--cmdline" => config.cmdline = value,
            "--stop-after" => stop_after = Some(Duration::from_millis(value.parse()?)),
            _ => return Err(format!("what is {flag}?").into()),
        }
    }
    Ok(Options {
        config,
        stop_after,
        stats,
    })
}

fn run() -> Result<(), Box<dyn Error>> {
    let options = parse()?;
    let begin = Instant::now();
    let vm = Vm::new(options.config)?;
    let built = begin.elapsed();
    let running = vm.start()?;
    let started = begin.elapsed();
    if let Some(after) = options.stop_after {
        let handle = running.handle();
        std::thread::spawn(move || {
            std::thread::sleep(after);
            handle.stop();
        });
    }
    if options.stats {
        while running.outcome().is_none() {
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{:?}", running.stats());
    }
    let outcome = running.wait();
    let ended = begin.elapsed();
    eprintln!("the virtual machine {outcome}");
    eprintln!("built {built:?}, started {started:?}, ended {ended:?}");
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("boot: {error}");
            let mut source = error.source();
            while let Some(error) = source {
                eprint!(": {error}");
                source = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}
