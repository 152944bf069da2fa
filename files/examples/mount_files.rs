//! Mounts a directory by the server and `/dev/fuse`, for measurements and other programs' tests: `mount_files
//! [--exclusive] SOURCE TARGET`, as root. It stays until its standard input ends.

use hullbox_files::outside::mount_with;
use hullbox_files::{ENTRY, Export, Launcher, main as serve};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};
use std::ffi::OsString;
use std::io::Read;
use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|word| word == ENTRY) {
        return Ok(serve(&args[1..]));
    }
    let exclusive = args.first().is_some_and(|word| word == "--exclusive");
    let [source, target] = &args[usize::from(exclusive)..] else {
        anyhow::bail!("usage: mount_files [--exclusive] SOURCE TARGET");
    };
    let program = std::env::current_exe()?;
    let launcher = |words: &[&str]| {
        let words = words.iter().map(OsString::from).collect();
        Launcher::of(&program, words)
    };
    let export = Export {
        exclusive,
        ..Export::of(source)
    };
    let server = launcher(&[ENTRY]).start(&[export])?;
    let relay = launcher(&[ENTRY, "--relay"]);
    let (outside, server) = mount_with(server, &relay)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&outside.root, c"", CWD, target, flags)?;
    println!("{}", server.as_ref().map_or(0, |server| server.pid()));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    unmount(target, UnmountFlags::DETACH)?;
    Ok(ExitCode::SUCCESS)
}
