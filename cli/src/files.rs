//! `cp`, `diff`, `export` and `commit`: the files of a container, from inside its walls.

use crate::container_args::{CommitArgs, CpArgs, ExportArgs, NameArgs};
use crate::failure::{FAILED, Failure};
use crate::join::{Joint, join};
use crate::output_file::OutputFile;
use crate::{output, system};
use hullbox_engine::containers::{Engine, Errand};
use hullbox_engine::cp::rules::{self, Kind};
use hullbox_engine::cp::{
    CpError, Direction, PackOptions, Place, UnpackOptions, kind_of, pack, unpack,
};
use hullbox_engine::state::{Phase, Record};
use hullbox_image::{ConfigPatch, DeriveError, DeriveOptions, Reference};
use hullbox_protocol::{Builtin, INITIAL_CREDIT, PathStat};
use hullbox_session::client::{AttachOptions, Outcome, Streams, attach_streams};
use std::ffi::{OsStr, OsString};
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};

/// What it means when an errand's connection breaks.
const BROKE_OFF: &str = "the container's side broke off";
/// The hidden command that says what a path in a container is.
pub(crate) const STAT: &str = "__stat";
/// Longest list of changes, in bytes: a hostile guest makes it.
const MAX_CHANGES: u64 = 64 << 20;
/// Longest answer to it, in bytes.
const MAX_STAT: u64 = 64 * 1024;

const fn plain(stdin: bool) -> AttachOptions {
    AttachOptions {
        session: 0,
        stdin,
        input_credit: INITIAL_CREDIT,
        tty: false,
        sig_proxy: false,
        detach: None,
    }
}

/// Runs an errand on our own standard streams; our exit code.
fn on_our_streams(name: &str, builtin: Builtin, stdin: bool) -> Result<u8, Failure> {
    let mut engine = system::engine()?;
    let record = engine.find(name)?;
    let errand = engine.errand(&record, builtin, stdin)?;
    let joint = join(errand.connection, plain(stdin))?;
    conclude(joint, errand.process)
}

