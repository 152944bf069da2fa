//! A guest whose kernel is an enemy.

use crate::client::{Client, LIMIT, ROOT, name, u64_at};
use crate::fields;
use anyhow::{Context, Result, ensure};
use hullbox_files::Export;
use std::fs;
use std::path::Path;

/// A directory with an export in it, and beside that what nobody may see or change.
pub struct Ground {
    dir: tempfile::TempDir,
}

const SECRET: &str = "what nobody may see";

impl Ground {
    pub fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        fs::create_dir(dir.path().join("export"))?;
        fs::create_dir(dir.path().join("export/sub"))?;
        fs::write(dir.path().join("export/file"), "in the export")?;
        fs::write(dir.path().join("secret"), SECRET)?;
        Ok(Self { dir })
    }

    pub fn export(&self) -> Export {
        Export::of(self.dir.path().join("export"))
    }

    /// The file in it.
    pub fn file(&self) -> std::path::PathBuf {
        self.dir.path().join("export/file")
    }

    /// Nothing outside the export has changed.
    pub fn is_whole(&self) -> Result<()> {
        let mut names: Vec<_> = fs::read_dir(self.dir.path())?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<_, _>>()?;
        names.sort();
        ensure!(names == ["export", "secret"], "{names:?}");
        ensure!(fs::read_to_string(self.dir.path().join("secret"))? == SECRET);
        Ok(())
    }
}

pub const BAD_NAMES: [&[u8]; 12] = [
    b"../secret\0",
    b"..\0",
    b".\0",
    b"/\0",
    b"/etc/passwd\0",
    b"sub/../../secret\0",
    b"sub/x\0",
    b"x/\0",
    b"\0",
    b"",
    b"unterminated",
    b"../new\0",
];

/// Each request with a name: its opcode, what comes before the name, and what behind it.
pub fn requests_with_names(sub: u64, file: u64) -> Vec<(u32, Vec<u8>, Vec<u8>)> {
    let nothing = Vec::new;
    vec![
        (1, nothing(), nothing()),
        (6, nothing(), name("../secret")),
        (8, fields!(0o100_644u32, 0u32, 0u32, 0u32), nothing()),
        (8, fields!(0o010_644u32, 0u32, 0u32, 0u32), nothing()),
        (9, fields!(0o755u32, 0u32), nothing()),
        (10, nothing(), nothing()),
        (11, nothing(), nothing()),
        (12, fields!(sub), name("new")),
        (12, [fields!(sub), name("file")].concat(), nothing()),
        (45, fields!(sub, 0u32, 0u32), name("new")),
        (
            45,
            [fields!(sub, 2u32, 0u32), name("file")].concat(),
            nothing(),
        ),
        (13, fields!(file), nothing()),
        (
            35,
            fields!(libc::O_RDWR | libc::O_CREAT, 0o644u32, 0u32, 0u32),
            nothing(),
        ),
    ]
}

pub fn names_lead_nowhere() -> Result<()> {
    let ground = Ground::new()?;
    let mut client = Client::new(&[ground.export()])?;
    let export = client.look_up(ROOT, "0")?.node;
    let sub = client.look_up(export, "sub")?.node;
    let file = client.look_up(export, "file")?.node;
    for (opcode, before, behind) in requests_with_names(sub, file) {
        for bad in BAD_NAMES {
            for parent in [export, sub, ROOT] {
                // Nothing behind a name that has no end could be told from it.
                let behind = if bad.ends_with(b"\0") {
                    &behind[..]
                } else {
                    &[]
                };
                let body = [&before, bad, behind].concat();
                let error = client.fails(opcode, parent, &body)?;
                ensure!(error == libc::EINVAL, "{opcode} of {bad:?}: {error}");
            }
        }
    }
    ground.is_whole()?;
    ensure!(client.list(export)? == ["file", "sub"]);
    Ok(())
}

