//! `--cidfile`: a file with the new container's id, which is gone again when there is no container.
//!
//! Where the helper machine runs the command, which sees the host's files but cannot write them,
//! this process chooses the id beforehand and writes the file when the machine tells that the
//! container was made.

use crate::failure::{FAILED, Failure, RUN_FAILED};
use hullbox_engine::state;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

/// A file that is made before its container, so that two commands do not share one.
#[derive(Debug)]
pub(crate) struct CidFile {
    file: File,
    path: PathBuf,
    written: bool,
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if !self.written {
            // No container, no file; one that cannot be removed is empty.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl CidFile {
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(path)
            .map_err(|error| {
                if error.kind() == io::ErrorKind::AlreadyExists {
                    Failure::new(format!("the container id file {} exists", path.display()))
                        .with_hint("make sure that the other container is gone, or remove the file")
                } else {
                    Failure::of(format!("cannot create {}", path.display()), &error)
                }
            })?;
        Ok(Self {
            file,
            path: path.to_owned(),
            written: false,
        })
    }

    pub(crate) fn write(&mut self, id: &str) -> Result<(), Failure> {
        self.file.write_all(id.as_bytes()).map_err(|error| {
            Failure::of(format!("cannot write {}", self.path.display()), &error)
        })?;
        self.written = true;
        Ok(())
    }
}

/// Runs a forwarded command whose `--cidfile` is this host's. `early`: the file is wanted while the
/// command still runs.
pub(crate) fn forwarded(
    path: &Path,
    early: bool,
    args: &[OsString],
    run: impl FnOnce(&[OsString]) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    let mut file = CidFile::create(path)?;
    let id = state::new_id().map_err(|error| Failure::of("cannot make a container id", &error))?;
    let args = with_id(args, path.as_os_str(), &id);
    if !early {
        let code = run(&args)?;
        if code == 0 || was_made(&id) {
            file.write(&id)?;
        }
        return Ok(code);
    }
    let watch = Watch::begin(file, id.clone());
    let result = run(&args);
    let mut file = watch.end()?;
    let ran = matches!(result, Ok(code) if code != RUN_FAILED && code != FAILED);
    if !file.written && (ran || was_made(&id)) {
        file.write(&id)?;
    }
    result
}

/// `args` with the id in the flag's place.
fn with_id(args: &[OsString], path: &OsStr, id: &str) -> Vec<OsString> {
    let flag = OsString::from(format!("--container-id={id}"));
    let mut joined = b"--cidfile=".to_vec();
    joined.extend_from_slice(path.as_bytes());
    let joined = OsString::from_vec(joined);
    let mut rest = args.to_vec();
    // Only the first: what follows the image's name is the container's.
    let place = args.iter().enumerate().find_map(|(at, arg)| {
        let apart = arg == "--cidfile" && args.get(at + 1).is_some_and(|next| next == path);
        (apart || *arg == joined).then_some(at..=at + usize::from(apart))
    });
    if let Some(place) = place {
        rest.splice(place, [flag]);
    }
    rest
}

/// This program, to ask whether a container was made.
fn events(id: &str, more: &[&str]) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["events", "--since", "24h", "--filter", "event=create"])
        .args([
            "--filter",
            &format!("container={id}"),
            "--format",
            "{{.Action}}",
        ])
        .args(more)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    Ok(command)
}

fn was_made(id: &str) -> bool {
    events(id, &["--until", "0"])
        .and_then(|mut command| command.output())
        .is_ok_and(|output| !output.stdout.is_empty())
}

/// Writes the file as soon as the container is made.
struct Watch {
    writer: JoinHandle<Result<CidFile, Failure>>,
    events: Option<Child>,
}

impl Watch {
    fn begin(mut file: CidFile, id: String) -> Self {
        let spawned = events(&id, &[]).and_then(|mut c| c.stdout(Stdio::piped()).spawn());
        // Without it, the file is written at the end.
        let mut events = spawned.ok();
        let told = events.as_mut().and_then(|child| child.stdout.take());
        let writer = std::thread::spawn(move || {
            let mut line = String::new();
            let read = told.map(|told| BufReader::new(told).read_line(&mut line));
            if matches!(read, Some(Ok(1..))) {
                file.write(&id)?;
            }
            Ok(file)
        });
        Self { writer, events }
    }

    fn end(mut self) -> Result<CidFile, Failure> {
        if let Some(mut child) = self.events.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.writer
            .join()
            .unwrap_or_else(|_| Err(Failure::new("cannot write the container id file")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_takes_the_flags_place() {
        let replaced = |line: &str| {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let args = with_id(&args, OsStr::new("f"), "1a");
            args.join(OsStr::new(" ")).into_string().unwrap()
        };
        assert_eq!(
            replaced("run -d --cidfile f busybox x --cidfile f"),
            "run -d --container-id=1a busybox x --cidfile f"
        );
        assert_eq!(
            replaced("create --cidfile=f busybox"),
            "create --container-id=1a busybox"
        );
    }
}
