//! A host that changes things meanwhile, and what is seen of the process from there.

use crate::client::{Client, LIMIT, ROOT, name, u64_at};
use crate::fields;
use anyhow::{Context, Result, ensure};
use hullbox_files::{Export, LaunchError};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, renameat_with};
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the host swaps: `HULLBOX_TEST_SWAP_S`, or 3 seconds.
fn swapping() -> Duration {
    let seconds = std::env::var("HULLBOX_TEST_SWAP_S").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(3))
}

/// Directories that become links to what is outside, and back, while a guest walks.
pub fn swaps_lead_nowhere() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let export = dir.path().join("export");
    fs::create_dir_all(export.join("a/b"))?;
    fs::write(export.join("a/b/file"), "inside")?;
    fs::create_dir_all(dir.path().join("outside/b"))?;
    fs::write(dir.path().join("outside/b/file"), "secret")?;
    symlink("../outside", export.join("l"))?;
    symlink(dir.path().join("outside"), export.join("m"))?;
    let mut client = Client::new(&[Export::of(&export)])?;
    client.walk("0")?;
    let before = client.descriptors()?;
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = {
        let (stop, export) = (stop.clone(), export.clone());
        let aside = dir.path().join("aside");
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for link in ["l", "m"] {
                    let pair = (export.join("a"), export.join(link));
                    let swap = || renameat_with(CWD, &pair.0, CWD, &pair.1, RenameFlags::EXCHANGE);
                    let _ = swap().and_then(|()| swap());
                }
                // Out of the export and back.
                let _ = fs::rename(export.join("a"), &aside);
                let _ = fs::rename(&aside, export.join("a"));
            }
        })
    };
    let end = Instant::now() + swapping();
    let (mut read, mut walks) = (0, 0);
    while Instant::now() < end {
        walks += 1;
        let mut known = Vec::new();
        let mut node = client.look_up(ROOT, "0")?.node;
        known.push(node);
        for part in ["a", "b", "file"] {
            match client.ask(1, node, &name(part))? {
                Ok(entry) if u64_at(&entry, 0) != 0 => node = u64_at(&entry, 0),
                _ => break,
            }
            known.push(node);
        }
        if known.len() == 4
            && let Ok(opened) = client.ask(14, node, &fields!(0u32, 0u32))?
        {
            let handle = u64_at(&opened, 0);
            let text = client.read(node, handle, 0, 100)?;
            ensure!(text == Ok(b"inside".to_vec()), "{text:?}");
            client.done(18, node, &fields!(handle, 0u32, 0u32, 0u64))?;
            read += 1;
        }
        for node in known {
            client.send(2, node, &fields!(1u64))?;
        }
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().ok().context("the host's thread")?;
    ensure!(read > 10, "{read} of {walks}");
    println!("  {walks} walks, of which {read} came to the file");
    client.attributes(ROOT)?;
    let after = client.descriptors()?;
    ensure!(
        after <= before + 1,
        "{before} descriptors, and {after} then"
    );
    println!("  {before} descriptors before, {after} after");
    Ok(())
}

pub fn what_the_host_removes_is_an_error() -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::create_dir(dir.path().join("export"))?;
    fs::write(dir.path().join("export/file"), "data")?;
    let mut client = Client::new(&[Export::of(dir.path().join("export"))])?;
    let export = client.look_up(ROOT, "0")?.node;
    let file = client.look_up(export, "file")?.node;
    let handle = client.open(file, libc::O_RDWR)?;
    fs::remove_dir_all(dir.path().join("export"))?;
    fs::create_dir(dir.path().join("export"))?;
    fs::write(dir.path().join("export/other"), "")?;
    // As anybody's who has them open.
    ensure!(client.read(file, handle, 0, 9)? == Ok(b"data".to_vec()));
    let lookup = client.done(1, export, &name("other"))?;
    ensure!(u64_at(&lookup, 0) == 0);
    let body = [fields!(0o755u32, 0u32), name("new")].concat();
    ensure!(client.fails(9, export, &body)? == libc::ENOENT);
    let handle = u64_at(&client.done(27, export, &fields!(0u32, 0u32))?, 0);
    let body = fields!(handle, 0u64, 4096u32, 0u32, 0u64, 0u32, 0u32);
    ensure!(client.fails(44, export, &body)? == libc::ENOENT);
    Ok(())
}

pub fn a_full_disk_is_told() -> Result<()> {
    let dir = tempfile::tempdir()?;
    rustix::mount::mount(
        "tmpfs",
        dir.path(),
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        c"size=1m",
    )?;
    let mut client = Client::new(&[Export::of(dir.path())])?;
    let export = client.look_up(ROOT, "0")?.node;
    let (new, handle) = client.create(export, "new", 0o644)?;
    let data = vec![7; 1 << 20];
    let written = client.write(new.node, handle, 4096, &data)?;
    ensure!(written.is_ok(), "{written:?}");
    let written = client.write(new.node, handle, 2 << 20, &data)?;
    ensure!(written == Err(libc::ENOSPC), "{written:?}");
    let room = fields!(handle, 0u64, 8u64 << 20, 0u32, 0u32);
    ensure!(client.fails(43, new.node, &room)? == libc::ENOSPC);
    drop(client);
    rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::DETACH)?;
    Ok(())
}

