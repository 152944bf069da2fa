//! `cp`.

use super::files::failed;
use super::join::join;
use crate::args::container::CpArgs;
use crate::engine;
use crate::output::failure::{BROKEN_PIPE, FAILED, Failure};
use crate::output::stdout;
use hullbox_engine::containers::{Errand, Look};
use hullbox_engine::cp::rules;
use hullbox_engine::cp::{
    CpError, Direction, PackOptions, Place, UnpackOptions, destination, pack, source_kind, unpack,
};
use hullbox_session::client::AttachOptions;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The failure of an errand whose connection broke before its end.
const BROKE_OFF: &str = "the container's side broke off";
/// The hidden command that prints what is at a path in a container.
pub(crate) const STAT: &str = "__stat";
/// Longest answer to it, in bytes.
const MAX_LOOK: u64 = 256 * 1024;

/// Attaches this process's standard streams to an errand, and gives the exit code.
fn attach_to(errand: Errand, stdin: bool) -> Result<u8, Failure> {
    let options = AttachOptions {
        stdin,
        ..AttachOptions::default()
    };
    let code = join(errand.connection, options)?.code(BROKE_OFF);
    if let Some(mut process) = errand.process {
        // The next command must find the container's lock free.
        let _ = process.wait();
    }
    code
}

/// `cp`. The container's half of it is this same command with `-` for the other half, as a process
/// of its own: it may run in the helper machine, which cannot write the host's files.
pub(crate) fn cp(args: &CpArgs) -> Result<u8, Failure> {
    let direction = Direction::of(Place::parse(&args.from)?, Place::parse(&args.to)?)?;
    match direction {
        Direction::Out {
            container,
            source,
            destination: None,
        } => {
            let mut engine = engine::open()?;
            let record = engine.find(&container)?;
            let errand = engine.archive_out(&record, source, args.follow_link)?;
            attach_to(errand, false)
        }
        Direction::In {
            source: None,
            container,
            destination,
        } => {
            let mut engine = engine::open()?;
            let record = engine.find(&container)?;
            let errand = engine.archive_in(&record, destination, args.archive)?;
            attach_to(errand, true)
        }
        Direction::Out {
            container,
            source,
            destination: Some(destination),
        } => copy_out(args, &container, &source, destination.as_os_str()),
        Direction::In {
            source: Some(source),
            container,
            destination,
        } => copy_in(args, source.as_os_str(), &container, &destination),
    }
}

fn half(args: &[&OsStr]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(args);
    command
}

fn place(container: &str, path: &[u8]) -> OsString {
    let mut place = OsString::from(container);
    place.push(":");
    place.push(OsStr::from_bytes(path));
    place
}

/// What a path in a container is.
fn look(container: &str, path: &[u8], follow: bool) -> Result<Look, Failure> {
    let place = place(container, path);
    let follow = if follow { "-L" } else { "-P" };
    let args = [STAT.as_ref(), follow.as_ref(), place.as_os_str()];
    let failed = |error: io::Error| Failure::of("cannot look into the container", &error);
    let mut child = half(&args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut text = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(MAX_LOOK)
            .read_to_end(&mut text)
            .map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        // It has printed why.
        return Err(Failure::silent(FAILED));
    }
    Ok(serde_json::from_slice(&text)?)
}

fn copy_out(
    args: &CpArgs,
    container: &str,
    source: &[u8],
    destination: &OsStr,
) -> Result<u8, Failure> {
    let there = look(container, source, args.follow_link)?;
    let (here, kind) = self::destination(destination.as_ref())?;
    let plan = rules::plan((source, there.kind()), (here.as_os_str().as_bytes(), kind))?;
    let directory = Path::new(OsStr::from_bytes(&plan.directory));
    if !directory.is_dir() {
        let shown = directory.display();
        return Err(Failure::new(format!(
            "invalid output path: directory {shown} does not exist"
        )));
    }
    let from = place(container, source);
    let mut half_args: Vec<&OsStr> = vec!["cp".as_ref()];
    if args.follow_link {
        half_args.push("-L".as_ref());
    }
    half_args.extend([from.as_os_str(), "-".as_ref()]);
    let failed = |error: io::Error| Failure::of("cannot copy", &error);
    let mut child = half(&half_args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let stdout = child
        .stdout
        .take()
        .ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
    let options = UnpackOptions {
        archive: args.archive,
    };
    let unpacked = unpack(BufReader::with_capacity(1 << 16, stdout), &plan, options);
    let status = child.wait().map_err(failed)?;
    // Its own message explains more than the broken stream. It has none where this side stopped reading.
    let is_mine = status.code() == Some(i32::from(BROKEN_PIPE)) && unpacked.is_err();
    if !status.success() && !is_mine && !matches!(unpacked, Err(CpError::Refused { .. })) {
        return Err(Failure::silent(FAILED));
    }
    warn_of_skipped(&unpacked?.skipped);
    Ok(0)
}

fn copy_in(
    args: &CpArgs,
    source: &OsStr,
    container: &str,
    destination: &[u8],
) -> Result<u8, Failure> {
    let kind = source_kind(source.as_ref(), args.follow_link)?;
    // A link as the destination stands for what it leads to.
    let there = look(container, destination, true)?;
    let plan = rules::plan((source.as_bytes(), kind), (&there.path, there.kind()))?;
    let to = place(container, &plan.directory);
    let mut half_args: Vec<&OsStr> = vec!["cp".as_ref()];
    if args.archive {
        half_args.push("-a".as_ref());
    }
    half_args.extend(["-".as_ref(), to.as_os_str()]);
    let failed = |error: io::Error| Failure::of("cannot copy", &error);
    let mut child = half(&half_args)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut stdin = child
        .stdin
        .take()
        .ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
    let options = PackOptions {
        follow_link: args.follow_link,
        archive: args.archive,
    };
    let name = plan.name.unwrap_or_else(|| b".".to_vec());
    let packed = pack(source.as_ref(), &name, options, &mut stdin);
    drop(stdin);
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        return Err(Failure::silent(FAILED));
    }
    warn_of_skipped(&packed?.skipped);
    Ok(0)
}

fn warn_of_skipped(names: &[String]) {
    for name in names {
        let name: String = name
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let text = format!("hullbox: not copied, because it is not a file: {name}\n");
        // A warning that cannot be written is no reason to fail.
        let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
    }
}

/// `__stat -L|-P CONTAINER:PATH`: a [`Look`] as JSON.
pub(crate) fn stat_command(args: &[OsString]) -> Result<u8, Failure> {
    let [follow, place] = args else {
        return Err(Failure::new("usage: __stat -L|-P CONTAINER:PATH"));
    };
    let Place::Container { name, path } = Place::parse(place)? else {
        return Err(CpError::Malformed(place.clone()).into());
    };
    let mut engine = engine::open()?;
    let record = engine.find(&name)?;
    let found = engine
        .look(&record, &path, follow == "-L")
        .map_err(failed)?;
    stdout::print(&format!("{}\n", serde_json::to_string(&found)?))?;
    Ok(0)
}