fn conclude(joint: Joint, process: Option<Child>) -> Result<u8, Failure> {
    let code = joint.code(BROKE_OFF);
    wait_for(process);
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
            let follow = args.follow_link;
            let builtin = Builtin::ArchiveOut {
                path: source,
                follow,
            };
            on_our_streams(&container, builtin, false)
        }
        Direction::In {
            source: None,
            container,
            destination,
        } => {
            let builtin = Builtin::ArchiveIn {
                path: destination,
                keep_owner: args.archive,
            };
            on_our_streams(&container, builtin, true)
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

/// Whether `cp` only passes a stream on, so that it may be forwarded.
pub(crate) fn is_stream(args: &CpArgs) -> bool {
    args.from == "-" || args.to == "-"
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
fn stat(container: &str, path: &[u8], follow: bool) -> Result<Kind, Failure> {
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
            .take(MAX_STAT)
            .read_to_end(&mut text)
            .map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        // It has said why.
        return Err(Failure::silent(FAILED));
    }
    let stat: Option<PathStat> = serde_json::from_slice(&text)?;
    Ok(match stat {
        None => Kind::Missing,
        Some(stat) if stat.mode & libc_mode::FORMAT == libc_mode::DIRECTORY => Kind::Dir,
        Some(_) => Kind::File,
    })
}

/// `st_mode`'s type, as in `sys/stat.h`.
mod libc_mode {
    pub(super) const FORMAT: u32 = 0o170_000;
    pub(super) const DIRECTORY: u32 = 0o040_000;
}

fn copy_out(
    args: &CpArgs,
    container: &str,
    source: &[u8],
    destination: &OsStr,
) -> Result<u8, Failure> {
    let source_kind = stat(container, source, args.follow_link)?;
    let here = kind_of(destination.as_ref(), true)?;
    let plan = rules::plan((source, source_kind), (destination.as_bytes(), here))?;
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
    // What it said of itself explains more than what became of its stream.
    if !status.success() && !matches!(unpacked, Err(CpError::Refused { .. })) {
        return Err(Failure::silent(FAILED));
    }
    skipped(&unpacked?.skipped);
    Ok(0)
}

fn copy_in(
    args: &CpArgs,
    source: &OsStr,
    container: &str,
    destination: &[u8],
) -> Result<u8, Failure> {
    let kind = kind_of(source.as_ref(), args.follow_link)?;
    // A link as the destination stands for what it leads to.
    let there = stat(container, destination, true)?;
    let plan = rules::plan((source.as_bytes(), kind), (destination, there))?;
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
    skipped(&packed?.skipped);
    Ok(0)
}

fn skipped(names: &[String]) {
    for name in names {
        let name: String = name
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let text = format!("hullbox: not copied, because it is no file: {name}\n");
        // Nobody to tell of failing to warn.
        let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
    }
}

/// `__stat -L|-P CONTAINER:PATH`: JSON; `null` for what is not there.
pub(crate) fn stat_command(args: &[OsString]) -> Result<u8, Failure> {
    let [follow, place] = args else {
        return Err(Failure::new("usage: __stat -L|-P CONTAINER:PATH"));
    };
    let Place::Container { name, path } = Place::parse(place)? else {
        return Err(CpError::Malformed(place.clone()).into());
    };
    let mut engine = system::engine()?;
    let record = engine.find(&name)?;
    let found = look(&mut engine, &record, &path)?;
    let found = match found {
        // One step is enough: the agent has resolved the link to its end.
        Some(link) if follow == "-L" && !link.link_target.is_empty() => {
            look(&mut engine, &record, &link.link_target)?
        }
        found => found,
    };
    output::print(&format!("{}\n", serde_json::to_string(&found)?))?;
    Ok(0)
}

fn look(engine: &mut Engine, record: &Record, path: &[u8]) -> Result<Option<PathStat>, Failure> {
    let builtin = Builtin::Stat {
        path: path.to_vec(),
    };
    let errand = engine.errand(record, builtin, false)?;
    let (outcome, text) = collect(errand)?;
    match outcome {
        Outcome::Exited(status) if status.exit_code() == 0 => {
            Ok(Some(serde_json::from_slice(&text)?))
        }
        Outcome::Failed(failure) if failure.exit_code() == 127 => Ok(None),
        Outcome::Failed(failure) => Err(Failure::new(failure.message)),
        _ => Err(Failure::new(BROKE_OFF)),
    }
}

/// Runs an errand with little output, and gives that.
fn collect(errand: Errand) -> Result<(Outcome, Vec<u8>), Failure> {
    let mut text = Vec::new();
    let outcome = read_output(errand, |output| {
        output.take(MAX_STAT).read_to_end(&mut text).map(drop)
    });
    Ok((outcome?, text))
}

/// Joins an errand whose output a closure reads, to its end.
fn read_output(
    errand: Errand,
    read: impl FnOnce(&mut dyn Read) -> io::Result<()>,
) -> Result<Outcome, Failure> {
    let failed = |error: io::Error| Failure::of("cannot read from the container", &error);
    let connection = errand.connection;
    let outcome = std::thread::scope(|scope| {
        let (mut output, stdout) = io::pipe().map_err(failed)?;
        let attached = scope.spawn(move || {
            let (stdin, stderr) = (io::stdin(), io::stderr());
            let streams = Streams {
                stdin: stdin.as_fd(),
                stdout: stdout.as_fd(),
                stderr: stderr.as_fd(),
            };
            attach_streams(connection, &[], plain(false), streams, &mut |_| {})
        });
        let done = read(&mut output);
        // A reader that gave up must not hold the other side up.
        drop(output);
        let outcome = attached
            .join()
            .map_err(|_| Failure::new("reading from the container panicked"))?;
        done.map_err(failed)?;
        Ok(outcome?)
    });
    wait_for(errand.process);
    outcome
}

/// The next command must find the container free.
fn wait_for(process: Option<Child>) {
    if let Some(mut process) = process {
        let _ = process.wait();
    }
}

/// `diff`.
pub(crate) fn diff(args: &NameArgs) -> Result<(), Failure> {
    let mut engine = system::engine()?;
    let record = engine.find(&args.name)?;
    let errand = engine.errand(&record, Builtin::Changes, false)?;
    let mut text = Vec::new();
    let outcome = read_output(errand, |output| {
        output
            .take(MAX_CHANGES + 1)
            .read_to_end(&mut text)
            .map(drop)
    });
    if text.len() as u64 > MAX_CHANGES {
        return Err(Failure::new(
            "the container lists more changes than can be shown",
        ));
    }
    check(outcome?)?;
    for line in text
        .split(|byte| *byte == 0)
        .filter(|line| !line.is_empty())
    {
        let line: String = String::from_utf8_lossy(line)
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        output::print(&format!("{line}\n"))?;
    }
    Ok(())
}

/// Whether an errand has done what it was to do.
fn check(outcome: Outcome) -> Result<(), Failure> {
    match outcome {
        Outcome::Exited(status) if status.exit_code() == 0 => Ok(()),
        // It has said why on standard error.
        Outcome::Exited(_) => Err(Failure::silent(FAILED)),
        Outcome::Failed(failure) => Err(Failure::new(failure.message)),
        _ => Err(Failure::new(BROKE_OFF)),
    }
}

/// `export`.
pub(crate) fn export(args: &ExportArgs) -> Result<(), Failure> {
    let mut engine = system::engine()?;
    let record = engine.find(&args.name)?;
    let mut file = OutputFile::open(args.output.as_deref())?;
    let errand = engine.errand(&record, Builtin::Export, false)?;
    let outcome = read_output(errand, |output| io::copy(output, file.file()).map(drop));
    check(outcome?)?;
    file.keep()
}

/// `commit`.
pub(crate) fn commit(args: CommitArgs) -> Result<(), Failure> {
    let name = args
        .image
        .as_deref()
        .map(Reference::parse)
        .transpose()
        .map_err(|error| Failure::of("invalid image name", &error))?;
    let mut engine = system::engine()?;
    let record = engine.find(&args.name)?;
    let mut store = engine.images()?;
    let parent = store.resolve(&record.image_id)?.id;
    let pauses = args.pause && record.phase == Phase::Running;
    let held = pauses.then(|| engine.hold(&record)).transpose()?;
    let (comment, tag) = (args.message.clone(), name.as_ref().map(Reference::familiar));
    let committed = commit_layer(&mut engine, &mut store, &record, &parent, name, args);
    if held.is_some() {
        // Answered when it is done, which letting go of it is not.
        engine.pause(&record, false)?;
    }
    let id = committed?.to_string();
    engine.note_commit(
        &record,
        &id,
        tag.as_deref(),
        comment.as_deref().unwrap_or_default(),
    );
    output::print(&format!("{id}\n"))
}

fn commit_layer(
    engine: &mut Engine,
    store: &mut hullbox_image::Store,
    record: &Record,
    parent: &hullbox_image::ImageId,
    name: Option<Reference>,
    args: CommitArgs,
) -> Result<hullbox_image::ImageId, Failure> {
    let options = DeriveOptions {
        name,
        config: patch(record),
        changes: args.changes,
        author: args.author.unwrap_or_default(),
        message: args.message.unwrap_or_default(),
        created_by: crate::containers::command_line(record),
        created: crate::text::now_s(),
    };
    let errand = engine.errand(record, Builtin::Layer, false)?;
    let mut made = None;
    let outcome = read_output(errand, |output| {
        made = Some(store.derive(parent, output, &options, &mut |_| {}));
        Ok(())
    });
    // A store that refused the layer explains more than a container whose reader was gone.
    match made {
        Some(Ok(id)) => {
            if let Err(failure) = outcome.and_then(check) {
                // Half a layer must not become an image.
                let _ = store.remove(&id.to_string(), true, &mut |_| None);
                return Err(failure);
            }
            Ok(id)
        }
        // Half a stream is the fault of whoever wrote it.
        Some(Err(DeriveError::CutOff)) => {
            outcome.and_then(check)?;
            Err(DeriveError::CutOff.into())
        }
        Some(Err(error)) => Err(error.into()),
        None => Err(Failure::new(BROKE_OFF)),
    }
}

/// The container's configuration, where it may differ from its image's.
fn patch(record: &Record) -> ConfigPatch {
    let spec = &record.spec;
    let strings = |list: &[Vec<u8>]| {
        list.iter()
            .map(|item| String::from_utf8_lossy(item).into_owned())
            .collect::<Vec<_>>()
    };
    ConfigPatch {
        user: match &spec.process.user {
            hullbox_protocol::UserSpec::Named { user, .. } => Some(user.clone()),
            hullbox_protocol::UserSpec::Ids { .. } => None,
        },
        working_dir: Some(spec.process.cwd.clone()),
        env: Some(strings(&spec.process.env)),
        entrypoint: Some(strings(&spec.entrypoint)),
        cmd: Some(strings(&spec.cmd)),
        labels: Some(spec.labels.clone()),
        health: spec.life.check(),
        ..ConfigPatch::default()
    }
}
