//! An ordinary user's server.

use crate::client::{Client, Found, LIMIT, ROOT, name, u64_at};
use crate::fields;
use anyhow::{Context, Result, ensure};
use hullbox_files::{ENTRY, Export, Launcher};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

/// Any number that is not root's.
const USER: u32 = 4242;

/// A server of this user's, or none where users may have no namespaces.
fn client(exports: &[Export]) -> Result<Option<Client>> {
    let program = std::env::current_exe()?.into_os_string();
    let words = [
        format!("--reuid={USER}").into(),
        format!("--regid={USER}").into(),
        "--clear-groups".into(),
        program,
        ENTRY.into(),
    ];
    let launcher = Launcher::of("/usr/bin/setpriv", words.to_vec());
    match launcher.start(exports)?.finish(LIMIT) {
        Ok(started) => {
            let mut client = Client::of(started)?;
            client.init(u32::MAX)?;
            Ok(Some(client))
        }
        Err(error) if error.to_string().contains("user namespace") => {
            eprintln!("skipped: {error}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn ground() -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("mine"), "mine")?;
    fs::write(dir.path().join("roots"), "secret")?;
    fs::set_permissions(dir.path().join("roots"), fs::Permissions::from_mode(0o600))?;
    for path in [dir.path().to_owned(), dir.path().join("mine")] {
        chown(path, Some(USER), Some(USER))?;
    }
    Ok(dir)
}

/// The body of a request that changes owner and mode.
fn change(valid: u32, mode: u32, user: u32, group: u32) -> Vec<u8> {
    fields!(
        valid, 0u32, 0u64, 0u64, 0u64, 0u64, 0u64, 0u64, 0u32, 0u32, 0u32, mode, 0u32, user, group,
        0u32
    )
}

const MODE: u32 = 1;
const OWNER: u32 = 6;

fn owner(found: Found) -> (u32, u32, u32) {
    (found.user, found.group, found.mode & 0o7777)
}

pub fn the_callers_files_are_the_guests_roots() -> Result<()> {
    let dir = ground()?;
    let other = Export {
        user: 33,
        group: 34,
        ..Export::of(dir.path())
    };
    let Some(mut client) = client(&[Export::of(dir.path()), other])? else {
        return Ok(());
    };
    ensure!(owner(client.walk("0/mine")?) == (0, 0, 0o644));
    ensure!(owner(client.walk("1/mine")?) == (33, 34, 0o644));
    let roots = client.walk("0/roots")?;
    ensure!((roots.user, roots.group) == (65534, 65534), "{roots:?}");
    ensure!(client.fails(14, roots.node, &fields!(0u32, 0u32))? == libc::EACCES);
    let mine = client.walk("0/mine")?.node;
    let export = client.walk("0")?.node;
    ensure!(client.fails(4, mine, &change(OWNER, 0, 7, 7))? == libc::EPERM);
    client.done(4, mine, &change(OWNER | MODE, 0, 0, 0))?;
    // Its own it can read whatever the mode is, as root can.
    let handle = client.open(mine, libc::O_RDWR)?;
    ensure!(client.read(mine, handle, 0, 9)? == Ok(b"mine".to_vec()));
    (client.user, client.group) = (999, 999);
    client.create(export, "new", 0o666)?;
    let made = fs::metadata(dir.path().join("new"))?;
    ensure!((made.uid(), made.mode() & 0o7777) == (USER, 0o644));
    Ok(())
}

pub fn a_volume_keeps_the_guests_owners() -> Result<()> {
    let dir = ground()?;
    let volume = || Export {
        volume: true,
        ..Export::of(dir.path())
    };
    let Some(mut client) = client(&[volume()])? else {
        return Ok(());
    };
    let export = client.walk("0")?.node;
    ensure!(owner(client.walk("0/mine")?) == (0, 0, 0o644));
    (client.user, client.group) = (999, 998);
    let (new, handle) = client.create(export, "new", 0o4755)?;
    ensure!(owner(new) == (999, 998, 0o4755), "{new:?}");
    let on_host = || -> Result<_> {
        let made = fs::metadata(dir.path().join("new"))?;
        Ok((made.uid(), made.mode() & 0o7777))
    };
    ensure!(on_host()? == (USER, 0o755));
    // Who writes takes the bit away.
    let head = fields!(handle, 0u64, 1u32, 4u32, 0u64, 0u32, 0u32);
    client.done(16, new.node, &[head, vec![b'x']].concat())?;
    ensure!(owner(client.walk("0/new")?) == (999, 998, 0o755));
    client.done(4, new.node, &change(MODE, 0o2000, 0, 0))?;
    ensure!(owner(client.walk("0/new")?) == (999, 998, 0o2000));
    ensure!(on_host()? == (USER, 0o600));
    client.done(4, new.node, &change(OWNER, 0, 12, 13))?;
    ensure!(owner(client.walk("0/new")?) == (12, 13, 0o2000));
    // Links can be given away, and are not.
    client.done(6, export, &[name("link"), name("new")].concat())?;
    let link = client.walk("0/link")?.node;
    client.done(4, link, &change(OWNER, 0, 12, 13))?;
    // A directory whose group is kept.
    let body = [fields!(0o777u32, 0o022u32), name("dir")].concat();
    let made = u64_at(&client.done(9, export, &body)?, 0);
    client.done(4, made, &change(OWNER | MODE, 0o2755, 0, 55))?;
    let body = [fields!(0o777u32, 0o022u32), name("sub")].concat();
    client.done(9, made, &body)?;
    ensure!(owner(client.walk("0/dir/sub")?) == (999, 55, 0o2755));
    // What it is kept in is not the guest's.
    let list = client.done(23, new.node, &fields!(4096u32, 0u32))?;
    ensure!(list.is_empty(), "{list:?}");
    let set = [fields!(1u32, 0u32), name("user.hullbox.owner"), vec![0]].concat();
    ensure!(client.fails(21, new.node, &set)? == libc::EPERM);
    ensure!(client.fails(24, new.node, &name("user.hullbox.owner"))? == libc::EPERM);
    let get = [fields!(100u32, 0u32), name("user.hullbox.owner")].concat();
    ensure!(client.fails(22, new.node, &get)? == libc::ENODATA);
    // It is there for the next container.
    drop(client);
    let mut next = self::client(&[volume()])?.context("once more")?;
    ensure!(owner(next.walk("0/new")?) == (12, 13, 0o2000));
    let root = next.look_up(ROOT, "0")?;
    ensure!((root.user, root.group) == (0, 0), "{root:?}");
    Ok(())
}

pub fn its_rights_are_the_users() -> Result<()> {
    let dir = ground()?;
    let Some(client) = client(&[Export::of(dir.path())])? else {
        return Ok(());
    };
    let pid = client.process.pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    for line in [
        format!("Uid:\t{USER}\t{USER}\t{USER}\t{USER}"),
        "NoNewPrivs:\t1".into(),
        "Seccomp:\t2".into(),
        "CapEff:\t00000000800000db".into(),
        "CapBnd:\t00000000800000db".into(),
    ] {
        ensure!(status.contains(&line), "{line}: {status}");
    }
    ensure!(fs::read_link(format!("/proc/{pid}/ns/user"))? != fs::read_link("/proc/self/ns/user")?);
    let seen = fs::read_dir(format!("/proc/{pid}/root/"))?.count();
    ensure!(seen == 1, "{seen}");
    Ok(())
}