/// A file system below an export that stops answering holds nobody who is not there.
pub fn what_hangs_holds_nothing_else() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let hung = dir.path().join("hung");
    fs::create_dir(&hung)?;
    fs::write(dir.path().join("file"), "data")?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let Ok(device) = rustix::fs::open("/dev/fuse", flags, Mode::empty()) else {
        eprintln!("skipped: no /dev/fuse");
        return Ok(());
    };
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        std::os::fd::AsRawFd::as_raw_fd(&device)
    );
    rustix::mount::mount(
        "hung",
        &hung,
        "fuse",
        rustix::mount::MountFlags::empty(),
        Some(std::ffi::CString::new(options)?.as_c_str()),
    )?;
    let mut client = Client::new(&[Export::of(dir.path())])?;
    let export = client.look_up(ROOT, "0")?.node;
    let hanging: Vec<u64> = (0..8)
        .map(|_| client.send(1, export, &name("hung")))
        .collect::<Result<_>>()?;
    for _ in 0..200 {
        ensure!(client.look_up(export, "file")?.size == 4);
    }
    for unique in &hanging {
        ensure!(!client.has_reply(*unique, Duration::from_millis(1))?);
    }
    drop(device);
    for unique in hanging {
        ensure!(client.reply(unique)?.is_err());
    }
    // It ends whatever hangs.
    drop(client);
    rustix::mount::unmount(&hung, rustix::mount::UnmountFlags::DETACH)?;
    Ok(())
}

pub fn it_has_few_rights_and_sees_nothing_else() -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("file"), "data")?;
    let export = || Export::of(dir.path());
    let single = Export::of(dir.path().join("file"));
    let mut client = Client::new(&[export(), single])?;
    ensure!(client.look_up(ROOT, "1")?.mode & 0o170_000 == 0o100_000);
    client.walk("0/file")?;
    let proc = format!("/proc/{}", client.process.pid());
    let status = fs::read_to_string(format!("{proc}/status"))?;
    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1))
            .unwrap_or_default()
            .to_owned()
    };
    // chown, dac_override, fowner, fsetid, setgid, setuid, setfcap.
    let kept = "00000000800000db";
    for (name, wanted) in [
        ("CapEff:", kept),
        ("CapPrm:", kept),
        ("CapBnd:", kept),
        ("CapInh:", "0000000000000000"),
        ("CapAmb:", "0000000000000000"),
        ("NoNewPrivs:", "1"),
        ("Seccomp:", "2"),
    ] {
        ensure!(line(name) == wanted, "{name} {}", line(name));
    }
    for space in ["mnt", "net", "ipc"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{space}"));
        ensure!(
            of(&client.process.pid().to_string())? != of("self")?,
            "{space}"
        );
    }
    let mut seen: Vec<_> = fs::read_dir(format!("{proc}/root/"))?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    seen.sort();
    ensure!(seen == ["0", "1"], "{seen:?}");
    let mounts = fs::read_to_string(format!("{proc}/mountinfo"))?;
    ensure!(mounts.lines().count() == 3, "{mounts}");
    let environment = fs::read(format!("{proc}/environ"))?;
    ensure!(environment == b"MALLOC_ARENA_MAX=1\0");
    for entry in fs::read_dir(format!("{proc}/fd"))? {
        let target = fs::read_link(entry?.path())?;
        let target = target.to_string_lossy().into_owned();
        let known = ["/dev/null", "socket:", "/", "/0", "/1", "/0/file"];
        let is_known = known.iter().any(|known| target.starts_with(known));
        ensure!(is_known, "{target}");
    }
    Ok(())
}

pub fn it_ends_with_its_stream() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let started = crate::client::launcher()
        .start(&[Export::of(dir.path())])?
        .finish(LIMIT)?;
    let mut process = started.process.context("no process")?;
    let pidfd = process.pidfd()?;
    drop(started.connection);
    let mut fds = [rustix::event::PollFd::new(
        &pidfd,
        rustix::event::PollFlags::IN,
    )];
    let limit = rustix::event::Timespec::try_from(LIMIT)?;
    ensure!(rustix::event::poll(&mut fds, Some(&limit))? == 1);
    ensure!(process.try_wait()?.context("it lives")?.success());
    Ok(())
}

pub fn what_is_not_there_is_told() -> Result<()> {
    let starting = crate::client::launcher().start(&[Export::of("/no/such/directory")])?;
    match starting.finish(LIMIT) {
        Err(LaunchError::Refused(message)) => {
            ensure!(message.contains("/no/such/directory"), "{message}");
            Ok(())
        }
        other => anyhow::bail!("{other:?}"),
    }
}