/// A directory that the host has removed, and another one of its name in its place: nothing is made, found or
/// removed in either by way of the old one.
pub fn a_deleted_directory_takes_nothing() -> Result<()> {
    let ground = Ground::new()?;
    let mut client = Client::new(&[ground.export()])?;
    let export = client.look_up(ROOT, "0")?.node;
    let sub = client.look_up(export, "sub")?.node;
    let file = client.look_up(export, "file")?.node;
    let directory = u64_at(&client.done(27, sub, &fields!(0u32, 0u32))?, 0);
    let path = ground.dir.path().join("export/sub");
    fs::remove_dir(&path)?;
    fs::create_dir(&path)?;
    fs::write(path.join("name"), "of the new one")?;
    for (opcode, before, behind) in requests_with_names(sub, file) {
        let body = [before, name("name"), behind].concat();
        match client.ask(opcode, sub, &body)? {
            // There is no such name.
            Ok(entry) => ensure!(opcode == 1 && u64_at(&entry, 0) == 0, "{opcode} worked"),
            Err(error) => ensure!(error == libc::ENOENT, "{opcode}: {error}"),
        }
    }
    let body = fields!(directory, 0u64, 4096u32, 0u32, 0u64, 0u32, 0u32);
    for opcode in [28, 44] {
        let listed = client.ask(opcode, sub, &body)?;
        ensure!(listed.as_ref().map_or(true, Vec::is_empty), "{listed:?}");
    }
    // A new name for it, and a file of it moved or linked into it.
    let body = [fields!(sub), name("file"), name("name")].concat();
    ensure!(client.fails(12, export, &body)? == libc::ENOENT);
    ensure!(client.fails(13, sub, &[fields!(file), name("link")].concat())? == libc::ENOENT);
    ensure!(fs::read_to_string(path.join("name"))? == "of the new one");
    ensure!(fs::read_dir(&path)?.count() == 1);
    ground.is_whole()
}

/// A directory that the host has moved out of the export: what is in it was the guest's, and what is beside
/// it is not.
pub fn a_directory_that_was_moved_out_leads_no_further() -> Result<()> {
    let ground = Ground::new()?;
    let mut client = Client::new(&[ground.export()])?;
    let export = client.look_up(ROOT, "0")?.node;
    let sub = client.look_up(export, "sub")?.node;
    let outside = tempfile::tempdir_in(ground.dir.path().parent().context("a parent")?)?;
    fs::write(outside.path().join("secret"), SECRET)?;
    fs::rename(
        ground.dir.path().join("export/sub"),
        outside.path().join("sub"),
    )?;
    for up in ["..", "../secret", "../../secret", "/secret"] {
        ensure!(client.fails(1, sub, &name(up))? == libc::EINVAL);
    }
    // Nor is it where it was.
    let reply = client.done(1, export, &name("sub"))?;
    ensure!(u64_at(&reply, 0) == 0);
    ensure!(fs::read_to_string(outside.path().join("secret"))? == SECRET);
    ensure!(fs::read_dir(outside.path())?.count() == 2);
    ground.is_whole()
}

/// Numbers are a guest's own: what one guest has found and opened is nothing to another one's server.
pub fn numbers_of_others_are_nothing() -> Result<()> {
    let (ground, other) = (Ground::new()?, Ground::new()?);
    let mut client = Client::new(&[ground.export()])?;
    let mut neighbour = Client::new(&[other.export()])?;
    let export = neighbour.look_up(ROOT, "0")?.node;
    let mut known = vec![export];
    for count in 0..20 {
        let (made, handle) = neighbour.create(export, &format!("n{count}"), 0o644)?;
        known.extend([made.node, handle]);
    }
    for number in known {
        for opcode in [3, 5, 14, 27, 17, 23] {
            let reply = client.ask(opcode, number, &[0; 16])?;
            ensure!(reply.is_err(), "{opcode} of {number}");
        }
        let body = fields!(number, 0u64, 10u32, 0u32, 0u64, 0u32, 0u32);
        ensure!(client.read(ROOT, number, 0, 10)?.is_err());
        ensure!(client.ask(15, number, &body)?.is_err());
        ensure!(
            client
                .ask(16, number, &[body, vec![0; 10]].concat())?
                .is_err()
        );
    }
    ensure!(other.file().exists() && fs::read_to_string(ground.file())? == "in the export");
    ground.is_whole()
}

pub fn the_root_is_fixed() -> Result<()> {
    let ground = Ground::new()?;
    let mut client = Client::new(&[ground.export()])?;
    let reply = client.done(1, ROOT, &name("1"))?;
    ensure!(u64_at(&reply, 0) == 0);
    for (opcode, body) in [
        (9, [fields!(0o755u32, 0u32), name("new")].concat()),
        (11, name("0")),
        (12, [fields!(ROOT), name("0"), name("1")].concat()),
        (
            35,
            [fields!(libc::O_RDWR, 0o644u32, 0u32, 0u32), name("new")].concat(),
        ),
    ] {
        let error = client.fails(opcode, ROOT, &body)?;
        ensure!(
            [libc::EROFS, libc::EBUSY].contains(&error),
            "{opcode}: {error}"
        );
    }
    ensure!(client.list(ROOT)? == ["0"]);
    Ok(())
}

