//! What the process has left once it serves.

use crate::bed::{self, Container};
use anyhow::{Context, Result, ensure};
use hullbox_netproc::Launcher;
use std::fs;

/// Most private memory of an idle process, in KiB.
const MAX_PRIVATE_KIB: u64 = 1024;

pub fn it_has_no_rights_and_few_descriptors() -> Result<()> {
    let container = Container::new()?;
    let (process, _ports) = container.start(&Launcher::default(), &bed::network())?;
    let proc = format!("/proc/{}", process.pid());
    let mut threads = 0;
    for task in fs::read_dir(format!("{proc}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        for (name, value) in [
            ("Uid", "65534 65534 65534 65534"),
            ("Gid", "65534 65534 65534 65534"),
            ("Groups", ""),
            ("CapInh", "0000000000000000"),
            ("CapPrm", "0000000000000000"),
            ("CapEff", "0000000000000000"),
            ("CapBnd", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
        ] {
            let found = field(&status, name)?;
            ensure!(found == value, "{name}: {found}");
        }
        threads += 1;
    }
    ensure!(threads == 2, "{threads} threads");
    for number in 0..3 {
        let to = fs::read_link(format!("{proc}/fd/{number}"))?;
        ensure!(
            to.as_os_str() == "/dev/null",
            "{number} is {}",
            to.display()
        );
    }
    for entry in fs::read_dir(format!("{proc}/fd"))? {
        let to = fs::read_link(entry?.path())?;
        let text = to.to_string_lossy();
        let expected = ["/dev/null", "/dev/net/tun", "socket:", "anon_inode:"];
        ensure!(
            expected.iter().any(|begin| text.starts_with(begin)),
            "{text}"
        );
    }
    // Its own session: fields 3 and on of stat(5) are state, parent, group, session.
    let stat = fs::read_to_string(format!("{proc}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("no name in stat")?;
    let session = rest.split(' ').nth(3).context("no session in stat")?;
    ensure!(session == process.pid().to_string(), "session {session}");
    let limits = fs::read_to_string(format!("{proc}/limits"))?;
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    ensure!(core.is_some_and(|line| line.contains(" 0 ")), "{core:?}");
    let private = private_kib(&proc)?;
    println!("private memory: {private} KiB");
    // What was not optimised is larger.
    ensure!(
        private <= MAX_PRIVATE_KIB || cfg!(debug_assertions),
        "{private} KiB"
    );
    Ok(())
}

fn field(status: &str, name: &str) -> Result<String> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .with_context(|| format!("no {name}"))?;
    Ok(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn private_kib(proc: &str) -> Result<u64> {
    let rollup = fs::read_to_string(format!("{proc}/smaps_rollup"))?;
    let mut total = 0;
    for name in ["Private_Clean", "Private_Dirty"] {
        let value = field(&rollup, name)?;
        total += value
            .split(' ')
            .next()
            .context("no number")?
            .parse::<u64>()?;
    }
    Ok(total)
}
