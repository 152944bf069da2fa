//! What the process has left once it serves.

use crate::bed::{self, Container, LIMIT};
use crate::shared::{self, Networks};
use anyhow::{Context, Result, ensure};
use hullbox_netproc::Launcher;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most private memory of an idle process, in KiB.
const MAX_PRIVATE_KIB: u64 = 1024;

pub fn it_has_no_rights_and_few_descriptors() -> Result<()> {
    let container = Container::new()?;
    let (process, _ports) = container.start(&Launcher::default(), &bed::network())?;
    let proc = PathBuf::from(format!("/proc/{}", process.pid()));
    has_no_rights(&proc)?;
    for descriptor in descriptors(&proc)? {
        let expected = ["/dev/null", "/dev/net/tun", "socket:", "anon_inode:"];
        ensure!(
            expected.iter().any(|begin| descriptor.starts_with(begin)),
            "{descriptor}"
        );
    }
    let private = private_kib(&proc)?;
    println!("private memory: {private} KiB");
    // What was not optimised is larger.
    ensure!(
        private <= MAX_PRIVATE_KIB || cfg!(debug_assertions),
        "{private} KiB"
    );
    Ok(())
}

pub fn one_that_containers_share_has_no_more() -> Result<()> {
    let networks = Networks::new("jail");
    let launcher = networks.launcher();
    let container = Container::with(bed::interface_of(2))?;
    let (mut first, _) = container.join(&launcher, &shared::seat(2, &["a"]))?;
    let pid = networks.process()?;
    let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    has_no_rights(&proc)?;
    // The one file is its own lock, which nobody else's secrets are in.
    let lock = format!("{}.lock", networks.0.join(shared::ID).display());
    // An answer comes when what was asked before is done with.
    let mut descriptors = || {
        first.counters(LIMIT)?;
        descriptors(&proc)
    };
    let alone = descriptors()?;
    let of_files = |descriptors: &[String]| {
        let mut files: Vec<_> = descriptors
            .iter()
            .filter(|to| !to.starts_with("socket:") && !to.starts_with("anon_inode:"))
            .cloned()
            .collect();
        files.sort();
        files
    };
    let null = "/dev/null";
    ensure!(
        of_files(&alone) == ["/dev/net/tun", null, null, null, lock.as_str()],
        "{alone:?}"
    );
    // A member with ports costs its link (twice), its control connection and its ports' sockets, of both
    // families; all of them go with it.
    let (_ours, member) = bed::packets();
    let mut seat = shared::seat(3, &["b"]);
    seat.network.ports = vec![bed::port((0, 0))];
    let (second, _) = bed::join(&launcher, &seat, &member)?;
    let both = descriptors()?;
    ensure!(both.len() == alone.len() + 5, "{alone:?}\n{both:?}");
    ensure!(of_files(&both) == of_files(&alone), "{both:?}");
    has_no_rights(&proc)?;
    drop(second);
    let left = descriptors()?;
    ensure!(left.len() == alone.len(), "{alone:?}\n{left:?}");
    drop(first);
    networks.is_gone(pid)
}

/// What is true of either kind.
fn has_no_rights(proc: &Path) -> Result<()> {
    let mut threads = 0;
    for task in fs::read_dir(proc.join("task"))? {
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
        let to = fs::read_link(proc.join(format!("fd/{number}")))?;
        ensure!(
            to.as_os_str() == "/dev/null",
            "{number} is {}",
            to.display()
        );
    }
    let place = fs::read_link(proc.join("cwd"))?;
    ensure!(place.as_os_str() == "/", "{}", place.display());
    // Nobody else's descriptors or memory are shown to whoever it is now.
    let owner = fs::metadata(proc.join("fd"))?.uid();
    ensure!(owner == 0, "its files in /proc are of user {owner}");
    // Its own session: fields 3 and on of stat(5) are state, parent, group, session.
    let stat = fs::read_to_string(proc.join("stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("no name in stat")?;
    let session = rest.split(' ').nth(3).context("no session in stat")?;
    ensure!(
        proc.file_name().is_some_and(|pid| pid == session),
        "session {session}"
    );
    let limits = fs::read_to_string(proc.join("limits"))?;
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    ensure!(core.is_some_and(|line| line.contains(" 0 ")), "{core:?}");
    let environment = fs::read(proc.join("environ"))?;
    ensure!(environment.is_empty(), "{environment:?}");
    Ok(())
}

/// Where its descriptors lead.
fn descriptors(proc: &Path) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(proc.join("fd"))? {
        let to = fs::read_link(entry?.path())?;
        all.push(to.to_string_lossy().into_owned());
    }
    Ok(all)
}

fn field(status: &str, name: &str) -> Result<String> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .with_context(|| format!("no {name}"))?;
    Ok(line.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Memory of a process that is its own, in KiB.
pub fn private_kib(proc: &Path) -> Result<u64> {
    let rollup = fs::read_to_string(proc.join("smaps_rollup"))?;
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
