//! What files are like.

use crate::client::{Client, ROOT};
use crate::fields;
use anyhow::{Result, ensure};
use hullbox_files::Export;

pub fn files_are_read_and_written() -> Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("old"), "hello")?;
    let mut client = Client::new(&[Export::of(dir.path())])?;
    let export = client.look_up(ROOT, "0")?;
    let old = client.look_up(export.node, "old")?;
    ensure!(old.size == 5 && old.mode == 0o100_644, "{old:?}");
    let handle = client.open(old.node, libc::O_RDONLY)?;
    ensure!(client.read(old.node, handle, 1, 100)? == Ok(b"ello".to_vec()));
    let (new, handle) = client.create(export.node, "new", 0o666)?;
    ensure!(new.mode == 0o100_644, "{new:?}");
    let written = client.write(new.node, handle, 2, b"data")?;
    ensure!(written == Ok(vec![4, 0, 0, 0, 0, 0, 0, 0]), "{written:?}");
    ensure!(std::fs::read(dir.path().join("new"))? == b"\0\0data");
    ensure!(client.list(export.node)? == ["new", "old"]);
    Ok(())
}

pub fn appends_go_to_the_end_and_pages_to_their_place() -> Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("log"), "0123")?;
    let mut client = Client::new(&[Export::of(dir.path())])?;
    let log = client.walk("0/log")?.node;
    let handle = client.open(log, libc::O_RDWR | libc::O_APPEND)?;
    // Where another has written meanwhile.
    std::fs::write(dir.path().join("log"), "012345")?;
    ensure!(client.write(log, handle, 4, b"a")?.is_ok());
    let page = fields!(handle, 1u64, 2u32, 1u32, 0u64, 0u32, 0u32);
    client.done(16, log, &[page, b"xy".to_vec()].concat())?;
    ensure!(std::fs::read(dir.path().join("log"))? == b"0xy345a");
    Ok(())
}