pub fn symbolic_links_are_texts() -> Result<()> {
    let ground = Ground::new()?;
    std::os::unix::fs::symlink("../secret", ground.dir.path().join("export/link"))?;
    std::os::unix::fs::symlink("..", ground.dir.path().join("export/up"))?;
    let mut client = Client::new(&[ground.export()])?;
    let export = client.look_up(ROOT, "0")?.node;
    let link = client.look_up(export, "link")?;
    ensure!(link.mode & 0o170_000 == 0o120_000);
    ensure!(client.done(5, link.node, &[])? == b"../secret");
    let up = client.look_up(export, "up")?.node;
    ensure!(client.fails(1, up, &name("secret"))? == libc::ENOTDIR);
    ensure!(client.fails(14, link.node, &fields!(0u32, 0u32))? == libc::ENXIO);
    // Owner, mode, time and size of the link, and never of what it names.
    let attributes = fields!(
        0b1_1010_1111u32,
        0u32,
        0u64,
        0u64,
        0u64,
        1u64,
        1u64,
        0u64,
        0u32,
        0u32,
        0u32,
        0o777u32,
        0u32,
        7u32,
        7u32,
        0u32
    );
    client.ask(4, link.node, &attributes)?.ok();
    client
        .ask(
            21,
            link.node,
            &[fields!(1u32, 0u32), name("user.x"), vec![1]].concat(),
        )?
        .ok();
    let body = [fields!(link.node), name("hard")].concat();
    client.done(13, export, &body)?;
    let secret = fs::symlink_metadata(ground.dir.path().join("secret"))?;
    ensure!(std::os::unix::fs::MetadataExt::uid(&secret) == 0);
    ensure!(fs::read_link(ground.dir.path().join("export/hard"))? == Path::new("../secret"));
    ground.is_whole()
}

pub fn a_read_only_export_stays_as_it_is() -> Result<()> {
    let ground = Ground::new()?;
    let read_only = Export {
        read_only: true,
        ..ground.export()
    };
    // The same directory, which can be written there, and is another one here.
    let mut client = Client::new(&[ground.export(), read_only])?;
    let writable = client.look_up(ROOT, "0")?;
    let fixed = client.look_up(ROOT, "1")?;
    ensure!(writable.node != fixed.node && writable.inode == fixed.inode);
    client.look_up(writable.node, "file")?;
    let file = client.look_up(fixed.node, "file")?.node;
    let sub = client.look_up(fixed.node, "sub")?.node;
    let new = name("new");
    let value = [fields!(1u32, 0u32), name("user.x"), vec![1]].concat();
    let set = |valid: u32| [fields!(valid, 0u32), vec![0; 80]].concat();
    let create = [
        fields!(libc::O_RDWR | libc::O_CREAT, 0o644u32, 0u32, 0u32),
        new.clone(),
    ];
    for (opcode, node, body) in [
        (4, file, set(1)),
        (4, file, set(2)),
        (4, file, set(8)),
        (4, file, set(0x1b0)),
        (6, fixed.node, [new.clone(), name("x")].concat()),
        (
            8,
            fixed.node,
            [fields!(0o100_644u32, 0u32, 0u32, 0u32), new.clone()].concat(),
        ),
        (
            9,
            fixed.node,
            [fields!(0o755u32, 0u32), new.clone()].concat(),
        ),
        (10, fixed.node, name("file")),
        (11, fixed.node, name("sub")),
        (
            12,
            fixed.node,
            [fields!(sub), name("file"), new.clone()].concat(),
        ),
        (13, fixed.node, [fields!(file), new.clone()].concat()),
        (14, file, fields!(libc::O_RDWR, 0u32)),
        (14, file, fields!(libc::O_RDONLY | libc::O_TRUNC, 0u32)),
        (21, file, value),
        (24, file, name("user.x")),
        (35, fixed.node, create.concat()),
        (51, fixed.node, create.concat()),
    ] {
        let error = client.fails(opcode, node, &body)?;
        ensure!(error == libc::EROFS, "{opcode}: {error}");
    }
    // Nor by what was opened or is known by way of the writable one.
    let other = client.look_up(writable.node, "file")?.node;
    let handle = client.open(other, libc::O_RDWR)?;
    ensure!(client.write(file, handle, 0, b"x")? == Err(libc::EBADF));
    let body = [fields!(other), new.clone()].concat();
    ensure!(client.fails(13, fixed.node, &body)? == libc::EROFS);
    let body = [fields!(fixed.node), name("file"), new].concat();
    ensure!(client.fails(12, writable.node, &body)? == libc::EXDEV);
    ensure!(fs::read_to_string(ground.dir.path().join("export/file"))? == "in the export");
    Ok(())
}

/// No mapping of the host's page cache, through which a guest could write to what is read-only.
pub fn there_is_no_window_into_the_hosts_cache() -> Result<()> {
    let ground = Ground::new()?;
    let mut client = Client::without_session(&[ground.export()])?;
    // MAP_ALIGNMENT, and what INIT_EXT has beyond the first 32 features.
    let agreed = client.init(u32::MAX)?;
    ensure!(
        agreed & (1 << 26) == 0 && agreed & (1 << 30) == 0,
        "{agreed:x}"
    );
    let file = client.walk("0/file")?.node;
    for (opcode, len) in [(48, 40), (49, 16)] {
        ensure!(client.fails(opcode, file, &vec![0; len])? == libc::ENOSYS);
    }
    Ok(())
}

pub fn devices_are_not_made() -> Result<()> {
    let ground = Ground::new()?;
    let mut client = Client::new(&[ground.export()])?;
    let export = client.look_up(ROOT, "0")?.node;
    let node =
        |kind: u32, device: u32| [fields!(kind | 0o666, device, 0u32, 0u32), name("n")].concat();
    for (kind, device) in [(0o020_000, 0x103), (0o060_000, 0x800), (0o060_000, 0)] {
        let error = client.fails(8, export, &node(kind, device))?;
        ensure!(error == libc::EPERM, "{error}");
    }
    for kind in [0o020_000, 0o010_000, 0o140_000, 0o100_000] {
        client.done(8, export, &node(kind, 0))?;
        let found = client.look_up(export, "n")?;
        ensure!(found.mode & 0o170_000 == kind);
        if kind != 0o100_000 {
            ensure!(client.fails(14, found.node, &fields!(0u32, 0u32))? == libc::ENXIO);
        }
        client.done(10, export, &name("n"))?;
    }
    Ok(())
}

pub fn sizes_and_numbers_may_lie() -> Result<()> {
    let ground = Ground::new()?;
    let mut client = Client::new(&[ground.export()])?;
    let export = client.look_up(ROOT, "0")?.node;
    let file = client.look_up(export, "file")?.node;
    let handle = client.open(file, libc::O_RDWR)?;
    let directory = u64_at(&client.done(27, export, &fields!(0u32, 0u32))?, 0);
    let most = u64::MAX;
    for (opcode, node, body) in [
        // Other people's numbers.
        (3, 12345, vec![0; 16]),
        (14, most, fields!(0u32, 0u32)),
        (
            15,
            file,
            fields!(directory, 0u64, 10u32, 0u32, 0u64, 0u32, 0u32),
        ),
        (
            15,
            export,
            fields!(handle, 0u64, 10u32, 0u32, 0u64, 0u32, 0u32),
        ),
        (18, file, fields!(most, 0u32, 0u32, 0u64)),
        (
            28,
            file,
            fields!(handle, 0u64, 4096u32, 0u32, 0u64, 0u32, 0u32),
        ),
        // Sizes.
        (
            15,
            file,
            fields!(handle, 0u64, u32::MAX, 0u32, 0u64, 0u32, 0u32),
        ),
        (
            15,
            file,
            fields!(handle, most, 10u32, 0u32, 0u64, 0u32, 0u32),
        ),
        (
            16,
            file,
            fields!(handle, 0u64, 1000u32, 0u32, 0u64, 0u32, 0u32),
        ),
        (
            16,
            file,
            [fields!(handle, most, 1u32, 0u32, 0u64, 0u32, 0u32), vec![1]].concat(),
        ),
        (21, file, [fields!(u32::MAX, 0u32), name("user.x")].concat()),
        (
            21,
            file,
            [fields!(8u32, 0u32), name("user.x"), vec![1]].concat(),
        ),
        (
            28,
            export,
            fields!(directory, most, 4096u32, 0u32, 0u64, 0u32, 0u32),
        ),
        (
            4,
            file,
            [fields!(8u32, 0u32, 0u64, most), vec![0; 64]].concat(),
        ),
        (43, file, fields!(handle, most, most, 0u32, 0u32)),
        (43, file, fields!(handle, 0u64, 1u64 << 63, 0u32, 0u32)),
        (43, file, fields!(handle, 0u64, 10u64, u32::MAX, 0u32)),
        (46, file, fields!(handle, most, 3u32, 0u32)),
        (46, file, fields!(handle, 0u64, 0u32, 0u32)),
        (
            47,
            file,
            fields!(handle, most, file, handle, 0u64, 10u64, 0u64),
        ),
        (
            47,
            file,
            fields!(handle, 0u64, file, handle, most, most, 0u64),
        ),
        (
            47,
            file,
            fields!(handle, 0u64, export, handle, 0u64, 10u64, 0u64),
        ),
        (
            32,
            file,
            fields!(handle, 1u64, 10u64, 5u64, 1u32, 0u32, 0u32, 0u32),
        ),
        (
            32,
            file,
            fields!(handle, 1u64, 0u64, most, 1u32, 0u32, 0u32, 0u32),
        ),
        (
            32,
            file,
            fields!(handle, 1u64, 0u64, 5u64, 77u32, 0u32, 0u32, 0u32),
        ),
        (
            32,
            export,
            fields!(handle, 1u64, 0u64, 5u64, 1u32, 0u32, 0u32, 0u32),
        ),
        // Cut off.
        (4, file, vec![0; 80]),
        (14, file, vec![0; 7]),
        (32, file, vec![0; 40]),
        // Nobody has these.
        (39, file, vec![0; 32]),
        (48, file, vec![0; 40]),
        (0, file, vec![]),
        (4096, file, vec![]),
    ] {
        let reply = client.ask(opcode, node, &body)?;
        ensure!(reply.is_err(), "{opcode}: {body:?}");
    }
    // A number of forgotten files that lies, in a request that nobody answers.
    client.send(42, 0, &fields!(u32::MAX, 0u32, file, 0u64))?;
    client.send(2, ROOT, &fields!(most))?;
    ensure!(client.attributes(file)?.size == 13);
    client.look_up(ROOT, "0")?;
    Ok(())
}

pub fn a_message_that_is_none_ends_the_stream() -> Result<()> {
    let ground = Ground::new()?;
    for length in [0u32, 39, (1 << 20) + 4097, u32::MAX] {
        let mut client = Client::new(&[ground.export()])?;
        client.send_raw(&[fields!(length), vec![0; 60]].concat())?;
        let pidfd = client.process.pidfd()?;
        let mut fds = [rustix::event::PollFd::new(
            &pidfd,
            rustix::event::PollFlags::IN,
        )];
        let limit = rustix::event::Timespec::try_from(LIMIT)?;
        ensure!(rustix::event::poll(&mut fds, Some(&limit))? == 1);
        let status = client.process.try_wait()?.context("it lives")?;
        ensure!(status.success(), "{status}");
    }
    Ok(())
}

/// Requests by chance, about what there is. Whatever they do, they do it in the export, and the process
/// lives.
pub fn chance_finds_no_way_out() -> Result<()> {
    let ground = Ground::new()?;
    let mut client = Client::new(&[ground.export()])?;
    let export = client.look_up(ROOT, "0")?.node;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut chance = move |most: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % most
    };
    let names = ["file", "sub", "a", "..", "/", "../secret", "sub/a"];
    let mut nodes = vec![ROOT, export];
    for turn in 0..20_000 {
        let opcode = u32::try_from(chance(54))?;
        // The session's end, and who waits for a lock.
        if [26, 33, 38].contains(&opcode) {
            continue;
        }
        let node = nodes[usize::try_from(chance(nodes.len() as u64))?];
        let mut body = Vec::new();
        for _ in 0..chance(12) {
            match chance(5) {
                0 => body.extend(chance(8).to_le_bytes()),
                1 => body.extend((chance(u64::MAX)).to_le_bytes()),
                2 => body.extend(u32::try_from(chance(0xffff))?.to_le_bytes()),
                3 => body.extend(name(names[usize::try_from(chance(7))?])),
                _ => body.extend(nodes[usize::try_from(chance(nodes.len() as u64))?].to_le_bytes()),
            }
        }
        let unique = client.send(opcode, node, &body)?;
        if [2, 36, 42].contains(&opcode) {
            continue;
        }
        let reply = client.reply(unique)?;
        if let (1, Ok(entry)) = (opcode, reply)
            && nodes.len() < 50
        {
            nodes.push(u64_at(&entry, 0));
        }
        if turn % 4000 == 0 {
            ground.is_whole()?;
        }
    }
    ground.is_whole()?;
    ensure!(client.process.try_wait()?.is_none());
    Ok(())
}
